"""Has a trainer push to the Hub what `count-clip push` pushes: code, card and all, each time in one commit."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging

from .card import CARD, CardError, write_model_card
from .release import STALE, ReleaseError, prepare_release
from .repository import Destination, HubError, Pushed, explained, prepare_repository, push_files, without_token
from .run_card import training_record, write_loss_image


logger = logging.get_logger(__name__)


def take_token(args: TrainingArguments) -> str | None:
    """
    Take the token of the Hub out of the arguments, which a `Trainer` writes into `training_args.bin`.

    Args:
        args (`TrainingArguments`): Changed in place.

    Returns:
        `str` or `None`: The token.
    """
    token, args.hub_token = args.hub_token, None
    return token


class HubTrainer(Trainer):
    """
    A `Trainer` whose pushes bring the code along and whose card has what was measured; not for use by itself.

    What `push_to_hub` in the arguments asks for is tried before the training: the repository is made, so that a wrong
    name or a token without rights is not found out afterwards. `hub_strategy` says what happens in between, in the
    background: `every_save` pushes each checkpoint's model, `checkpoint` and `all_checkpoints` also what it takes to
    go on from it, `end` nothing. A failure of these pushes is logged and does not stop the training.
    """

    _hub_token: str | None = None
    hub_dtype: str | None = None
    """The type of the weights that are pushed; by default that in which they were trained."""
    license: str | None = None
    """For the card."""
    command: str | None = None
    """What started this training, for the card."""
    _background: Future[Pushed] | None = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository, or find out that it cannot be made."""
        if not self.is_world_process_zero():
            return
        self._hub_token = token or self._hub_token
        name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        destination = self._destination(name, private)
        if "/" not in name:
            with explained(destination):
                name = f"{destination.api.whoami()['name']}/{name}"
            destination = self._destination(name, private)
        config = getattr(self.model, "peft_config", None)
        if config is not None:
            _check_base(next(iter(config.values())).base_model_name_or_path)
        prepare_repository(destination)
        self.hub_model_id = name
        self.push_in_progress = None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card; of what a `Trainer` takes, `license`, `finetuned_from` and `dataset_tags` are used."""
        if not self.is_world_process_zero():
            return
        folder, tags = self.args.output_dir, kwargs.get("dataset_tags")
        write_loss_image(folder, self.state.log_history)
        command = self.command or f"# {type(self).__name__}.train(), from a program of its own"
        write_model_card(
            folder,
            self.hub_model_id,
            license=kwargs.get("license") or self.license,
            base_model=kwargs.get("finetuned_from"),
            datasets=[tags] if isinstance(tags, str) else tags,
            training=training_record(self.args, command, {"steps": self.state.global_step}),
        )

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Save and push the model, the processor, the code and the card.

        Args:
            commit_message (`str`, *optional*): What the commit says.
            blocking (`bool`, *optional*): Has no effect: it always waits for the end.
            token (`str`, *optional*): A token of the Hub; by default that of the arguments or the one logged in.
            revision (`str`, *optional*): The branch.
            private (`bool`, *optional*): Whether a new repository is private.
            kwargs: For [`create_model_card`], which is called if there are some or no card has been written.

        Returns:
            [`Pushed`]; `None` on other processes than the first.

        Raises:
            HubError: If it cannot be pushed; it is saved in `output_dir` all the same.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        if kwargs or not _has_training_text(Path(self.args.output_dir)):
            self.create_model_card(**kwargs)
        destination = self._destination(str(self.hub_model_id), private, revision)
        with tempfile.TemporaryDirectory() as target:
            release = prepare_release(self.args.output_dir, target, self.hub_model_id, dtype=self.hub_dtype)
            files = {path: release.folder / path for path in release.files}
            pushed = push_files(destination, files, commit_message or "Upload with count-clip", STALE)
        logger.warning(f"Pushed to {pushed.url}")
        return pushed

    def _destination(self, name: str, private: bool | None = None, revision: str | None = None) -> Destination:
        private = self.args.hub_private_repo if private is None else private
        branch = revision or self.args.hub_revision or "main"
        return Destination(name, private=private, revision=branch, api=HfApi(token=self._hub_token))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint in the background, from copies: it may be removed before it has been sent."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self._background is not None and not self._background.done():
            if not self.args.hub_always_push:
                return
            self._finish_current_push()
        self._report_background()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        destination = self._destination(str(self.hub_model_id))
        try:
            # Links, which cost nothing and outlive the checkpoint.
            work = Path(tempfile.mkdtemp(prefix=".count-clip-push-", dir=self.args.output_dir))
            copies = Path(shutil.copytree(checkpoint_folder, work / "checkpoint", copy_function=_link))
        except OSError as error:
            logger.warning(f"A push during the training failed. {error} The training goes on.")
            return
        strategy, dtype = self.args.hub_strategy, self.hub_dtype
        message = f"Training in progress, step {self.state.global_step}"

        def send() -> Pushed:
            try:
                release = prepare_release(copies, work / "release", destination.repo_id, dtype=dtype)
                files = {path: release.folder / path for path in release.files}
                if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
                    name = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else Path(checkpoint_folder).name
                    inner = (path for path in sorted(copies.rglob("*")) if path.is_file())
                    files |= {f"{name}/{path.relative_to(copies).as_posix()}": path for path in inner}
                with explained(destination):
                    # A card that is there may be better than one without figures.
                    if destination.api.file_exists(destination.repo_id, CARD, revision=destination.revision):
                        files.pop(CARD, None)
                return push_files(destination, files, message)
            finally:
                shutil.rmtree(work, ignore_errors=True)

        self._background = destination.api.run_as_future(send)

    def _finish_current_push(self) -> None:
        """Wait for the push in the background, if there is one."""
        if self._background is not None:
            self._background.exception()
            self._report_background()

    def _report_background(self) -> None:
        if self._background is None or not self._background.done():
            return
        error = self._background.exception()
        self._background = None
        if isinstance(error, HubError | ReleaseError | CardError | OSError):
            logger.warning(f"A push during the training failed. {error} The training goes on.")
        elif error is not None:
            said = without_token(f"{type(error).__name__}: {error}", self._hub_token)
            logger.warning(f"A push during the training failed. {said} The training goes on.")


def _link(source: str, target: str) -> str:
    """Give a file a second name; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _check_base(base: str | None) -> None:
    """Refuse to train adapters for the Hub on a base that nobody else has, before the training."""
    if base is None or Path(base).expanduser().exists():
        raise HubError(
            f"The adapters of this run belong to {f'the folder {base}' if base else 'a base without a name'}, which "
            "nobody else has. Push the base first and start from its name on the Hub; or leave out `push_to_hub` and "
            "push the adapters afterwards with `count-clip push FOLDER ORG/NAME --base-model ORG/NAME`."
        )


def _has_training_text(folder: Path) -> bool:
    """Whether somebody has written down already how this was trained, as `trainers/run.py` does."""
    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return "<!-- count-clip: training -->" in text and "is not recorded" not in text


__all__ = ["HubTrainer", "take_token"]
