import asyncio
import concurrent.futures
import datetime
import gzip
import io
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from count_clip.datasets_scripts.download.checks import check_image, is_public, opts_out, seconds_to_wait
from count_clip.datasets_scripts.download.client import (
    FetchConfig,
    FetchError,
    FetchResult,
    HttpClient,
    fetch_bytes,
    wait_before,
)
from count_clip.datasets_scripts.download.config import OPT_OUTS
from count_clip.datasets_scripts.download.request import parse_url


QUICK: dict[str, Any] = {
    "allow_private": True,
    "host_delay": 0.0,
    "backoff": 0.01,
    "connect_timeout": 5.0,
    "read_timeout": 5.0,
    "total_timeout": 10.0,
    "retries": 1,
}


def png(side: int = 8, value: int = 9) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (value, 1, 2)).save(file, "PNG")
    return file.getvalue()


def noise(format_: str = "JPEG", side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side)).save(file, format_)
    return file.getvalue()


def fetch(url: str, **options: Any) -> FetchResult:
    with HttpClient(FetchConfig(**{**QUICK, **options})) as client:
        return client.fetch(url).result()


def refused(url: str, message: str, attempts: int = 1, **options: Any) -> None:
    result = fetch(url, **options)
    assert result.content is None
    assert message in result.problem, result.problem
    assert result.problem.endswith(f" (tried {attempts} times)") == (attempts > 1), result.problem


# What is right


def test_image_comes_with_the_suffix_of_its_format(web: Any) -> None:
    content = noise()
    url = web.put("/a b%C3%A4.jpg", content, Content_Type="image/png")
    web.pages["/a%20b%C3%A4.jpg"] = web.pages.pop("/a b%C3%A4.jpg")
    # A URL of a list, with a space and a letter that no request may have.
    result = fetch(url.replace("%C3%A4", "ä") + " ")
    assert result.content == content
    assert (result.problem, result.suffix) == ("", ".jpg"), "the suffix of the content, not of the declared type"


def test_program_names_itself_and_how_to_opt_out(web: Any) -> None:
    fetch(web.put("/a.png", png()))
    fetch(web.put("/b.png", png()), user_agent="somebody (mail@example.org)")
    agents = [headers["User-Agent"] for headers in web.headers]
    assert agents[0].startswith("count-clip/")
    assert "to opt out, answer with X-Robots-Tag: noai" in agents[0]
    assert agents[1] == "somebody (mail@example.org)"
    assert "Cookie" not in web.headers[1]


def test_anything_is_fetched_where_no_image_is_wanted(web: Any) -> None:
    url = web.put("/list.json", b"[1, 2]", Content_Type="application/json")
    assert fetch_bytes(url, FetchConfig(**QUICK)) == b"[1, 2]"
    with pytest.raises(FetchError, match="the server answered 404"):
        fetch_bytes(f"{web.url}/none", FetchConfig(**QUICK))


@pytest.mark.parametrize(
    ("format_", "suffix"),
    [("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("WEBP", ".webp"), ("BMP", ".bmp"), ("TIFF", ".tif")],
)
def test_usual_images_are_taken(format_: str, suffix: str) -> None:
    assert check_image(noise(format_), 10_000) == suffix


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        # Without its header, as some servers send it.
        ("deflate", lambda content: zlib.compress(content)[2:-4]),
    ],
)
def test_compressed_responses_are_unpacked_though_not_requested(web: Any, encoding: str, pack: Callable) -> None:
    assert fetch(web.put("/a.png", pack(png()), Content_Encoding=encoding)).content == png()
    assert web.headers[0]["Accept-Encoding"] == "identity"


# What goes wrong on the way


