"""
Fetches what is at addresses on the web: several at once, again where that may help, and never more than is polite.

    with Fetching(FetchConfig(num_connections=32)) as fetching:
        for name, result in fetching.as_they_come({"a": "https://example.org/a.jpg"}.items()):
            ...  # result.content, or result.problem

Everything here that fetches goes through this: CountBench's images, those of captions, and lists of addresses
([`fetch_list`]).
"""

import asyncio
import hashlib
import random
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from .checks import check_image
from .config import FetchConfig, Fetcher, FetchError, FetchResult, ImageFacts
from .request import Answer, Asker, HostLimits, parse_address


T = TypeVar("T")

# Addresses that wait behind those that are asked for, for each of these: the next ones may be those of other servers.
_WAITING = 4


class Fetching:
    """
    Fetches addresses while it is open; a context manager.

    Args:
        config ([`FetchConfig`], *optional*): How.
        fetcher (`Callable[[str], bytes]`, *optional*): What asks for an address in the place of http.
    """

    def __init__(self, config: FetchConfig | None = None, fetcher: Fetcher | None = None) -> None:
        self.config = config or FetchConfig()
        self._fetcher = fetcher
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(self.config.num_connections, thread_name_prefix="fetch")
        self._loop.set_default_executor(self._pool)
        self._limits = HostLimits(self.config)
        self._asker: Asker | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetching", daemon=True)

    def __enter__(self) -> "Fetching":
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread.is_alive():
            self._run(self._stop()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loop.close()

    def fetch(self, url: str, image: bool = True) -> Future[FetchResult]:
        """
        Begin to fetch an address.

        Args:
            url (`str`): The address.
            image (`bool`, *optional*, defaults to `True`): Whether only a whole image is of use.

        Returns:
            `Future[FetchResult]`: What becomes of it.
        """
        if not self._thread.is_alive():  # many have nothing to fetch
            self._thread.start()
        return self._run(self._fetch_patiently(url, image))

    def in_order(self, items: Iterable[tuple[T, str | None]]) -> Iterator[tuple[T, FetchResult | None]]:
        """
        Fetch images, and give them in the order that they are asked for in.

        Args:
            items (`Iterable[tuple[T, str | None]]`): Something and its address; `None` where nothing is to be fetched.

        Returns:
            `Iterator[tuple[T, FetchResult | None]]`: The same with what was there. A few are fetched ahead, so that
            memory holds no more images than these.
        """
        ahead: deque[tuple[T, Future[FetchResult] | None]] = deque()
        for item, url in items:
            ahead.append((item, None if url is None else self.fetch(url)))
            if len(ahead) > 2 * self.config.num_connections:
                first, future = ahead.popleft()
                yield first, None if future is None else future.result()
        for first, future in ahead:
            yield first, None if future is None else future.result()

    def as_they_come(self, items: Iterable[tuple[T, str]]) -> Iterator[tuple[T, FetchResult]]:
        """
        Fetch images, and give them as they come: no slow server keeps the others waiting.

        Args:
            items (`Iterable[tuple[T, str]]`): Something and its address.

        Returns:
            `Iterator[tuple[T, FetchResult]]`: The same with what was there.
        """
        come: SimpleQueue[tuple[T, Future[FetchResult]]] = SimpleQueue()
        num_running = 0
        for item, url in items:
            self.fetch(url).add_done_callback(partial(_hand_over, come, item))
            num_running += 1
            if num_running >= _WAITING * self.config.num_connections:
                first, done = come.get()
                num_running -= 1
                yield first, done.result()
        for _ in range(num_running):
            first, done = come.get()
            yield first, done.result()

    async def _fetch_patiently(self, url: str, image: bool) -> FetchResult:
        """What is at an address, or why there is nothing, after as many tries as are worth it."""
        started = time.monotonic()
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = await self._ask(url, image)
                facts = None
                if image:
                    facts = await asyncio.to_thread(_checked, answer, self.config.max_pixels)
            except FetchError as error:
                wait = wait_before(attempts, error, self.config) if attempts <= self.config.retries else None
                if wait is None:
                    tried = f" (tried {attempts} times)" if attempts > 1 else ""
                    seconds = time.monotonic() - started
                    return FetchResult(url, None, f"{error}{tried}", error.reason, error.status, attempts, seconds)
                await asyncio.sleep(wait)
                continue
            return FetchResult(
                url,
                answer.content,
                status=answer.status,
                attempts=attempts,
                seconds=time.monotonic() - started,
                final_url=answer.url,
                content_type=answer.content_type,
                sha256=hashlib.sha256(answer.content).hexdigest(),
                image=facts,
            )

    async def _ask(self, url: str, image: bool) -> Answer:
        if self._fetcher is None:
            self._asker = self._asker or Asker(self.config, self._limits)
            return await self._asker.ask(url, image)
        async with self._limits.turn(parse_address(url).host):
            content = await asyncio.to_thread(self._fetcher, url)
        if len(content) > self.config.max_bytes:
            raise FetchError(f"more than {self.config.max_bytes:,} bytes", "too_large")
        return Answer(content, url)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _stop(self) -> None:
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._asker is not None:
            await self._asker.close()


def _hand_over(queue: SimpleQueue[tuple[T, Future[FetchResult]]], item: T, future: Future[FetchResult]) -> None:
    queue.put((item, future))


def _checked(answer: Answer, max_pixels: int) -> ImageFacts:
    try:
        return check_image(answer.content, max_pixels)
    except FetchError as error:
        error.status = answer.status
        raise


def wait_before(attempt: int, error: FetchError, config: FetchConfig) -> float | None:
    """
    Say how long to wait before an address is tried again.

    Args:
        attempt (`int`): How often it was tried, from one.
        error (`FetchError`): What came of the last try.
        config ([`FetchConfig`]): How patient to be.

    Returns:
        `float` or `None`: Seconds: twice as long each time, and by chance up to a half more or less, so that not all
        come back at once; at least what the server asked for. Nothing if it is not worth another try.
    """
    if not error.may_pass or (error.retry_after or 0.0) > config.max_wait:
        return None
    wait = min(config.backoff * 2.0 ** (attempt - 1), config.max_wait) * random.uniform(0.5, 1.5)
    return min(max(wait, error.retry_after or 0.0), config.max_wait)


def fetch_bytes(url: str, config: FetchConfig | None = None) -> bytes:
    """
    Fetch what is at an address, whatever it is.

    Args:
        url (`str`): An address with `http` or `https`.
        config ([`FetchConfig`], *optional*): How.

    Returns:
        `bytes`: The answer.

    Raises:
        FetchError: If there is none, it is cut short or too large, or leads where it must not.
    """
    with Fetching(config) as fetching:
        result = fetching.fetch(url, image=False).result()
    if result.content is None:
        raise FetchError(result.problem, result.reason, result.status)
    return result.content


__all__ = ["FetchConfig", "FetchError", "FetchResult", "Fetcher", "Fetching", "fetch_bytes"]
