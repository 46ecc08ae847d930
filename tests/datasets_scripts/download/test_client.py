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
    Fetching,
    FetchResult,
    fetch_bytes,
    wait_before,
)
from count_clip.datasets_scripts.download.config import OPT_OUTS
from count_clip.datasets_scripts.download.request import parse_address


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
    with Fetching(FetchConfig(**{**QUICK, **options})) as fetching:
        return fetching.fetch(url).result()


def refused(url: str, reason: str, message: str, attempts: int = 1, **options: Any) -> FetchResult:
    result = fetch(url, **options)
    assert result.content is None
    assert (result.reason, result.attempts) == (reason, attempts), result.problem
    assert message in result.problem, result.problem
    return result


# What is right


def test_image_comes_with_its_facts(web: Any) -> None:
    content = noise()
    url = web.put("/a b%C3%A4.jpg", content, Content_Type="image/png")
    web.pages["/a%20b%C3%A4.jpg"] = web.pages.pop("/a b%C3%A4.jpg")
    # An address as it stands in a list, with a space and a letter that no request may have.
    result = fetch(url.replace("%C3%A4", "ä") + " ")
    assert result.content == content
    assert (result.problem, result.reason, result.status, result.attempts) == ("", "", 200, 1)
    assert (result.image.format, result.image.width, result.image.ending) == ("JPEG", 64, ".jpg"), (
        "what it is, not what its server calls it"
    )
    assert result.content_type == "image/png"
    assert result.final_url == url.replace(" ", "%20")
    assert len(result.sha256) == 64
    assert 0 < result.seconds < 2


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
    with pytest.raises(FetchError, match="the server answered 404") as error:
        fetch_bytes(f"{web.address}/none", FetchConfig(**QUICK))
    assert error.value.status == 404


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_usual_images_are_taken(format_: str) -> None:
    facts = check_image(noise(format_), 10_000)
    assert (facts.format, facts.width, facts.height) == (format_, 64, 64)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        # Without its header, as some servers send it.
        ("deflate", lambda content: zlib.compress(content)[2:-4]),
    ],
)
def test_packed_answers_are_unpacked_though_none_was_asked_for(web: Any, encoding: str, pack: Callable) -> None:
    assert fetch(web.put("/a.png", pack(png()), Content_Encoding=encoding)).content == png()
    assert web.headers[0]["Accept-Encoding"] == "identity"


# What goes wrong on the way


def test_slow_servers_are_left(web: Any) -> None:
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

    refused(slow, "timeout", "timed out: ReadTimeout", read_timeout=0.2, retries=0)
    # Never silent, and yet there is no end: of the content, or of the headers before it.
    for path, script in (("/drip", drip), ("/drip-headers", drip_headers)):
        refused(web.script(path, script), "timeout", "more than 0.4 s in all", total_timeout=0.4, retries=0)


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        refused(f"http://127.0.0.1:{taken.getsockname()[1]}/", "connection", "(tried 2 times)", attempts=2)
    refused("http://no-such-server.invalid/a.jpg", "no_host", "there is no server no-such-server.invalid", retries=0)


