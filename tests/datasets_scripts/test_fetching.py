import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from count_clip.datasets_scripts.fetching import USER_AGENT, FetchError, fetch_bytes, write_whole


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b"short")
            return
        if self.path == "/turn":
            self.send_response(302)
            self.send_header("Location", "/turn")
            self.end_headers()
            return
        if self.path == "/slow":
            threading.Event().wait(1.0)
        known = {"/slow": b"late", "/a%20b%C3%A4.jpg?x=1": b"found", "/large": bytes(2000), "/who": b""}
        self.send_response(200 if self.path in known else 404)
        self.end_headers()
        self.wfile.write(self.headers["User-Agent"].encode() if self.path == "/who" else known.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_answers_are_fetched_and_the_program_names_itself(address: str) -> None:
    assert fetch_bytes(f"{address}/who") == USER_AGENT.encode()
    # An address as it stands in a list, with a space and a letter that no request may have.
    assert fetch_bytes(f"{address}/a bä.jpg?x=1") == b"found"
    assert fetch_bytes(f"{address}/a%20b%C3%A4.jpg?x=1") == b"found"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "the server answered 404"),
        ("/large", "more than 1,000 bytes"),
        ("/cut", "cut short: 5 of 500 bytes"),
        ("/turn", "the server answered 302"),
        ("/slow", "timed out"),
    ],
)
def test_what_cannot_be_fetched_says_why(address: str, path: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        fetch_bytes(f"{address}{path}", timeout=0.3, max_bytes=1000)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "/etc/passwd", "", "http://[::bad"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(FetchError):
        fetch_bytes(url)


def test_nobody_there(address: str) -> None:
    with pytest.raises(FetchError, match="refused|URLError"):
        fetch_bytes("http://127.0.0.1:9/")


def test_file_is_written_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.jpg", b"one")
    write_whole(tmp_path / "a.jpg", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
    assert (tmp_path / "a.jpg").read_bytes() == b"two"
