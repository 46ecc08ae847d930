"""A web server on this machine with the responses of a test, good and bad."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class WebStandIn:
    """
    A server; a context manager.

    `requests` counts the requests of each path, `times` holds their times, `headers` their headers, and `most_at_once`
    the most requests at one time.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Callable[[Any], None]] = {}
        self.requests: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """`str`: The URL of the server, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> WebStandIn:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, path: str, content: bytes = b"", status: int | list[int] = 200, **headers: str | None) -> str:
        """
        Set the response of a path.

        Args:
            path (`str`): The path, with a slash at its beginning.
            content (`bytes`): The content.
            status (`int` or `list[int]`): The status; of several, one after the other, and then the last.
            headers (`str`): Headers, with `_` for `-`. `Content_Length` is correct by default; `None` leaves it out.

        Returns:
            `str`: The URL.
        """

        def answer(handler: BaseHTTPRequestHandler) -> None:
            place = min(self.requests[path], len(status)) - 1 if isinstance(status, list) else 0
            handler.send_response(status[place] if isinstance(status, list) else status)
            for name, value in {"Content_Length": str(len(content)), **headers}.items():
                if value is not None:
                    handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(content)

        return self.script(path, answer)

    def script(self, path: str, answer: Callable[[Any], None]) -> str:
        """Set a function that responds to a path; returns the URL."""
        self.pages[path] = answer
        return f"{self.url}{path}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Respond to a request."""
        path = handler.path if handler.path in self.pages else urlsplit(handler.path).path
        with self._lock:
            self.requests[path] += 1
            self.times.setdefault(path, []).append(time.monotonic())
            self.headers.append(dict(handler.headers))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if path in self.pages:
                self.pages[path](handler)
            else:
                handler.send_error(404)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has closed the connection
        finally:
            with self._lock:
                self._at_once -= 1


def _handler_of(web: WebStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A connection serves one request, so that wrong lengths are noticed.
        def do_GET(self) -> None:
            web.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
