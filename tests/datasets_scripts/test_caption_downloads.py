import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from count_clip.datasets_scripts.caption_downloads import DownloadConfig, fetch_pictures
from count_clip.datasets_scripts.caption_shards import CaptionRecord
from count_clip.datasets_scripts.caption_stages import Candidate
from count_clip.datasets_scripts.fetching import FetchError


def _candidate(place: int, url: str | None = None, image: bytes | None = None, problem: str = "") -> Candidate:
    return Candidate("list", CaptionRecord(place, str(place), "two dogs", image, url, problem), 2, "dogs")


class _Server(ThreadingHTTPServer):
    asked: Counter[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        if self.path == "/slow":
            time.sleep(1.0)
        status = {"/missing": 404, "/broken": 500}.get(self.path, 200)
        if self.path == "/tired" and self.server.asked[self.path] < 3:
            status = 503
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"x" * 200 if self.path == "/large" else self.path.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as serving:
        serving.asked = Counter()
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_pictures_are_fetched_and_what_fails_is_explained(server: _Server) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    paths = ("/a", "/missing", "/tired", "/broken", "/slow", "/large", "/b")
    candidates = [_candidate(place, address + path) for place, path in enumerate(paths)]
    candidates += [
        _candidate(7, image=b"here"),
        _candidate(8, address + "/unneeded", image=b"here, too"),
        _candidate(9, problem="no picture in the archive"),
        _candidate(10, "ftp://example.org/a.jpg"),
    ]
    waits: list[float] = []
    config = DownloadConfig(timeout=0.3, retries=2, backoff=0.5, num_threads=3, max_bytes=100)
    results = list(fetch_pictures(candidates, config, sleep=waits.append))
    assert [candidate for candidate, _, _ in results] == candidates, "the order stays"
    found = dict(enumerate((content, problem) for _, content, problem in results))
    assert found[0] == (b"/a", "")
    assert found[1] == (None, "the server answered 404 (tried 1 time)")
    assert found[2] == (b"/tired", "")
    assert found[3] == (None, "the server answered 500 (tried 3 times)")
    assert found[4][0] is None
    assert "timed out (tried 3 times)" in found[4][1]
    assert found[5] == (None, "more than 100 bytes (tried 1 time)")
    assert found[6] == (b"/b", "")
    assert found[7] == (b"here", "")
    assert found[8] == (b"here, too", "")
    assert found[9] == (None, "no picture in the archive")
    assert found[10][1].startswith("not an http address")
    assert server.asked["/tired"] == server.asked["/broken"] == 3
    assert server.asked["/missing"] == server.asked["/large"] == 1
    assert server.asked["/unneeded"] == 0
    # Two waits for each of the three that fail in passing, the second twice as long.
    assert Counter(waits) == {0.5: 3, 1.0: 3}


def test_no_more_are_in_flight_than_is_said() -> None:
    running = most = started = 0
    lock = threading.Lock()

    def fetch(url: str) -> bytes:
        nonlocal running, most, started
        with lock:
            running, started = running + 1, started + 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return url.encode()

    results = fetch_pictures(
        (_candidate(place, f"http://a/{place}") for place in range(60)), DownloadConfig(num_threads=4), fetch
    )
    assert next(results)[1] == b"http://a/0"
    assert started <= 10, "the list is not read ahead further than is in flight"
    assert [content for _, content, _ in results] == [f"http://a/{place}".encode() for place in range(1, 60)]
    assert 1 < most <= 4


def test_permanent_failures_are_not_tried_again() -> None:
    tried: Counter[str] = Counter()

    def fetch(url: str) -> bytes:
        tried[url] += 1
        code = int(url.rpartition("/")[2])
        raise FetchError(f"the server answered {code}") from urllib.error.HTTPError(url, code, "", None, None)

    codes = (400, 403, 404, 410, 408, 429, 503)
    list(fetch_pictures([_candidate(code, f"http://a/{code}") for code in codes], fetch=fetch, sleep=lambda _: None))
    assert [tried[f"http://a/{code}"] for code in codes] == [1, 1, 1, 1, 3, 3, 3]


def test_other_errors_are_not_swallowed() -> None:
    def fetch(url: str) -> bytes:
        raise KeyError(url)

    with pytest.raises(KeyError, match="http://a"):
        list(fetch_pictures([_candidate(0, "http://a")], fetch=fetch))


@pytest.mark.parametrize("options", [{"timeout": 0}, {"retries": -1}, {"num_threads": 0}, {"max_bytes": 0}])
def test_impossible_options_are_rejected(options: dict) -> None:
    with pytest.raises(ValueError, match="Expected positive numbers"):
        DownloadConfig(**options)
