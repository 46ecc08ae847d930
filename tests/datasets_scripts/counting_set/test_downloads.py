import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from count_clip.datasets_scripts.counting_set.downloads import fetch_images
from count_clip.datasets_scripts.counting_set.shards import CaptionRecord
from count_clip.datasets_scripts.counting_set.stages import Candidate
from count_clip.datasets_scripts.download.client import FetchConfig


def _candidate(place: int, url: str | None = None, image: bytes | None = None, problem: str = "") -> Candidate:
    return Candidate("list", CaptionRecord(place, str(place), "two dogs", image, url, problem), 2, "dogs")


@pytest.fixture
def png() -> Callable[[int], bytes]:
    def draw(value: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (4, 3), value).save(file, "PNG")
        return file.getvalue()

    return draw


def test_images_are_fetched_and_what_fails_is_explained(web: Any, png: Callable[[int], bytes]) -> None:
    candidates = [
        _candidate(0, web.put("/a", png(0))),
        _candidate(1, f"{web.address}/missing"),
        _candidate(2, web.put("/tired", png(2), status=[503, 503, 200])),
        _candidate(3, web.put("/page", b"<html>", Content_Type="text/html")),
        _candidate(4, image=b"here"),
        _candidate(5, web.put("/unneeded", png(5)), image=b"here, too"),
        _candidate(6, problem="no image in the archive"),
        _candidate(7, "ftp://example.org/a.jpg"),
    ]
    config = FetchConfig(backoff=0.01, host_delay=0, allow_private=True)
    results = list(fetch_images(candidates, config))
    assert [candidate for candidate, _, _ in results] == candidates, "the order stays"
    assert [(content, problem) for _, content, problem in results] == [
        (png(0), ""),
        (None, "the server answered 404"),
        (png(2), ""),
        (None, "the server sent text/html"),
        (b"here", ""),
        (b"here, too", ""),
        (None, "no image in the archive"),
        (None, "not an http address: ftp://example.org/a.jpg"),
    ]
    assert not web.asked["/unneeded"]


def test_something_else_may_ask(png: Callable[[int], bytes]) -> None:
    contents = {f"http://example.org/{place}": png(place) for place in range(3)}
    candidates = [_candidate(place, url) for place, url in enumerate(contents)]
    config = FetchConfig(host_delay=0)
    results = fetch_images(candidates, config, contents.__getitem__)
    assert [content for _, content, _ in results] == list(contents.values())
