"""Checks of a server, of the headers of its response, and of the content."""

import datetime
import email.utils
import io
import ipaddress
import re
from collections.abc import Iterable, Sequence

from PIL import Image, UnidentifiedImageError

from ..files.images import DECODER_ERRORS, SAFE_FORMATS
from .config import FetchError


# Declared types that are certainly no images. Any other may be wrong.
_OTHER_TYPES = re.compile(
    r"text/(html|css|javascript)|application/(xhtml\+xml|json|ld\+json|pdf|javascript)|(video|audio)/.*"
)
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|script|title)\b",
    re.IGNORECASE | re.DOTALL,
)
# Directives of X-Robots-Tag with a value, which is not the name of a robot.
_WITH_VALUES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
# IPv6 addresses that hold an IPv4 address (NAT64).
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """
    Whether an IP address (`"192.0.2.1"`, `"2001:db8::1"`) is of the internet, and not of this machine or its own
    network.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def opts_out(values: Iterable[str], directives: Sequence[str], robot: str = "count-clip") -> str | None:
    """
    Find the directive by which a server keeps its image out of data sets.

    The headers `X-Robots-Tag` (`"noai, noimageai"`, `"otherbot: noindex"`) count if they are for all robots or for
    `robot`, and if the directive is among `directives`, in lower case.
    """
    for value in values:
        for_us = True
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in _WITH_VALUES:
                for_us = name.strip() in (robot, "*")
                part = rest
            if for_us and (directive := part.partition(":")[0].strip()) in directives:
                return directive
    return None


def seconds_to_wait(header: str | None, now: datetime.datetime | None = None) -> float | None:
    """Read the seconds in the header `Retry-After`, a number or a date; `None` if it is neither."""
    if header is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", header, re.ASCII):
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - (now or datetime.datetime.now(datetime.UTC))).total_seconds())


def check_declared_type(content_type: str | None) -> None:
    """Refuse a response whose header `Content-Type` is that of no image."""
    declared = (content_type or "").partition(";")[0].strip().lower()
    if _OTHER_TYPES.fullmatch(declared):
        raise FetchError(f"the server sent {declared}")


def check_beginning(content: bytes) -> None:
    """Refuse a web page by its first bytes, whatever its declared type."""
    if _PAGE.match(content[:1024]):
        raise FetchError("the server sent a web page")


def check_image(content: bytes, max_pixels: int) -> str:
    """
    Decode an image to check that it is one, and complete; return the suffix of its format, `".jpg"`.

    Raises:
        FetchError: If it is none, or has more than `max_pixels`; a larger image is not decoded.
    """
    if not content:
        raise FetchError("the response is empty")
    check_beginning(content)
    try:
        with Image.open(io.BytesIO(content), formats=tuple(SAFE_FORMATS)) as opened:
            # Some phones' images hold several, of which the first is a JPEG.
            format_ = "JPEG" if opened.format == "MPO" else str(opened.format)
            width, height = opened.size
            if width * height > max_pixels:
                raise FetchError(f"an image of {width:,} x {height:,} pixels, more than {max_pixels:,}")
            # Enough to see that nothing is missing; of a JPEG, an eighth is faster.
            opened.draft(None, (max(1, width // 8), max(1, height // 8)))
            opened.load()
    except Image.DecompressionBombError as error:
        raise FetchError(f"an image of too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise FetchError(f"no image of a known format ({_described(content)})") from error
    except DECODER_ERRORS as error:
        raise FetchError(f"an image that cannot be decoded: {error}") from error
    return SAFE_FORMATS[format_]


def _described(content: bytes) -> str:
    beginning = content[:256].lstrip()
    if beginning.startswith((b"{", b"[")):
        return "probably JSON"
    if beginning.startswith(b"%PDF"):
        return "a PDF"
    return "an SVG drawing" if b"<svg" in content[:1024] else f"it begins with {content[:8]!r}"
