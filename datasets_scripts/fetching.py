"""Pictures from the web, one address at a time."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import datasets


USER_AGENT = "count-clip"


class FetchError(Exception):
    """An address that could not be fetched; the message says why."""


# Takes an address and returns what is there, or raises `FetchError`.
Fetcher = Callable[[str], bytes]


def fetch_bytes(url: str, timeout: float = 20.0, max_bytes: int = 50 * 2**20) -> bytes:
    """
    Fetch what is at an address.

    Args:
        url (`str`): An address with `http` or `https`.
        timeout (`float`, *optional*, defaults to 20.0): Seconds that the server may be silent.
        max_bytes (`int`, *optional*, defaults to 50 MiB): The largest answer that is taken.

    Returns:
        `bytes`: The answer.

    Raises:
        FetchError: If there is none, or it is cut short or too large.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise FetchError(f"no address: {error}") from error
    if scheme not in ("http", "https"):
        raise FetchError(f"not an http address: {url}")
    # Addresses in captions' lists hold spaces and letters that a request must not.
    request = urllib.request.Request(quote(url, safe="%/:?#[]@!$&'()*+,;=~"), headers={"User-Agent": USER_AGENT})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            content: bytes = answer.read(max_bytes + 1)
            promised = answer.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        raise FetchError(f"the server answered {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{type(error).__name__}: {error}") from error
    if len(content) > max_bytes:
        raise FetchError(f"more than {max_bytes:,} bytes")
    if promised.isdecimal() and len(content) < int(promised):
        raise FetchError(f"cut short: {len(content):,} of {int(promised):,} bytes")
    return content


def fetched_folder(name: str) -> Path:
    """
    Say where what was fetched for a set is kept if nobody says it.

    Args:
        name (`str`): The set.

    Returns:
        `Path`: A folder in the cache of `datasets`.
    """
    return Path(datasets.config.DOWNLOADED_DATASETS_PATH) / name


def write_whole(path: Path, content: bytes) -> None:
    """
    Write a file that is there with all of its content or not at all.

    Args:
        path (`Path`): The file; its folder has to be there.
        content (`bytes`): What it is to hold.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