def test_slow_servers_time_out(web: Any) -> None:
    slow = web.script("/slow", lambda handler: time.sleep(1.0))

    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(12):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)

    def drip_headers(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        drip(handler)

    refused(slow, "timed out: ReadTimeout", read_timeout=0.2, retries=0)
    # Never silent, and yet there is no end: of the content, or of the headers before it.
    for path, script in (("/drip", drip), ("/drip-headers", drip_headers)):
        refused(web.script(path, script), "more than 0.4 s in all", total_timeout=0.4, retries=0)


def test_missing_servers_are_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and no server listens
        refused(f"http://127.0.0.1:{taken.getsockname()[1]}/", "(tried 2 times)", attempts=2)
    refused("http://no-such-server.invalid/a.jpg", "there is no server no-such-server.invalid", retries=0)


def test_a_response_that_is_cut_short_is_an_error(web: Any) -> None:
    content = noise()
    promised = web.put("/promised", content[:500], Content_Length=str(len(content)))
    refused(promised, "cut short", attempts=2)
    assert web.requests["/promised"] == 2

    def cut_chunks(handler: Any) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"1f4\r\n" + content[:500] + b"\r\n")

    refused(web.script("/chunks", cut_chunks), "cut short", attempts=2)
    # Without a length only the image itself shows it.
    for ending, format_ in ((".jpg", "JPEG"), (".png", "PNG"), (".gif", "GIF"), (".webp", "WEBP")):
        whole = noise(format_)
        unsaid = web.put(f"/unsaid{ending}", whole[: len(whole) // 2], Content_Length=None)
        refused(unsaid, "an image that cannot be decoded")
    packed = gzip.compress(content)
    refused(
        web.put("/packed", packed[:-20], Content_Encoding="gzip", Content_Length=None),
        "the compressed response has no end",
        attempts=2,
    )


def test_connection_that_is_cut_is_tried_again(web: Any) -> None:
    def reset(handler: Any) -> None:
        if web.requests["/reset"] < 2:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(png())

    result = fetch(web.script("/reset", reset))
    assert (result.content, web.requests["/reset"]) == (png(), 2)


def test_a_declared_length_that_is_too_small_gives_no_complete_image(web: Any) -> None:
    refused(web.put("/a.jpg", noise(), Content_Length="700"), "an image that cannot be decoded")
    with pytest.raises(FetchError, match="ProtocolError|cut short"):
        fetch_bytes(web.put("/b", b"abc", Content_Length="-5"), FetchConfig(**QUICK))


def test_too_large_responses_are_not_read(web: Any) -> None:
    refused(web.put("/declared", b"x", Content_Length="5000"), "the server declares 5,000", max_bytes=1000)
    sent = []

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(2000):
            handler.wfile.write(b"x" * 65536)
            sent.append(65536)

    refused(web.script("/endless", endless), "more than 100,000 bytes", max_bytes=100_000)
    time.sleep(0.1)
    assert sum(sent) < 20 * 2**20, "the rest of the 131 MB is not read"


def test_gzip_bomb_is_not_unpacked(web: Any) -> None:
    bomb = gzip.compress(bytes(50 * 2**20))
    assert len(bomb) < 60_000
    url = web.put("/bomb", bomb, Content_Encoding="gzip")
    refused(url, "more than 100,000 bytes when unpacked", max_bytes=100_000)
    refused(web.put("/brotli", b"x", Content_Encoding="br"), "compressed as br, which was not requested")
    refused(web.put("/no-gzip", b"xyz", Content_Encoding="gzip"), "cannot be unpacked")


def test_image_bomb_is_not_decoded(web: Any) -> None:
    file = io.BytesIO()
    Image.new("1", (5000, 4000)).save(file, "PNG")
    assert len(file.getvalue()) < 5000
    url = web.put("/bomb.png", file.getvalue())
    refused(url, "an image of 5,000 x 4,000 pixels, more than 1,000,000", max_pixels=10**6)
    assert fetch(url, max_pixels=2 * 10**7).content is not None
    # A header alone can claim more than Pillow will open.
    claimed = bytearray(png())
    claimed[16:24] = struct.pack(">II", 60_000, 60_000)
    claimed[29:33] = struct.pack(">I", zlib.crc32(claimed[12:29]))
    refused(web.put("/claimed.png", bytes(claimed)), "too many pixels")


@pytest.mark.parametrize(
    ("content", "content_type", "message"),
    [
        (b"<html>gone</html>", "text/html; charset=utf-8", "the server sent text/html"),
        (b"<!-- x -->\n<!DOCTYPE html><p>gone", "image/jpeg", "the server sent a web page"),
        (b'<?xml version="1.0"?>\n<html xmlns="x">', None, "the server sent a web page"),
        (b'{"error": 1}', "application/json", "the server sent application/json"),
        (b'{"error": 1}', None, "no image of a known format (probably JSON)"),
        (b"<svg xmlns='x'/>", "image/svg+xml", "an SVG drawing"),
        (b"%PDF-1.7", "image/png", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n", "image/eps", "no image of a known format"),
        (b"", "image/png", "the response is empty"),
    ],
)
def test_other_content_is_refused(web: Any, content: bytes, content_type: str | None, message: str) -> None:
    headers = {} if content_type is None else {"Content_Type": content_type}
    refused(web.put("/a.jpg", content, **headers), message)


# Where it leads


def test_redirects_are_followed_and_counted(web: Any) -> None:
    web.put("/c/image.png", png())
    web.put("/b", status=301, Location="c/image.png")
    url = web.put("/a", status=302, Location=f"{web.url}/b")
    assert fetch(url).content == png()
    refused(url, "more than 1 redirects", max_redirects=1)
    turn = web.put("/turn", status=302, Location="/turn")
    refused(turn, "more than 5 redirects")
    assert web.requests["/turn"] == 6


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/passwd", "redirected to not an http URL: file:"),
        ("ftp://127.0.0.1/a", "redirected to not an http URL"),
        ("http://[::bad", "redirected to"),
    ],
)
def test_redirects_lead_to_the_web_only(web: Any, location: str, message: str) -> None:
    refused(web.put("/a", status=302, Location=location), message)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        *((url, "not an http URL") for url in ("file:///etc/passwd", "ftp://127.0.0.1/a", "/etc/passwd", "")),
        ("http:///a", "names no server"),
        ("http://[::bad", "not a URL"),
    ],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        parse_url(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_this_machine_gets_no_request_unless_that_is_allowed(web: Any, host: str) -> None:
    url = web.put("/a.png", png()).replace("127.0.0.1", host)
    refused(url, "is this machine or in its own network", allow_private=False)
    assert not web.requests


def test_a_name_that_leads_here_after_the_check_is_refused(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server may resolve a name to one server for the check and to another for the connection."""
    from count_clip.datasets_scripts.download.request import RequestSender

    async def passed(*_: object) -> None:
        pass

    monkeypatch.setattr(RequestSender, "_check_host", passed)
    refused(web.put("/a.png", png()), "(127.0.0.1)", allow_private=False)


def test_redirect_to_this_machine_is_refused(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from count_clip.datasets_scripts.download import request

    web.put("/secret.png", png())
    port = web.url.rpartition(":")[2]
    url = web.put("/a", status=302, Location=f"http://localhost:{port}/secret.png")
    # The server of the test stands for one on the web, its other name for this machine.
    monkeypatch.setattr(request, "is_public", lambda address: address == "127.0.0.1" and not web.requests["/a"])
    refused(url, "127.0.0.1", allow_private=False)
    assert not web.requests["/secret.png"]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "2002:0a00:0001::1", "64:ff9b::a00:1"),
    ],
)
def test_private_ip_addresses_are_recognised(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_public_ip_addresses_are_recognised(address: str) -> None:
    assert is_public(address)


# Politeness


@pytest.mark.parametrize(
    ("values", "directive"),
    [
        (["noai"], "noai"),
        (["max-snippet: 5, NoImageAI"], "noimageai"),
        (["all", "noindex"], "noindex"),
        (["count-clip: noai"], "noai"),
        (["*: noimageindex"], "noimageindex"),
        (["otherbot: noai, noimageai"], None),
        (["otherbot: nofollow, count-clip: noai"], "noai"),
        (["nofollow, unavailable_after: 25 Jun 2030 15:00:00 PST"], None),
        (["none-of-these"], None),
        ([], None),
    ],
)
def test_opt_outs_are_understood(values: list[str], directive: str | None) -> None:
    assert opts_out(values, OPT_OUTS) == directive


def test_opt_outs_are_obeyed(web: Any) -> None:
    url = web.put("/a.png", png(), X_Robots_Tag="noai")
    refused(url, "its owner opted out (noai)")
    assert fetch(url, opt_outs=()).content == png()


def test_only_failures_that_may_pass_are_tried_again(web: Any) -> None:
    result = fetch(web.put("/tired", png(), status=[500, 503, 200]), retries=2)
    assert (result.content, web.requests["/tired"]) == (png(), 3)
    refused(web.put("/broken", status=500), "the server answered 500 (tried 3 times)", 3, retries=2)
    for status in (400, 401, 403, 404, 410, 451):
        refused(web.put(f"/{status}", status=status), f"the server answered {status}", retries=2)
        assert web.requests[f"/{status}"] == 1


def test_retry_after_is_obeyed(web: Any) -> None:
    busy = web.put("/busy", png(), status=[429, 200], Retry_After="0.4")
    other = web.put("/other", png())
    with HttpClient(FetchConfig(**QUICK)) as client:
        assert client.fetch(busy).result().content == png()
        assert web.times["/busy"][1] - web.times["/busy"][0] > 0.38
    web.requests.clear()
    # So is it for other URLs of the server.
    with HttpClient(FetchConfig(**QUICK, connections_per_host=1)) as client:
        first, second = client.fetch(busy), client.fetch(other)
        assert first.result().content == second.result().content == png()
    assert web.times["/other"][0] - web.times["/busy"][2] > 0.38


def test_a_long_retry_after_closes_the_server(web: Any) -> None:
    closed = web.put("/closed", status=429, Retry_After="3600")
    with HttpClient(FetchConfig(**QUICK)) as client:
        first = client.fetch(closed).result()
        second = client.fetch(web.put("/other", png())).result()
    assert first.problem == "the server answered 429"
    assert "requested a pause of another 3,600 s" in second.problem
    assert not web.requests["/other"]


def test_a_long_delay_is_no_closed_server(web: Any) -> None:
    urls = [web.put(f"/{place}", png()) for place in range(3)]
    with HttpClient(FetchConfig(**{**QUICK, "host_delay": 0.1, "max_wait": 0.05})) as client:
        assert all(future.result().content for future in [client.fetch(url) for url in urls])


def test_a_server_without_a_valid_certificate_is_refused() -> None:
    import ssl

    from huggingface_hub.utils import httpx

    from count_clip.datasets_scripts.download.request import _explained

    error = httpx.ConnectError("handshake", request=httpx.Request("GET", "https://example.org"))
    error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.__cause__.verify_message = "self-signed certificate"
    found = _explained(error)
    assert not found.may_pass
    assert "self-signed certificate" in str(found)


def test_waits_grow_and_stay_below_the_longest() -> None:
    config = FetchConfig(backoff=1.0, max_wait=10.0)
    passing = FetchError("", may_pass=True)
    for attempt, middle in ((1, 1.0), (2, 2.0), (3, 4.0)):
        waits = [wait_before(attempt, passing, config) for _ in range(200)]
        assert 0.5 * middle <= min(waits) < 0.7 * middle
        assert 1.3 * middle < max(waits) <= 1.5 * middle
    assert wait_before(60, passing, config) <= 10.0
    assert wait_before(1, FetchError("", may_pass=True, retry_after=7), config) == 7
    assert wait_before(1, FetchError("", may_pass=True, retry_after=11), config) is None
    assert wait_before(1, FetchError(""), config) is None


def test_retry_after_is_read() -> None:
    now = datetime.datetime(2026, 5, 4, 12, 0, 0, tzinfo=datetime.UTC)
    assert seconds_to_wait("120") == 120.0
    assert seconds_to_wait("Mon, 04 May 2026 12:00:30 GMT", now) == 30.0
    assert seconds_to_wait("Mon, 04 May 2026 11:00:00 GMT", now) == 0.0
    for header in (None, "", "soon", "-5", "1e9"):
        assert seconds_to_wait(header) is None


def test_requests_at_once_are_limited_in_all_and_for_each_server(web: Any) -> None:
    def answer(handler: Any) -> None:
        time.sleep(0.05)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(png())

    urls = [web.script(f"/{place}", answer) for place in range(24)]
    # Two names of one server are two servers.
    both = [*urls, *(url.replace("127.0.0.1", "localhost") for url in urls)]
    with HttpClient(FetchConfig(**QUICK, num_connections=5, connections_per_host=3)) as client:
        assert all(future.result().content == png() for future in [client.fetch(url) for url in both])
    assert 3 < web.most_at_once <= 5
    web.most_at_once = 0
    with HttpClient(FetchConfig(**QUICK, num_connections=5, connections_per_host=2)) as client:
        assert all(future.result().content == png() for future in [client.fetch(url) for url in urls])
    assert web.most_at_once == 2


def test_there_is_a_delay_between_requests_to_a_server(web: Any) -> None:
    urls = [web.put(f"/{place}", png()) for place in range(5)]
    started = time.monotonic()
    with HttpClient(FetchConfig(**{**QUICK, "host_delay": 0.1})) as client:
        assert all(future.result().content for future in [client.fetch(url) for url in urls])
    assert time.monotonic() - started >= 0.4


# Many


def test_the_order_is_kept(web: Any) -> None:
    def late(handler: Any) -> None:
        time.sleep(0.5)
        web.pages["/1"](handler)

    web.script("/0", late)
    urls: list[tuple[int, str | None]] = [(0, f"{web.url}/0"), (99, None)]
    urls += [(place, web.put(f"/{place}", png(value=place))) for place in range(1, 9)]
    with HttpClient(FetchConfig(**QUICK)) as client:
        results = list(client.in_order(urls))
    assert [item for item, _ in results] == [item for item, _ in urls]
    assert results[1][1] is None
    assert [result.content for item, result in results[2:] if result] == [png(value=n) for n in range(1, 9)]


def test_a_list_is_not_read_far_ahead(web: Any) -> None:
    read = 0

    def urls() -> Any:
        nonlocal read
        for place in range(60):
            read += 1
            yield place, web.put(f"/{place}", png())

    with HttpClient(FetchConfig(**QUICK, num_connections=4)) as client:
        results = client.in_order(urls())
        assert next(results)[0] == 0
        assert read <= 10
        assert sum(1 for _ in results) == 59


def test_idle_servers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    from count_clip.datasets_scripts.download import request

    monkeypatch.setattr(request, "_MAX_IDLE_HOSTS", 3)
    limits = request.HostLimits(FetchConfig(host_delay=0))

    async def visit() -> None:
        for place in range(40):
            async with limits.turn(f"a{place}"):
                pass

    asyncio.run(visit())
    assert len(limits._hosts) <= 4


def test_stopping_leaves_nothing_running(web: Any) -> None:
    slow = web.script("/slow", lambda handler: time.sleep(9.0))
    threads = threading.active_count()
    started = time.monotonic()
    with HttpClient(FetchConfig(**QUICK)) as client:
        future = client.fetch(slow)
        while not web.requests["/slow"]:
            time.sleep(0.005)
    assert time.monotonic() - started < 7.0
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=0)
    assert "fetching" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= threads + 1  # the server's


def test_no_thread_is_started_where_there_is_nothing_to_fetch() -> None:
    with HttpClient() as client:
        assert list(client.in_order([("a", None)])) == [("a", None)]
        assert "fetching" not in {thread.name for thread in threading.enumerate()}


def test_unexpected_errors_are_raised(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from count_clip.datasets_scripts.download import client as module

    monkeypatch.setattr(module, "check_image", lambda content, max_pixels: {}["missing"])
    with HttpClient(FetchConfig(**QUICK)) as client, pytest.raises(KeyError, match="missing"):
        client.fetch(web.put("/a.png", png())).result()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"read_timeout": 0}, "read_timeout to be more than 0, but got 0"),
        ({"retries": -1}, "retries to be 0 or more, but got -1"),
        ({"num_connections": 0}, "num_connections to be more than 0"),
        ({"max_bytes": 0}, "max_bytes to be more than 0"),
        ({"total_timeout": float("nan")}, "total_timeout to be more than 0, but got nan"),
    ],
)
def test_invalid_options_are_rejected(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FetchConfig(**options)


def test_a_proxy_resolves_names_itself(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    web.pages["http://images.invalid/a.png"] = web.pages.setdefault(web.put("/a.png", png())[-6:], print)
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetch("http://images.invalid/a.png", allow_private=False).content == png()
    refused("http://10.0.0.1/a.png", "10.0.0.1", allow_private=False)