def test_answer_that_is_cut_short_is_an_error(web: Any) -> None:
    content = noise()
    promised = web.put("/promised", content[:500], Content_Length=str(len(content)))
    refused(promised, "cut_short", "cut short", attempts=2)
    assert web.asked["/promised"] == 2

    def cut_chunks(handler: Any) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"1f4\r\n" + content[:500] + b"\r\n")

    refused(web.script("/chunks", cut_chunks), "cut_short", "cut short", attempts=2)
    # Without a length only the image itself can tell.
    for ending, format_ in ((".jpg", "JPEG"), (".png", "PNG"), (".gif", "GIF"), (".webp", "WEBP")):
        whole = noise(format_)
        unsaid = web.put(f"/unsaid{ending}", whole[: len(whole) // 2], Content_Length=None)
        refused(unsaid, "broken", "an image that cannot be decoded")
    packed = gzip.compress(content)
    refused(
        web.put("/packed", packed[:-20], Content_Encoding="gzip", Content_Length=None),
        "cut_short",
        "the packed answer has no end",
        attempts=2,
    )


def test_connection_that_is_cut_is_tried_again(web: Any) -> None:
    def reset(handler: Any) -> None:
        if web.asked["/reset"] < 2:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(png())

    result = fetch(web.script("/reset", reset))
    assert (result.content, result.attempts) == (png(), 2)


def test_length_that_is_said_too_small_gives_no_whole_image(web: Any) -> None:
    refused(web.put("/a.jpg", noise(), Content_Length="700"), "broken", "an image that cannot be decoded")
    with pytest.raises(FetchError, match="ProtocolError|cut short"):
        fetch_bytes(web.put("/b", b"abc", Content_Length="-5"), FetchConfig(**QUICK))


def test_too_large_answers_are_not_read(web: Any) -> None:
    refused(web.put("/said", b"x", Content_Length="5000"), "too_large", "the server says 5,000", max_bytes=1000)
    sent = []

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(2000):
            handler.wfile.write(b"x" * 65536)
            sent.append(65536)

    refused(web.script("/endless", endless), "too_large", "more than 100,000 bytes", max_bytes=100_000)
    time.sleep(0.1)
    assert sum(sent) < 20 * 2**20, "the rest of the 131 MB is not read"


def test_gzip_bomb_is_not_unpacked(web: Any) -> None:
    bomb = gzip.compress(bytes(50 * 2**20))
    assert len(bomb) < 60_000
    url = web.put("/bomb", bomb, Content_Encoding="gzip")
    refused(url, "too_large", "more than 100,000 bytes when unpacked", max_bytes=100_000)
    refused(web.put("/brotli", b"x", Content_Encoding="br"), "encoding", "packed as br, which was not asked for")
    refused(web.put("/no-gzip", b"xyz", Content_Encoding="gzip"), "encoding", "cannot be unpacked")


def test_image_bomb_is_not_decoded(web: Any) -> None:
    file = io.BytesIO()
    Image.new("1", (5000, 4000)).save(file, "PNG")
    assert len(file.getvalue()) < 5000
    url = web.put("/bomb.png", file.getvalue())
    refused(url, "too_large", "an image of 5,000 x 4,000 pixels, more than 1,000,000", max_pixels=10**6)
    assert fetch(url, max_pixels=2 * 10**7).content is not None
    # A header alone can claim more than Pillow will open.
    claimed = bytearray(png())
    claimed[16:24] = struct.pack(">II", 60_000, 60_000)
    claimed[29:33] = struct.pack(">I", zlib.crc32(claimed[12:29]))
    refused(web.put("/claimed.png", bytes(claimed)), "too_large", "too many pixels")


@pytest.mark.parametrize(
    ("content", "content_type", "reason", "message"),
    [
        (b"<html>gone</html>", "text/html; charset=utf-8", "html", "the server sent text/html"),
        (b"<!-- x -->\n<!DOCTYPE html><p>gone", "image/jpeg", "html", "the server sent a web page"),
        (b'<?xml version="1.0"?>\n<html xmlns="x">', None, "html", "the server sent a web page"),
        (b'{"error": 1}', "application/json", "type", "the server sent application/json"),
        (b'{"error": 1}', None, "type", "no image of a known kind (json, it seems)"),
        (b"<svg xmlns='x'/>", "image/svg+xml", "type", "an SVG drawing"),
        (b"%PDF-1.7", "image/png", "type", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n", "image/eps", "type", "no image of a known kind"),
        (b"", "image/png", "empty", "the answer is empty"),
    ],
)
def test_what_is_no_image_is_refused(
    web: Any, content: bytes, content_type: str | None, reason: str, message: str
) -> None:
    headers = {} if content_type is None else {"Content_Type": content_type}
    assert refused(web.put("/a.jpg", content, **headers), reason, message).status == 200


# Where it leads


def test_redirects_are_followed_and_counted(web: Any) -> None:
    web.put("/c/image.png", png())
    web.put("/b", status=301, Location="c/image.png")
    url = web.put("/a", status=302, Location=f"{web.address}/b")
    result = fetch(url)
    assert (result.content, result.final_url) == (png(), f"{web.address}/c/image.png")
    refused(url, "redirects", "more than 1 redirects", max_redirects=1)
    turn = web.put("/turn", status=302, Location="/turn")
    refused(turn, "redirects", "more than 5 redirects")
    assert web.asked["/turn"] == 6


@pytest.mark.parametrize(
    ("location", "reason", "message"),
    [
        ("file:///etc/passwd", "scheme", "redirected to not an http address: file:"),
        ("ftp://127.0.0.1/a", "scheme", "redirected to not an http address"),
        ("http://[::bad", "address", "redirected to no address"),
    ],
)
def test_redirects_lead_to_the_web_only(web: Any, location: str, reason: str, message: str) -> None:
    assert refused(web.put("/a", status=302, Location=location), reason, message).status == 302


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "scheme"),
        ("ftp://127.0.0.1/a", "scheme"),
        ("/etc/passwd", "scheme"),
        ("", "scheme"),
        ("http:///a", "address"),
        ("http://[::bad", "address"),
    ],
)
def test_other_addresses_are_refused(url: str, reason: str) -> None:
    with pytest.raises(FetchError) as error:
        parse_address(url)
    assert error.value.reason == reason


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_asked_unless_that_is_allowed(web: Any, host: str) -> None:
    url = web.put("/a.png", png()).replace("127.0.0.1", host)
    result = refused(url, "private", "is an address of this machine or its own network", allow_private=False)
    assert result.status is None
    assert not web.asked


