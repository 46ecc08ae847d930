"""
Puts a folder on the Hub in one commit: all of it is there afterwards, or nothing is.

What can go wrong is said in words that name the remedy, and never with the token in them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
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


class HubError(ValueError):
    """The Hub cannot be reached, or does not let itself be written to. The message says why and what to do."""


@dataclass
class Destination:
    """
    A repository on the Hub, and how it shall be.

    Args:
        repo_id (`str`): `"organisation/name"`.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`.
        private (`bool`, *optional*): Whether a new one is private. One that is there keeps what it is.
        gated (`str`, *optional*): `"auto"` or `"manual"`: readers have to ask; a machine or a person lets them in.
        revision (`str`, *optional*, defaults to `"main"`): The branch; made from `main` if it is not there.
        tag (`str`, *optional*): What to call the commit.
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
        given = self.api.token
        return given if isinstance(given, str) else get_token()


@dataclass(frozen=True)
class Pushed:
    """What a push did: the address and the name of the commit, and whether it brought anything new."""

    url: str
    commit: str
    changed: bool
    was_new: bool


def push_files(destination: Destination, files: Mapping[str, Path], message: str, stale: Sequence[str] = ()) -> Pushed:
    """
    Put files into a repository, in one commit.

    Files that are there already as they are, are not sent again.

    Args:
        destination ([`Destination`]): Where to.
        files (`Mapping[str, Path]`): Paths in the repository, and where the files lie.
        message (`str`): What the commit says.
        stale (`Sequence[str]`, *optional*): Patterns of paths, whose stars stand for no slash: files in the repository
            that fit one of them and are not among `files` go.

    Returns:
        [`Pushed`].

    Raises:
        HubError: If it cannot be done; then nothing has changed but, perhaps, that there is a new, empty repository.
    """
    api, where = destination.api, _where(destination)
    was_new = prepare_repository(destination)
    with explained(destination):
        head = api.repo_info(**where, revision=destination.revision).sha
        there = set(api.list_repo_files(**where, revision=destination.revision))
        gone = sorted(path for path in there - set(files) if any(_fits(path, pattern) for pattern in stale))
        operations = [
            *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(file)) for path, file in files.items()),
            *(CommitOperationDelete(path_in_repo=path) for path in gone),
        ]
        commit = api.create_commit(
            **where,
            operations=operations,
            commit_message=message,
            revision=destination.revision,
            # What goes was chosen by this state: the Hub refuses the commit if there is another one by now.
            parent_commit=head,
        )
    add_tag(destination, commit.oid)
    return Pushed(str(commit.commit_url), commit.oid, commit.oid != head, was_new)


def check_destination(destination: Destination) -> None:
    """
    Refuse what cannot be right before anything is asked of the Hub.

    Args:
        destination ([`Destination`]): Where to.

    Raises:
        HubError: If a name is none, or there is no token.
    """
    check_names(destination)
    if destination.token is None:
        raise HubError("Nobody is logged in to the Hub. Say `hf auth login`, or set HF_TOKEN.")


def check_names(destination: Destination) -> None:
    """
    Refuse names of a repository, a branch or a tag that cannot be right.

    Args:
        destination ([`Destination`]): Where to.

    Raises:
        HubError: If one is none.
    """
    name = destination.repo_id
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise HubError(f"{name!r} is no name of a repository: {_first_line(error)} {_NAME}") from error
    if name.count("/") != 1:
        raise HubError(f"{name!r} is no name of a repository. {_NAME}")
    for what, value in (("tag", destination.tag), ("branch", destination.revision)):
        if value is not None and not re.fullmatch(r"(?![-./])(?!.*(\.\.|//|@\{))[^\s~^:?*\[\\]+(?<![./])", value):
            raise HubError(f"{value!r} is no name of a {what}. Use letters, digits, dots and dashes, such as v1.0.")


_NAME = "Expected ORGANISATION/NAME of letters, digits, dashes, underscores and dots."


def prepare_repository(destination: Destination) -> bool:
    """
    Make the repository if it is not there, and see to its visibility, its gate and its branch.

    Args:
        destination ([`Destination`]): Where to.

    Returns:
        `bool`: Whether it is new.

    Raises:
        HubError: If it cannot be made, is not what it shall be, or has the tag already.
    """
    check_destination(destination)
    api, where = destination.api, _where(destination)
    with explained(destination):
        was_new = not api.repo_exists(**where)
        if was_new:
            api.create_repo(**where, private=destination.private)
        info = api.repo_info(**where)
        if destination.private and not info.private and not was_new:
            raise HubError(
                f"{destination.repo_id} is there already and public, and --private is for new ones. Make it private "
                "in its settings on the Hub, or push to another name."
            )
        if destination.gated is not None and info.gated != destination.gated:
            api.update_repo_settings(**where, gated=destination.gated)
        if destination.tag is None and destination.revision == MAIN:
            return was_new
        refs = api.list_repo_refs(**where)
        if destination.tag in (ref.name for ref in refs.tags):
            raise HubError(
                f"{destination.repo_id} has a tag {destination.tag} already, and what it names must not change. "
                f"Choose another, or delete it first: `hf repos tag delete {destination.repo_id} {destination.tag}`."
            )
        if destination.revision not in (ref.name for ref in refs.branches):
            api.create_branch(**where, branch=destination.revision)
    return was_new


def add_tag(destination: Destination, commit: str) -> None:
    """
    Tag a commit, if a tag was asked for.

    Args:
        destination ([`Destination`]): Says the repository and the tag.
        commit (`str`): What the tag shall name.

    Raises:
        HubError: If it cannot be tagged. The commit stays.
    """
    if destination.tag is not None:
        with explained(destination, f"The commit {commit} is there, but could not be tagged {destination.tag}. "):
            destination.api.create_tag(**_where(destination), tag=destination.tag, revision=commit)


@contextmanager
def explained(destination: Destination, prefix: str = "") -> Iterator[None]:
    """
    Say what the Hub or the network refuses in words that name the remedy.

    Args:
        destination ([`Destination`]): What is asked of the Hub.
        prefix (`str`, *optional*): What is said before.

    Raises:
        HubError: In the place of the errors of `huggingface_hub`.
    """
    try:
        yield
    except HubError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        # `from None`: what the client keeps of a request is nobody's business but its user's.
        raise HubError(prefix + without_token(_explanation(error, destination), destination.token)) from None


def without_token(text: str, token: str | None = None) -> str:
    """
    Hide tokens of the Hub.

    Args:
        text (`str`): What may have some in it.
        token (`str`, *optional*): One to look for, whatever it looks like.

    Returns:
        `str`: The text with stars in their place.
    """
    return _TOKEN.sub("hf_***", text.replace(token, "hf_***") if token else text)


def _fits(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern whose stars stand for no slash."""
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def _where(destination: Destination) -> dict[str, str]:
    return {"repo_id": destination.repo_id, "repo_type": destination.repo_type}


def _explanation(error: BaseException, destination: Destination) -> str:
    cause: BaseException | None = error
    while cause is not None:
        # The upload of large files hides what went wrong behind an error of its own.
        if isinstance(cause, HfHubHTTPError) and getattr(cause, "response", None) is not None:
            return _refusal(cause, destination)
        if isinstance(cause, LocalTokenNotFoundError):
            return "Nobody is logged in to the Hub. Say `hf auth login`, or set HF_TOKEN."
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
    name, namespace = destination.repo_id, destination.repo_id.split("/")[0]
    code, said = error.response.status_code, str(error.server_message or "").strip()
    quoted = f" ({said})" if said else ""
    if code == 401:
        return f"The Hub does not accept the token{quoted}: it may have expired or been revoked; {_NEW_TOKEN}."
    if code == 403:
        return (
            f"The token may not write to {name}{quoted}. Its owner has to belong to {namespace} with the right to "
            f"write, and the token needs that right too: {_NEW_TOKEN}."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no branch {destination.revision}, and it could not be made."
    if isinstance(error, RepositoryNotFoundError) or code == 404:
        return f"There is no {name} on the Hub, or this token may not see it. Check the name; {_NEW_TOKEN}."
    if code == 400:
        return f"The Hub refused what was sent{quoted}. Nothing was published."
    if code == 409 or code == 412:
        return f"{name} has changed in the meantime{quoted}. Nothing was published; push again."
    if code == 429:
        return "The Hub has had too many requests from here. Nothing was published; push again in some minutes."
    return (
        f"The Hub failed (code {code}){quoted}. Nothing was published; push again later: files that arrived are not "
        "sent again."
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


__all__ = [
    "Destination",
    "HubError",
    "Pushed",
    "add_tag",
    "check_destination",
    "explained",
    "prepare_repository",
    "push_files",
    "without_token",
]
