"""Fetching the pictures of captions that have only an address: several at once, and again where it may help."""

import http.client
import itertools
import time
import urllib.error
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from .caption_shards import MAX_PICTURE_BYTES
from .caption_stages import Candidate
from .fetching import Fetcher, FetchError, fetch_bytes


# Answers that may be others in a while: slow, too many requests, and the server's own faults.
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class DownloadConfig:
    """
    How pictures are fetched.

    Args:
        timeout (`float`, *optional*, defaults to 20.0): Seconds that a server may be silent.
        retries (`int`, *optional*, defaults to 2): How often an address is tried again that failed in passing.
        backoff (`float`, *optional*, defaults to 1.0): Seconds before the first of these; each further wait is twice
            as long.
        num_threads (`int`, *optional*, defaults to 8): Addresses that are fetched at once.
        max_bytes (`int`, *optional*, defaults to 50 MiB): The largest picture that is taken.
    """

    timeout: float = 20.0
    retries: int = 2
    backoff: float = 1.0
    num_threads: int = 8
    max_bytes: int = MAX_PICTURE_BYTES

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.retries < 0 or self.backoff < 0 or self.num_threads < 1 or self.max_bytes < 1:
            raise ValueError(f"Expected positive numbers (retries and backoff may be 0), but got {self}.")


def fetch_pictures(
    candidates: Iterable[Candidate],
    config: DownloadConfig | None = None,
    fetch: Fetcher | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[tuple[Candidate, bytes | None, str]]:
    """
    Add the pictures to captions, fetching those that have only an address.

    Args:
        candidates (`Iterable[Candidate]`): The captions.
        config (`DownloadConfig`, *optional*): How to fetch.
        fetch (`Fetcher`, *optional*): What fetches an address; over http by default.
        sleep (`Callable[[float], object]`, *optional*): What waits between tries.

    Returns:
        `Iterator[tuple[Candidate, bytes | None, str]]`: Each caption in its order, its picture's file or `None`, and
        why there is none.
    """
    config = config or DownloadConfig()
    fetch = fetch or partial(fetch_bytes, timeout=config.timeout, max_bytes=config.max_bytes)
    waiting: deque[tuple[Candidate, Future[tuple[bytes | None, str]] | None]] = deque()
    source = iter(candidates)
    with ThreadPoolExecutor(config.num_threads, thread_name_prefix="fetch") as pool:
        try:
            # A few more than there are threads are in flight, so that memory holds no more pictures than these.
            for candidate in itertools.chain(source, [None] * (2 * config.num_threads)):
                if candidate is not None:
                    url = candidate.record.url if candidate.record.image is None else None
                    job = None if url is None else pool.submit(_fetch_patiently, url, fetch, config, sleep)
                    waiting.append((candidate, job))
                if waiting and (candidate is None or len(waiting) > 2 * config.num_threads):
                    yield _result(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _result(candidate: Candidate, job: Future[tuple[bytes | None, str]] | None) -> tuple[Candidate, bytes | None, str]:
    if job is None:
        return candidate, candidate.record.image, candidate.record.problem
    return candidate, *job.result()


def _fetch_patiently(
    url: str, fetch: Fetcher, config: DownloadConfig, sleep: Callable[[float], object]
) -> tuple[bytes | None, str]:
    """What is at an address, or why there is nothing, after as many tries as are worth it."""
    tries = 0
    while True:
        tries += 1
        try:
            return fetch(url), ""
        except FetchError as error:
            if tries > config.retries or not _may_pass(error):
                return None, f"{error} (tried {tries} time{'s' if tries > 1 else ''})"
        sleep(config.backoff * 2 ** (tries - 1))


def _may_pass(error: FetchError) -> bool:
    """Whether another try may have another answer."""
    cause = error.__cause__
    if isinstance(cause, urllib.error.HTTPError):
        return cause.code in _PASSING_STATUS
    return isinstance(cause, (OSError, http.client.HTTPException))
