import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from count_clip.datasets_scripts.counting_set.shards import CaptionReading, CaptionRecord
from count_clip.datasets_scripts.counting_set.work import fetch_images
from count_clip.datasets_scripts.download.client import FetchConfig


def _record(place: int, url: str | None = None, image: bytes | None = None, problem: str = "") -> CaptionRecord:
    return CaptionRecord("list", place, str(place), "two dogs", CaptionReading(2, "dogs"), image, url, problem)


@pytest.fixture
def png() -> Callable[[int], bytes]:
    def draw(value: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (4, 3), value).save(file, "PNG")
        return file.getvalue()

    return draw


def test_images_are_fetched_and_failures_reported(web: Any, png: Callable[[int], bytes]) -> None:
    records = [
        _record(0, web.put("/a", png(0))),
        _record(1, f"{web.url}/missing"),
        _record(2, web.put("/tired", png(2), status=[503, 503, 200])),
        _record(3, web.put("/page", b"<html>", Content_Type="text/html")),
        _record(4, image=b"here"),
        _record(5, web.put("/unneeded", png(5)), image=b"here, too"),
        _record(6, problem="no image in the archive"),
        _record(7, "ftp://example.org/a.jpg"),
    ]
    config = FetchConfig(backoff=0.01, host_delay=0, allow_private=True)
    results = list(fetch_images(records, config))
    assert [record.key for record in results] == [record.key for record in records], "the order stays"
    assert [(record.image, record.problem) for record in results] == [
        (png(0), ""),
        (None, "the server answered 404"),
        (png(2), ""),
        (None, "the server sent text/html"),
        (b"here", ""),
        (b"here, too", ""),
        (None, "no image in the archive"),
        (None, "not an http URL: ftp://example.org/a.jpg"),
    ]
    assert not web.requests["/unneeded"]
