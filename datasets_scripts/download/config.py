"""Options of the HTTP client, and its error."""

import importlib.metadata
import math
from dataclasses import dataclass, fields


# Values of the header `X-Robots-Tag` that keep an image out of data sets.
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex")


class FetchError(Exception):
    """
    A URL cannot be fetched; the message states why.

    `may_pass` states whether another attempt may succeed, after the seconds `retry_after` if the server names them.
    """

    def __init__(self, message: str, may_pass: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.retry_after = retry_after


@dataclass(frozen=True)
class FetchConfig:
    """
    Options of the HTTP client. The limits are those of one process.

    Args:
        num_connections (`int`, *optional*, defaults to 16): Requests at once.
        connections_per_host (`int`, *optional*, defaults to 4): Requests at once to one server.
        host_delay (`float`, *optional*, defaults to 0.1): Seconds between two requests to one server.
        connect_timeout (`float`, *optional*, defaults to 10.0): Seconds for a connection.
        read_timeout (`float`, *optional*, defaults to 20.0): Seconds without data from the server.
        total_timeout (`float`, *optional*, defaults to 120.0): Seconds for an attempt, with its redirects.
        retries (`int`, *optional*, defaults to 2): Further attempts after a failure that may pass.
        backoff (`float`, *optional*, defaults to 1.0): Seconds before the first of these, about; each further wait is
            twice as long. `Retry-After` is obeyed.
        max_wait (`float`, *optional*, defaults to 60.0): The longest such wait. A server that asks for a longer one
            gets no more requests until it is over.
        max_bytes (`int`, *optional*, defaults to 50 MiB): The largest response, unpacked.
        max_pixels (`int`, *optional*, defaults to 89,478,485): The largest image. (Pillow warns from there.)
        max_redirects (`int`, *optional*, defaults to 5): The most redirects of a request.
        allow_private (`bool`, *optional*, defaults to `False`): Whether URLs may lead to this machine or its own
            network, which those of a list from the web should not.
        opt_outs (`tuple[str, ...]`, *optional*): Values of `X-Robots-Tag` that are obeyed, in lower case.
        user_agent (`str`, *optional*): By default the name of the program, its version, its purpose, and how to opt
            out.
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
        may_be_zero = ("host_delay", "retries", "backoff", "max_wait", "max_redirects")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type not in (int, float):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name not in may_be_zero):
                least = "0 or more" if field.name in may_be_zero else "more than 0"
                raise ValueError(f"Expected {field.name} to be {least}, but got {value}.")

    @property
    def agent(self) -> str:
        """`str`: The header `User-Agent`."""
        if self.user_agent:
            return self.user_agent
        try:
            version = importlib.metadata.version("count-clip")
        except importlib.metadata.PackageNotFoundError:  # used from a checkout that is not installed
            version = "unknown"
        return f"count-clip/{version} (images for counting data sets; to opt out, answer with X-Robots-Tag: noai)"
