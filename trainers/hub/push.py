"""A `Trainer` that pushes to the Hub what `count-clip push` pushes, each time in one commit."""

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
from .repository import Destination, HubError, Pushed, explained, prepare_repository, push_folder, without_token
from .training import training_record, write_loss_curve


logger = logging.get_logger(__name__)


def take_token(args: TrainingArguments) -> str | None:
    """Take the token of the Hub out of the arguments, which a `Trainer` writes into `training_args.bin`."""
    token, args.hub_token = args.hub_token, None
    return token


class HubTrainer(Trainer):
    """
    A `Trainer` whose pushes contain the code and a card with the figures; a base class.

    With `push_to_hub` the repository is made before the training, so that a wrong name or a token without rights is
    reported before the work. `hub_strategy` chooses what is pushed in the background during it: `every_save` the
    model of each checkpoint, `checkpoint` and `all_checkpoints` also the files to resume from, `end` nothing. A
    failure of these pushes is logged and does not stop the training.
    """

    _hub_token: str | None = None
    hub_dtype: str | None = None
    """The type of the weights that are pushed; by default that of the training."""
    license: str | None = None
    """For the card."""
    command: str = "# Trainer.train(), called by a program"
    """The command of this training, for the card."""
    _background: Future[Pushed] | None = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository, or raise an error if that is impossible."""
        if not self.is_world_process_zero():
            return
        self._hub_token = token or self._hub_token
        name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        destination = self._destination(name, private)
        if "/" not in name:
            with explained(destination):
                destination.repo_id = f"{destination.api.whoami()['name']}/{name}"
        for config in getattr(self.model, "peft_config", {}).values():
            _check_base(config.base_model_name_or_path)
        prepare_repository(destination)
        self.hub_model_id = destination.repo_id
        self.push_in_progress = None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """
        Write the card and the curve of the losses.

        Args:
            kwargs: Of a `Trainer`'s arguments, `license`, `finetuned_from` and `dataset_tags` are used; also `figures`
                for [`write_model_card`] and `facts` for [`training_record`].
        """
        if not self.is_world_process_zero():
            return
        folder, tags = self.args.output_dir, kwargs.get("dataset_tags")
        write_loss_curve(folder, self.state.log_history)
        facts = {**kwargs.get("facts", {}), "steps": self.state.global_step}
        write_model_card(
            folder,
            self.hub_model_id,
            license=kwargs.get("license") or self.license,
            base_model=kwargs.get("finetuned_from"),
            datasets=[tags] if isinstance(tags, str) else tags,
            figures=kwargs.get("figures"),
            training=training_record(self.args, self.command, facts),
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
        Save and push the model, the processor, the code and the card; returns [`Pushed`], or `None` on other processes
        than the first.

        The call returns when the push is done; `blocking` has no effect. `token` is by default that of the arguments
        or of the login, `revision` is the branch, `private` the visibility of a new repository. `kwargs` are for
        [`create_model_card`], which is called if there are any or no card has been written. Raises a [`HubError`] if
        the push fails; the model is saved in `output_dir` before.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        if kwargs or not _records_training(Path(self.args.output_dir, CARD)):
            self.create_model_card(**kwargs)
        destination = self._destination(str(self.hub_model_id), private, revision)
        with tempfile.TemporaryDirectory() as target:
            prepare_release(self.args.output_dir, target, self.hub_model_id, dtype=self.hub_dtype)
            pushed = push_folder(destination, Path(target), commit_message or "Upload with count-clip", STALE)
        logger.warning(f"Pushed to {pushed.url}")
        return pushed

    def _destination(self, name: str, private: bool | None = None, revision: str | None = None) -> Destination:
        private = self.args.hub_private_repo if private is None else private
        branch = revision or self.args.hub_revision or "main"
        return Destination(name, private=private, revision=branch, api=HfApi(token=self._hub_token))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint in the background, from links: it may be removed before it has been sent."""
        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        if self._background is not None and not self._background.done() and not self.args.hub_always_push:
            return
        self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        try:
            work = Path(tempfile.mkdtemp(prefix=".count-clip-push-", dir=self.args.output_dir))
            copies = Path(shutil.copytree(checkpoint_folder, work / "checkpoint", copy_function=_link))
        except OSError as error:
            logger.warning(f"A push during the training failed. {error} The training goes on.")
            return
        destination, dtype = self._destination(str(self.hub_model_id)), self.hub_dtype
        message = f"Training in progress, step {self.state.global_step}"
        name = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else Path(checkpoint_folder).name

        def send() -> Pushed:
            try:
                release = prepare_release(copies, work / "release", destination.repo_id, dtype=dtype).folder
                if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
                    shutil.copytree(copies, release / name, copy_function=_link)
                with explained(destination):
                    # The repository's card may have figures, which this one lacks.
                    if destination.api.file_exists(destination.repo_id, CARD, revision=destination.revision):
                        (release / CARD).unlink()
                return push_folder(destination, release, message)
            finally:
                shutil.rmtree(work, ignore_errors=True)

        self._background = destination.api.run_as_future(send)

    def _finish_current_push(self) -> None:
        """Wait for the push in the background, if there is one, and log its failure."""
        if self._background is None:
            return
        error, self._background = self._background.exception(), None
        if error is not None:
            known = isinstance(error, HubError | ReleaseError | CardError | OSError)
            reason = str(error) if known else without_token(f"{type(error).__name__}: {error}", self._hub_token)
            logger.warning(f"A push during the training failed. {reason} The training goes on.")


def _link(source: str, target: str) -> str:
    """Give a file a second name; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _check_base(base: str | None) -> None:
    """Refuse to train adapters for the Hub on a base that is not on the Hub, before the training."""
    if base is None or Path(base).expanduser().exists():
        raise HubError(
            f"The adapters of this run belong to {f'the folder {base}' if base else 'a base without a name'}, which "
            "is not on the Hub. Push the base first and start from its name there; or leave out `push_to_hub` and "
            "push the adapters afterwards with `count-clip push FOLDER ORG/NAME --base-model ORG/NAME`."
        )


def _records_training(card: Path) -> bool:
    """Whether a card has the training already, as `trainers/run.py` writes it."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return "<!-- count-clip: training -->" in text and "is not recorded" not in text


__all__ = ["HubTrainer", "take_token"]
