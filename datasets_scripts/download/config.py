"""How addresses are fetched, and what becomes of each."""

import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass, fields


# What a server may say of an image that is then not taken for data sets (the header `X-Robots-Tag`).
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex")


class FetchError(Exception):
    """
    An address that could not be fetched; the message says why.

    Args:
        message (`str`): Why.
        reason (`str`, *optional*, defaults to `"failed"`): The kind of it, in a word: `"status"`, `"timeout"`.
        status (`int`, *optional*): What the server answered, if it did.
        may_pass (`bool`, *optional*, defaults to `False`): Whether another try may have another answer.
        retry_after (`float`, *optional*): In how many seconds the server wants it.
    """

    def __init__(
        self,
        message: str,
        reason: str = "failed",
        status: int | None = None,
        may_pass: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.may_pass = may_pass
        self.retry_after = retry_after


# Takes an address and returns what is there, or raises `FetchError`.
Fetcher = Callable[[str], bytes]


@dataclass(frozen=True)
class FetchConfig:
    """
    How to fetch. The limits are those of one process.

    Args:
        num_connections (`int`, *optional*, defaults to 16): How many addresses are asked for at once.
        connections_per_host (`int`, *optional*, defaults to 4): How many of these may be one server's.
        host_delay (`float`, *optional*, defaults to 0.1): Seconds between two questions to one server.
        connect_timeout (`float`, *optional*, defaults to 10.0): Seconds that a connection may take.
        read_timeout (`float`, *optional*, defaults to 20.0): Seconds that a server may be silent.
        total_timeout (`float`, *optional*, defaults to 120.0): Seconds that a try may take, redirects and all.
        retries (`int`, *optional*, defaults to 2): How often an address is tried again that failed in passing.
        backoff (`float`, *optional*, defaults to 1.0): Seconds before the first of these, about; each further wait is
            twice as long. A server that says when to come back is obeyed.
        max_wait (`float`, *optional*, defaults to 60.0): The longest such wait. A server that wants a longer one is
            asked no more until it is over.
        max_bytes (`int`, *optional*, defaults to 50 MiB): The largest answer that is taken, unpacked.
        max_pixels (`int`, *optional*, defaults to 89,478,485): The largest image that is taken. (This is where
            Pillow begins to warn.)
        max_redirects (`int`, *optional*, defaults to 5): How often an answer may lead to another address.
        allow_private (`bool`, *optional*, defaults to `False`): Whether addresses of this machine and its own network
            may be asked. A list from the web has no business there.
        opt_outs (`tuple[str, ...]`, *optional*): What of `X-Robots-Tag` is obeyed, in lower case.
        user_agent (`str`, *optional*): What the program calls itself; by default its name, its version, what it does
            and how to opt out.
    """

    num_connections: int = 16
    connections_per_host: int = 4
    host_delay: float = 0.1
    connect_timeout: float = 10.0
    read_timeout: float = 20.0
    total_timeout: float = 120.0
    retries: int = 2
    backoff: float = 1.0
    max_wait: float = 60.0
    max_bytes: int = 50 * 2**20
    max_pixels: int = 89_478_485
    max_redirects: int = 5
    allow_private: bool = False
    opt_outs: tuple[str, ...] = OPT_OUTS
    user_agent: str | None = None

    def __post_init__(self) -> None:
        may_be_none = ("host_delay", "retries", "backoff", "max_wait", "max_redirects")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type not in (int, float):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name not in may_be_none):
                least = "0 or more" if field.name in may_be_none else "more than 0"
                raise ValueError(f"Expected {field.name} to be {least}, but got {value}.")

    @property
    def agent(self) -> str:
        """`str`: What the program calls itself."""
        return self.user_agent or default_user_agent()


def default_user_agent() -> str:
    """
    Say who asks, what for, and how a server keeps its images out.

    Returns:
        `str`: The header `User-Agent`.
    """
    try:
        version = importlib.metadata.version("count-clip")
    except importlib.metadata.PackageNotFoundError:  # used from a checkout that is not installed
        version = "unknown"
    return f"count-clip/{version} (images for counting data sets; to opt out, answer with X-Robots-Tag: noai)"


@dataclass(frozen=True)
class ImageFacts:
    """
    What an image's file is.

    Args:
        format (`str`): As Pillow calls it: `"JPEG"`.
        width (`int`): Pixels, as they are stored.
        height (`int`): Likewise.
        ending (`str`): What its name should end with: `".jpg"`.
    """

    format: str
    width: int
    height: int
    ending: str


@dataclass(frozen=True)
class FetchResult:
    """
    What became of an address.

    Args:
        url (`str`): The address.
        content (`bytes`, *optional*): What was there; `None` if it could not be had.
        problem (`str`): Why not, in words; empty if it could.
        reason (`str`): Why not, in a word.
        status (`int`, *optional*): What the server answered last, if it did.
        attempts (`int`): How often it was tried.
        seconds (`float`): How long it took, waits and all.
        final_url (`str`, *optional*): Where it was in the end.
        content_type (`str`, *optional*): What the server says it is.
        sha256 (`str`): Of the content.
        image (`ImageFacts`, *optional*): What the image is, where one was asked for.
    """

    url: str
    content: bytes | None
    problem: str = ""
    reason: str = ""
    status: int | None = None
    attempts: int = 1
    seconds: float = 0.0
    final_url: str | None = None
    content_type: str | None = None
    sha256: str = ""
    image: ImageFacts | None = None
