"""What is looked at before an answer is believed: where it comes from, what its owner wants, and what it is."""

import datetime
import email.utils
import io
import ipaddress
import re
from collections.abc import Iterable, Sequence

from PIL import Image, UnidentifiedImageError

from ..files.image_sources import DECODER_ERRORS, IMAGE_ENDINGS
from .config import FetchError, ImageFacts


# Declared types of what is no image. Any other may be wrong about one.
_OTHER_TYPES = re.compile(
    r"text/(html|css|javascript)|application/(xhtml\+xml|json|ld\+json|pdf|javascript)|(video|audio)/.*"
)
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|script|title)\b",
    re.IGNORECASE | re.DOTALL,
)
# Directives of X-Robots-Tag with a value, which is not the name of a robot.
_WITH_VALUES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
# Addresses of IPv6 in which there is one of IPv4.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """
    Tell addresses of the internet from those of this machine and its own network.

    Args:
        address (`str`): A numerical address: `"192.0.2.1"`, `"2001:db8::1"`.

    Returns:
        `bool`: Whether it is one of the internet's.
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
    Look whether a server wants its image in no data set.

    Args:
        values (`Iterable[str]`): The headers `X-Robots-Tag`: `"noai, noimageai"`, `"otherbot: noindex"`.
        directives (`Sequence[str]`): What is obeyed, in lower case.
        robot (`str`, *optional*, defaults to `"count-clip"`): Directives for other robots are theirs.

    Returns:
        `str` or `None`: The directive, if there is one.
    """
    for value in values:
        meant = True
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in _WITH_VALUES:
                meant = name.strip() in (robot, "*")
                part = rest
            if meant and (directive := part.partition(":")[0].strip()) in directives:
                return directive
    return None


def seconds_to_wait(header: str | None, now: datetime.datetime | None = None) -> float | None:
    """
    Read the header `Retry-After`.

    Args:
        header (`str`, *optional*): A number of seconds or a date.
        now (`datetime.datetime`, *optional*): What time it is.

    Returns:
        `float` or `None`: Seconds; nothing if the header says neither.
    """
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
    """
    Refuse what its server says is no image, before it is read.

    Args:
        content_type (`str`, *optional*): The header `Content-Type`.

    Raises:
        FetchError: If it is none.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    if _OTHER_TYPES.fullmatch(declared):
        raise _no_image("html" if "html" in declared else "type", f"the server sent {declared}")


def check_beginning(content: bytes) -> None:
    """
    Refuse a web page by its first bytes, whatever its server calls it.

    Args:
        content (`bytes`): The first bytes.

    Raises:
        FetchError: If they are those of a page.
    """
    if _PAGE.match(content[:1024]):
        raise _no_image("html", "the server sent a web page")


def check_image(content: bytes, max_pixels: int) -> ImageFacts:
    """
    Decode an image to see that it is one, and whole.

    Args:
        content (`bytes`): Its file.
        max_pixels (`int`): The largest that is taken; a larger one is not decoded.

    Returns:
        `ImageFacts`: What it is.

    Raises:
        FetchError: If it is none, or too large.
    """
    if not content:
        raise _no_image("empty", "the answer is empty")
    check_beginning(content)
    try:
        with Image.open(io.BytesIO(content), formats=tuple(IMAGE_ENDINGS)) as opened:
            # Some phones' images hold several, of which the first is a JPEG.
            format_ = "JPEG" if opened.format == "MPO" else str(opened.format)
            facts = ImageFacts(format_, opened.width, opened.height, IMAGE_ENDINGS[format_])
            if facts.width * facts.height > max_pixels:
                raise FetchError(
                    f"an image of {facts.width:,} x {facts.height:,} pixels, more than {max_pixels:,}", "too_large"
                )
            # Enough to see that nothing is missing; of a JPEG, an eighth is faster.
            opened.draft(None, (max(1, facts.width // 8), max(1, facts.height // 8)))
            opened.load()
    except Image.DecompressionBombError as error:
        raise FetchError(f"an image of too many pixels: {error}", "too_large") from error
    except UnidentifiedImageError as error:
        raise _no_image("type", f"no image of a known kind ({_described(content)})") from error
    except DECODER_ERRORS as error:
        raise _no_image("broken", f"an image that cannot be decoded: {error}") from error
    return facts


def _described(content: bytes) -> str:
    beginning = content[:256].lstrip()
    if beginning.startswith((b"{", b"[")):
        return "json, it seems"
    if beginning.startswith(b"%PDF"):
        return "a PDF"
    if b"<svg" in content[:1024]:
        return "an SVG drawing"
    return f"it begins with {content[:8]!r}"


def _no_image(reason: str, message: str) -> FetchError:
    return FetchError(message, reason)
