"""
Pushes a folder to the Hub in one commit, which holds all of it or is not made.

Errors of the Hub and the network become messages that name a remedy and never contain the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id


MAIN = "main"
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{6,}")
_NEW_TOKEN = "make one with the right to write at https://huggingface.co/settings/tokens, then `hf auth login`"
_NO_TOKEN = "Not logged in to the Hub. Use `hf auth login`, or set HF_TOKEN."


class HubError(ValueError):
    """The Hub cannot be reached, or refuses a change. The message names the reason and the remedy."""


@dataclass
class Destination:
    """
    A repository on the Hub.

    Args:
        repo_id (`str`): `"organisation/name"`.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`.
        private (`bool`, *optional*): Whether a new one is private. An existing one keeps its visibility.
        gated (`str`, *optional*): `"auto"` or `"manual"`: readers have to request access.
        revision (`str`, *optional*, defaults to `"main"`): The branch; made from `main` if it does not exist.
        tag (`str`, *optional*): A tag for the commit.
        api (`HfApi`, *optional*): By default one for the Hub and the token that the environment names.
    """

    repo_id: str
    repo_type: str = "model"
    private: bool | None = None
    gated: str | None = None
    revision: str = MAIN
    tag: str | None = None
    api: HfApi = field(default_factory=HfApi)

    @property
    def token(self) -> str | None:
        """The token that is sent, if any."""
        return self.api.token if isinstance(self.api.token, str) else get_token()

    @property
    def repository(self) -> dict[str, str]:
        """The arguments of the client that name the repository."""
        return {"repo_id": self.repo_id, "repo_type": self.repo_type}


@dataclass(frozen=True)
class Pushed:
    """The result of a push: URL and name of the commit, and whether it changed anything."""

    url: str
    commit: str
    changed: bool


def push_folder(
    destination: Destination,
    folder: Path,
    message: str,
    stale: Sequence[str] = (),
    allow: Sequence[str] | None = None,
) -> Pushed:
    """
    Push a folder in one commit. Files that the repository has already are not sent again.

    `stale` are patterns of files that the commit deletes if the folder lacks them, `allow` patterns of the files to
    push, by default all. Raises a [`HubError`] if it fails; then nothing has changed, except that a new, empty
    repository may exist.
    """
    prepare_repository(destination)
    api, where = destination.api, destination.repository
    with explained(destination):
        head = api.repo_info(**where, revision=destination.revision).sha
        commit = api.upload_folder(
            **where,
            folder_path=folder,
            commit_message=message,
            revision=destination.revision,
            allow_patterns=list(allow) if allow else None,
            delete_patterns=list(stale) or None,
            # The deletions are right for this state: the Hub refuses the commit where another one came between.
            parent_commit=head,
        )
    if destination.tag is not None:
        with explained(
            destination, f"The commit {commit.oid} was pushed, but could not be tagged {destination.tag}. "
        ):
            api.create_tag(**where, tag=destination.tag, revision=commit.oid)
    return Pushed(str(commit.commit_url), commit.oid, commit.oid != head)


def check_destination(destination: Destination, needs_token: bool = True) -> None:
    """
    Check the names of a destination, and that there is a token, without a request; [`HubError`] if one is invalid.
    """
    name = destination.repo_id
    expected = "Expected ORGANISATION/NAME of letters, digits, dashes, underscores and dots."
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise HubError(f"{name!r} is no name of a repository: {_first_line(error)} {expected}") from error
    if name.count("/") != 1:
        raise HubError(f"{name!r} is no name of a repository. {expected}")
    for what, value in (("tag", destination.tag), ("branch", destination.revision)):
        if value is not None and not re.fullmatch(r"(?![-./])(?!.*(\.\.|//|@\{))[^\s~^:?*\[\\]+(?<![./])", value):
            raise HubError(f"{value!r} is no name of a {what}. Use letters, digits, dots and dashes, such as v1.0.")
    if needs_token and destination.token is None:
        raise HubError(_NO_TOKEN)


def prepare_repository(destination: Destination) -> None:
    """
    Make the repository and the branch where they do not exist, and set the gate; [`HubError`] if that is impossible,
    the repository is public where it should be private, or the tag exists.
    """
    check_destination(destination)
    api, where = destination.api, destination.repository
    with explained(destination):
        is_new = not api.repo_exists(**where)
        if is_new:
            api.create_repo(**where, private=destination.private)
        info = api.repo_info(**where)
        if destination.private and not info.private and not is_new:
            raise HubError(
                f"{destination.repo_id} exists and is public, and --private is for new ones. Make it private in its "
                "settings on the Hub, or push to another name."
            )
        if destination.gated is not None and info.gated != destination.gated:
            api.update_repo_settings(**where, gated=destination.gated)
        if destination.tag is None and destination.revision == MAIN:
            return
        refs = api.list_repo_refs(**where)
        if destination.tag in (ref.name for ref in refs.tags):
            raise HubError(
                f"{destination.repo_id} has a tag {destination.tag} already, and a tag must not move. Choose another, "
                f"or delete it first: `hf repos tag delete {destination.repo_id} {destination.tag}`."
            )
        if destination.revision not in (ref.name for ref in refs.branches):
            api.create_branch(**where, branch=destination.revision)


@contextmanager
def explained(destination: Destination, prefix: str = "") -> Iterator[None]:
    """Turn errors of `huggingface_hub` into a [`HubError`] that names the remedy; `prefix` begins its message."""
    try:
        yield
    except HubError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        # `from None`: the errors of the client hold the request with its token.
        raise HubError(prefix + without_token(_explanation(error, destination), destination.token)) from None


def without_token(text: str, token: str | None = None) -> str:
    """Replace tokens of the Hub in a text, and one of any form, by stars."""
    return _TOKEN.sub("hf_***", text.replace(token, "hf_***") if token else text)


def _explanation(error: BaseException, destination: Destination) -> str:
    cause: BaseException | None = error
    while cause is not None:
        # The upload of large files wraps the error of the Hub.
        if isinstance(cause, HfHubHTTPError) and getattr(cause, "response", None) is not None:
            return _refusal(cause, destination)
        if isinstance(cause, LocalTokenNotFoundError):
            return _NO_TOKEN
        if isinstance(cause, OfflineModeIsEnabled):
            return "The Hub is switched off here (HF_HUB_OFFLINE). Unset it to push."
        if isinstance(cause, (HTTPError, ConnectionError, TimeoutError)):
            return (
                f"The Hub cannot be reached at {destination.api.endpoint} ({_first_line(cause)}). Nothing was "
                "published. Check the network, the proxy and HF_ENDPOINT, and push again."
            )
        cause = cause.__cause__ or cause.__context__
    return f"Nothing was published: {_first_line(error)}"


def _refusal(error: HfHubHTTPError, destination: Destination) -> str:
    name, code, message = destination.repo_id, error.response.status_code, str(error.server_message or "").strip()
    quoted = f" ({message})" if message else ""
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no branch {destination.revision}, and it could not be made."
    if isinstance(error, RepositoryNotFoundError) and code not in (401, 403):
        code = 404
    explanations = {
        400: f"The Hub refused what was sent{quoted}. Nothing was published.",
        401: f"The Hub does not accept the token{quoted}: it may have expired or been revoked; {_NEW_TOKEN}.",
        403: f"The token may not write to {name}{quoted}. Its owner has to belong to {name.split('/')[0]} with the "
        f"right to write, and the token needs that right too: {_NEW_TOKEN}.",
        404: f"There is no {name} on the Hub, or this token may not see it. Check the name; {_NEW_TOKEN}.",
        409: f"{name} has changed in the meantime{quoted}. Nothing was published; push again.",
        412: f"{name} has changed in the meantime{quoted}. Nothing was published; push again.",
        429: "The Hub has had too many requests from here. Nothing was published; push again in some minutes.",
    }
    otherwise = (
        f"The Hub failed (code {code}){quoted}. Nothing was published; push again later: files that arrived are not "
        "sent again."
    )
    return explanations.get(code, otherwise)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = [
    "Destination",
    "HubError",
    "Pushed",
    "check_destination",
    "explained",
    "prepare_repository",
    "push_folder",
    "without_token",
]
