"""
The HTTP client: several requests at once, further attempts where they may help, and never more than is polite.

    with HttpClient(FetchConfig(num_connections=32)) as client:
        result = client.fetch("https://example.org/a.jpg").result()
        ...  # result.content, or result.problem
"""

import asyncio
import random
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from .checks import check_image
from .config import FetchConfig, FetchError
from .request import RequestSender


T = TypeVar("T")


@dataclass(frozen=True)
class FetchResult:
    """
    The content of a URL and, of an image, the suffix of its format (`".jpg"`); or the problem if it could not be
    fetched.
    """

    content: bytes | None
    problem: str = ""
    suffix: str = ""


class HttpClient:
    """
    Fetches URLs while it is open; a context manager.

    Args:
        config ([`FetchConfig`], *optional*): Its options.
    """

    def __init__(self, config: FetchConfig | None = None) -> None:
        self.config = config or FetchConfig()
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(self.config.num_connections, thread_name_prefix="fetch")
        self._loop.set_default_executor(self._pool)  # for names of servers, and images
        self._sender: RequestSender | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetching", daemon=True)

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread.is_alive():
            self._run(self._stop()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loop.close()

    def fetch(self, url: str, image: bool = True) -> Future[FetchResult]:
        """Begin to fetch a URL; `image` states whether only a complete image is of use."""
        if not self._thread.is_alive():  # started with the first URL, for there may be none
            self._thread.start()
        return self._run(self._fetch(url, image))

    def in_order(self, items: Iterable[tuple[T, str | None]]) -> Iterator[tuple[T, FetchResult | None]]:
        """
        Fetch the images of items, each with its URL (`None` where there is nothing to fetch), and keep their order.

        A few are fetched ahead, and no more are in memory.
        """
        ahead: deque[tuple[T, Future[FetchResult] | None]] = deque()
        for item, url in items:
            ahead.append((item, None if url is None else self.fetch(url)))
            if len(ahead) > 2 * self.config.num_connections:
                first, future = ahead.popleft()
                yield first, None if future is None else future.result()
        for first, future in ahead:
            yield first, None if future is None else future.result()

    async def _fetch(self, url: str, image: bool) -> FetchResult:
        """The outcome after as many attempts as are worthwhile."""
        self._sender = self._sender or RequestSender(self.config)
        attempts = 0
        while True:
            attempts += 1
            try:
                content = await self._sender.send(url, image)
                suffix = await asyncio.to_thread(check_image, content, self.config.max_pixels) if image else ""
                return FetchResult(content, suffix=suffix)
            except FetchError as error:
                wait = wait_before(attempts, error, self.config) if attempts <= self.config.retries else None
                if wait is None:
                    return FetchResult(None, f"{error} (tried {attempts} times)" if attempts > 1 else str(error))
            await asyncio.sleep(wait)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _stop(self) -> None:
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()


def wait_before(attempt: int, error: FetchError, config: FetchConfig) -> float | None:
    """
    Compute the seconds to wait after the failed attempt number `attempt`; `None` if another is not worthwhile.

    The wait is twice as long each time, and by chance up to a half more or less, so that not all requests return at
    once; it is at least the server's `Retry-After`.
    """
    if not error.may_pass or (error.retry_after or 0.0) > config.max_wait:
        return None
    wait = min(config.backoff * 2.0 ** (attempt - 1), config.max_wait) * random.uniform(0.5, 1.5)
    return min(max(wait, error.retry_after or 0.0), config.max_wait)


def fetch_bytes(url: str, config: FetchConfig | None = None) -> bytes:
    """
    Fetch any content of a URL with `http` or `https`.

    Raises:
        FetchError: If there is none, it is cut short or too large, or the URL leads where it must not.
    """
    with HttpClient(config) as client:
        result = client.fetch(url, image=False).result()
    if result.content is None:
        raise FetchError(result.problem)
    return result.content


__all__ = ["FetchConfig", "FetchError", "FetchResult", "HttpClient", "fetch_bytes"]
