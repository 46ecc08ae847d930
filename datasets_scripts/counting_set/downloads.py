"""The images of captions that have only an address."""

from collections.abc import Iterable, Iterator

from ..download.client import FetchConfig, Fetcher, Fetching
from .stages import Candidate


def fetch_images(
    candidates: Iterable[Candidate], config: FetchConfig | None = None, fetcher: Fetcher | None = None
) -> Iterator[tuple[Candidate, bytes | None, str]]:
    """
    Add the images to captions, fetching those that have only an address.

    Args:
        candidates (`Iterable[Candidate]`): The captions.
        config ([`FetchConfig`], *optional*): How to fetch.
        fetcher (`Callable[[str], bytes]`, *optional*): What asks for an address; http by default.

    Returns:
        `Iterator[tuple[Candidate, bytes | None, str]]`: Each caption in its order, its image's file or `None`, and
        why there is none.
    """
    with Fetching(config, fetcher) as fetching:
        addresses = ((one, one.record.url if one.record.image is None else None) for one in candidates)
        for candidate, result in fetching.in_order(addresses):
            if result is None:
                yield candidate, candidate.record.image, candidate.record.problem
            else:
                yield candidate, result.content, result.problem