def test_name_that_leads_to_this_machine_after_all_is_not_believed(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server may answer the check with one address and the connection with another."""
    from count_clip.datasets_scripts.download.request import Asker

    async def passed(*_: object) -> None:
        pass

    monkeypatch.setattr(Asker, "_check_host", passed)
    refused(web.put("/a.png", png()), "private", "(127.0.0.1)", allow_private=False)


def test_redirect_to_this_machine_is_refused(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from count_clip.datasets_scripts.download import request as fetch_answers

    web.put("/secret.png", png())
    port = web.address.rpartition(":")[2]
    url = web.put("/a", status=302, Location=f"http://localhost:{port}/secret.png")
    # The server of the test stands for one on the web, its other name for this machine.
    monkeypatch.setattr(fetch_answers, "is_public", lambda address: address == "127.0.0.1" and not web.asked["/a"])
    refused(url, "private", "127.0.0.1", allow_private=False)
    assert not web.asked["/secret.png"]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "2002:0a00:0001::1", "64:ff9b::a00:1"),
    ],
)
def test_private_addresses_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_public_addresses_are_known(address: str) -> None:
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
    refused(url, "opt_out", "its owner opted out (noai)")
    assert fetch(url, opt_outs=()).content == png()


def test_passing_failures_are_tried_again_and_others_not(web: Any) -> None:
    result = fetch(web.put("/tired", png(), status=[500, 503, 200]), retries=2)
    assert (result.content, result.attempts, result.status) == (png(), 3, 200)
    result = refused(web.put("/broken", status=500), "status", "the server answered 500 (tried 3 times)", 3, retries=2)
    assert result.status == 500
    for status in (400, 401, 403, 404, 410, 451):
        refused(web.put(f"/{status}", status=status), "status", f"the server answered {status}", retries=2)
        assert web.asked[f"/{status}"] == 1


def test_server_that_says_when_to_come_back_is_obeyed(web: Any) -> None:
    busy = web.put("/busy", png(), status=[429, 200], Retry_After="0.4")
    other = web.put("/other", png())
    with Fetching(FetchConfig(**QUICK)) as fetching:
        assert fetching.fetch(busy).result().attempts == 2
        assert web.times["/busy"][1] - web.times["/busy"][0] > 0.38
    web.asked.clear()
    # So are its other addresses.
    with Fetching(FetchConfig(**QUICK, connections_per_host=1)) as fetching:
        first, second = fetching.fetch(busy), fetching.fetch(other)
        assert first.result().content == second.result().content == png()
    assert web.times["/other"][0] - web.times["/busy"][2] > 0.38


def test_server_that_wants_a_long_rest_gets_it(web: Any) -> None:
    closed = web.put("/closed", status=429, Retry_After="3600")
    with Fetching(FetchConfig(**QUICK)) as fetching:
        first = fetching.fetch(closed).result()
        second = fetching.fetch(web.put("/other", png())).result()
    assert (first.reason, first.status, first.attempts) == ("status", 429, 1)
    assert second.reason == "retry_after"
    assert "asked not to be asked for another 3,600 s" in second.problem
    assert not web.asked["/other"]


def test_long_delay_is_not_taken_for_a_closed_server(web: Any) -> None:
    urls = [(place, web.put(f"/{place}", png())) for place in range(3)]
    with Fetching(FetchConfig(**{**QUICK, "host_delay": 0.1, "max_wait": 0.05})) as fetching:
        assert all(result.content for _, result in fetching.as_they_come(urls))


def test_server_that_cannot_show_who_it_is_is_left() -> None:
    import ssl

    from huggingface_hub.utils import httpx

    from count_clip.datasets_scripts.download.request import _explained

    error = httpx.ConnectError("handshake", request=httpx.Request("GET", "https://example.org"))
    error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.__cause__.verify_message = "self-signed certificate"
    found = _explained(error)
    assert (found.reason, found.may_pass) == ("certificate", False)
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


def test_no_more_are_asked_at_once_than_is_said(web: Any) -> None:
    def answer(handler: Any) -> None:
        time.sleep(0.05)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(png())

    urls = [(place, web.script(f"/{place}", answer)) for place in range(24)]
    # Two names of one server are two servers.
    urls += [(place + 100, url.replace("127.0.0.1", "localhost")) for place, url in urls]
    with Fetching(FetchConfig(**QUICK, num_connections=5, connections_per_host=3)) as fetching:
        assert all(result.content == png() for _, result in fetching.as_they_come(urls))
    assert 3 < web.most_at_once <= 5
    web.most_at_once = 0
    with Fetching(FetchConfig(**QUICK, num_connections=5, connections_per_host=2)) as fetching:
        assert len(list(fetching.as_they_come(urls[:24]))) == 24
    assert web.most_at_once == 2


def test_server_is_not_asked_again_at_once(web: Any) -> None:
    urls = [(place, web.put(f"/{place}", png())) for place in range(5)]
    started = time.monotonic()
    with Fetching(FetchConfig(**{**QUICK, "host_delay": 0.1})) as fetching:
        list(fetching.as_they_come(urls))
    assert time.monotonic() - started >= 0.4


# Many


def test_order_is_kept_where_it_matters_and_nothing_waits_where_not(web: Any) -> None:
    def late(handler: Any) -> None:
        time.sleep(0.5)
        web.pages["/1"](handler)

    web.script("/0", late)
    urls: list[tuple[int, str | None]] = [(0, f"{web.address}/0"), (99, None)]
    urls += [(place, web.put(f"/{place}", png(value=place))) for place in range(1, 9)]
    with Fetching(FetchConfig(**QUICK)) as fetching:
        results = list(fetching.in_order(urls))
        assert [item for item, _ in results] == [item for item, _ in urls]
        assert results[1][1] is None
        assert [result.content for item, result in results[2:] if result] == [png(value=n) for n in range(1, 9)]
        come = [item for item, _ in fetching.as_they_come((item, url) for item, url in urls if url)]
    assert sorted(come) == list(range(9))
    assert come[-1] == 0


def test_list_is_not_read_ahead_far() -> None:
    running = most = 0
    lock = threading.Lock()
    read = 0

    def answer(url: str) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return png()

    def urls() -> Any:
        nonlocal read
        for place in range(300):
            read += 1
            yield place, f"http://a{place}/"

    with Fetching(FetchConfig(num_connections=4), answer) as fetching:
        results = fetching.in_order(urls())
        assert next(results)[0] == 0
        assert read <= 10
        assert sum(1 for _ in results) == 299
        read = 0
        others = fetching.as_they_come(urls())
        next(others)
        assert read <= 17
    assert 1 < most <= 4


def test_idle_servers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    from count_clip.datasets_scripts.download import request as fetch_answers

    monkeypatch.setattr(fetch_answers, "_MAX_IDLE_HOSTS", 3)
    with Fetching(FetchConfig(host_delay=0), lambda url: png()) as fetching:
        assert len(list(fetching.as_they_come((place, f"http://a{place}/") for place in range(40)))) == 40
        assert len(fetching._limits._hosts) <= 4


def test_stopping_leaves_nothing_running(web: Any) -> None:
    slow = web.script("/slow", lambda handler: time.sleep(9.0))
    threads = threading.active_count()
    started = time.monotonic()
    with Fetching(FetchConfig(**QUICK)) as fetching:
        future = fetching.fetch(slow)
        while not web.asked["/slow"]:
            time.sleep(0.005)
    assert time.monotonic() - started < 7.0
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=0)
    assert "fetching" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= threads + 1  # the server's


def test_nothing_is_started_where_there_is_nothing_to_fetch() -> None:
    with Fetching() as fetching:
        assert list(fetching.in_order([("a", None)])) == [("a", None)]
        assert "fetching" not in {thread.name for thread in threading.enumerate()}


def test_other_errors_are_not_swallowed() -> None:
    def answer(url: str) -> bytes:
        raise KeyError(url)

    with Fetching(fetcher=answer) as fetching, pytest.raises(KeyError, match="http://a"):
        fetching.fetch("http://a").result()


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
def test_impossible_options_are_rejected(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FetchConfig(**options)


def test_proxy_looks_up_names_itself(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    web.pages["http://images.invalid/a.png"] = web.pages.setdefault(web.put("/a.png", png())[-6:], print)
    monkeypatch.setenv("http_proxy", web.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetch("http://images.invalid/a.png", allow_private=False).content == png()
    refused("http://10.0.0.1/a.png", "private", "10.0.0.1", allow_private=False)
