"""One question over http: redirects followed, each address checked, and no more read than is taken."""

import asyncio
import socket
import ssl
import time
import urllib.request
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy

from huggingface_hub.utils import httpx

from .checks import check_beginning, check_declared_type, is_public, opts_out, seconds_to_wait
from .config import FetchConfig, FetchError


# Answers that may be others in a while: slow, too many requests, and the server's own faults.
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Servers that are remembered though nobody asks them just now.
_MAX_IDLE_HOSTS = 4096
# Looked at before the rest is read.
_BEGINNING = 1024


@dataclass(frozen=True)
class Answer:
    """
    What a server answered.

    Args:
        content (`bytes`): The content, unpacked.
        url (`str`): Where it was in the end.
        status (`int`, *optional*): The status.
        content_type (`str`, *optional*): What the server says it is.
    """

    content: bytes
    url: str
    status: int | None = None
    content_type: str | None = None


@dataclass
class _Host:
    slots: asyncio.Semaphore
    users: int = 0
    # When it may be asked next, for our sake, and for its own.
    not_before: float = 0.0
    closed_until: float = 0.0


class HostLimits:
    """
    Keeps a server from being asked too much, and all of them together.

    Args:
        config (`FetchConfig`): How much is too much.
    """

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._slots = asyncio.Semaphore(config.num_connections)
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait until a server may be asked, and keep the place."""
        state = self._hosts.setdefault(host, _Host(asyncio.Semaphore(self._config.connections_per_host)))
        self._hosts.move_to_end(host)
        state.users += 1
        try:
            async with state.slots:
                while (wait := max(state.not_before, state.closed_until) - time.monotonic()) > 0:
                    if (rest := state.closed_until - time.monotonic()) > self._config.max_wait:
                        raise FetchError(f"{host} asked not to be asked for another {rest:,.0f} s", "retry_after")
                    await asyncio.sleep(wait)
                state.not_before = time.monotonic() + self._config.host_delay
                async with self._slots:
                    yield
        finally:
            state.users -= 1
            self._forget()

    def pause(self, host: str, seconds: float) -> None:
        """Ask a server no more for a while."""
        if state := self._hosts.get(host):
            state.closed_until = max(state.closed_until, time.monotonic() + seconds)

    def _forget(self) -> None:
        if len(self._hosts) <= _MAX_IDLE_HOSTS:
            return
        now = time.monotonic()
        for host in list(self._hosts)[: len(self._hosts) - _MAX_IDLE_HOSTS]:
            state = self._hosts[host]
            if not state.users and max(state.not_before, state.closed_until) < now:
                del self._hosts[host]


@dataclass
class _Clock:
    """What is left of the time that a try may take; waiting for a turn does not count."""

    left: float
    total: float = field(init=False)

    def __post_init__(self) -> None:
        self.total = self.left

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.left):
                yield
        except TimeoutError as error:
            raise FetchError(f"timed out: more than {self.total:g} s in all", "timeout", may_pass=True) from error
        finally:
            self.left -= time.monotonic() - started


class Asker:
    """
    Asks servers.

    Args:
        config (`FetchConfig`): How.
        limits (`HostLimits`): How much.
    """

    def __init__(self, config: FetchConfig, limits: HostLimits) -> None:
        self._config = config
        self._limits = limits
        self._proxies = urllib.request.getproxies()
        self._client = httpx.AsyncClient(
            # Whatever is packed, and how, is decided by the one who asks; images are packed as they are.
            headers={"User-Agent": config.agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(
                config.read_timeout, connect=config.connect_timeout, pool=config.total_timeout + config.max_wait
            ),
            limits=httpx.Limits(max_connections=config.num_connections, keepalive_expiry=5.0),
            # None are kept.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, url: str, image: bool) -> Answer:
        """
        Ask for an address, once.

        Args:
            url (`str`): The address.
            image (`bool`): Whether only an image is of use.

        Returns:
            `Answer`: What is there.

        Raises:
            FetchError: If nothing is, or nothing that is taken.
        """
        clock = _Clock(self._config.total_timeout)
        checked = parse_address(url)
        for _ in range(self._config.max_redirects + 1):
            async with self._limits.turn(checked.host), clock.running():
                await self._check_host(checked)
                try:
                    answer = await self._ask_once(checked, image)
                except httpx.HTTPError as error:
                    raise _explained(error) from error
            if isinstance(answer, Answer):
                return answer
            checked = answer
        raise FetchError(f"more than {self._config.max_redirects} redirects", "redirects")

    async def _ask_once(self, url: httpx.URL, image: bool) -> Answer | httpx.URL:
        """What is there, or where else it is."""
        async with self._client.stream("GET", url) as response:
            self._check_peer(response, url)
            if response.status_code in _REDIRECTS and "Location" in response.headers:
                return _next_address(url, response.headers["Location"], response.status_code)
            if response.status_code != 200:
                raise self._refusal(response, url.host)
            if directive := opts_out(response.headers.get_list("X-Robots-Tag"), self._config.opt_outs):
                raise FetchError(f"its owner opted out ({directive})", "opt_out", 200)
            content_type = response.headers.get("Content-Type")
            try:
                if image:
                    check_declared_type(content_type)
                content = await self._read(response, image)
            except FetchError as error:
                error.status = 200
                raise
            return Answer(content, str(url), 200, content_type)

    def _refusal(self, response: httpx.Response, host: str) -> FetchError:
        status = response.status_code
        wait = seconds_to_wait(response.headers.get("Retry-After")) if status in (429, 503) else None
        if wait is not None:
            self._limits.pause(host, wait)
        return FetchError(f"the server answered {status}", "status", status, status in _PASSING_STATUS, wait)

    async def _read(self, response: httpx.Response, image: bool) -> bytes:
        """The content, never more of it than is taken, whatever its server says of its length."""
        limit = self._config.max_bytes
        promised = response.headers.get("Content-Length", "")
        declared = int(promised) if promised.isascii() and promised.isdecimal() else None
        if declared is not None and declared > limit:
            raise FetchError(f"more than {limit:,} bytes: the server says {declared:,}", "too_large")
        unpack = _Unpacker(response.headers.get("Content-Encoding", ""), limit)
        content, num_read, is_checked = bytearray(), 0, not image
        async for chunk in response.aiter_raw():
            num_read += len(chunk)
            content += unpack(chunk)
            if len(content) > limit or num_read > limit:
                raise FetchError(f"more than {limit:,} bytes", "too_large")
            if not is_checked and len(content) >= _BEGINNING:
                check_beginning(bytes(content[:_BEGINNING]))
                is_checked = True
        if declared is not None and num_read != declared:
            raise FetchError(f"cut short: {num_read:,} of {declared:,} bytes", "cut_short", may_pass=True)
        unpack.check_end()
        return bytes(content)

    def _is_proxied(self, url: httpx.URL) -> bool:
        proxies = self._proxies.get(url.scheme) or self._proxies.get("all")
        return bool(proxies) and not urllib.request.proxy_bypass(url.host)

    async def _check_host(self, url: httpx.URL) -> None:
        """Look whether a name leads to this machine or its own network; behind a proxy that is the proxy's to do."""
        if self._config.allow_private or (self._is_proxied(url) and not _is_numerical(url.host)):
            return
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise FetchError(f"timed out: no address of {url.host}", "timeout", may_pass=True) from error
        except (socket.gaierror, UnicodeError) as error:
            raise _no_host(error, url.host) from error
        for *_, address in found:
            _check_public(str(address[0]), url.host)

    def _check_peer(self, response: httpx.Response, url: httpx.URL) -> None:
        """The name may have led elsewhere when the connection was made."""
        stream = response.extensions.get("network_stream")
        address = stream.get_extra_info("server_addr") if stream is not None else None
        if address is not None and not self._config.allow_private and not self._is_proxied(url):
            _check_public(str(address[0]), url.host)


class _Unpacker:
    """Unpacks what a server packed though it was asked not to, and no more of it than is taken."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._limit = limit
        self._num_bytes = 0
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FetchError(f"packed as {encoding}, which was not asked for", "encoding")
        self._is_deflate = encoding == "deflate"
        # 32 more bits tell zlib to look for gzip's header or its own.
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding not in ("", "identity") else None

    def __call__(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            return chunk
        room = self._limit - self._num_bytes + 1
        try:
            unpacked = self._decoder.decompress(chunk, room)
        except zlib.error as error:
            if not (self._is_deflate and not self._num_bytes):
                raise FetchError(f"cannot be unpacked: {error}", "encoding") from error
            # Some servers leave out the header.
            self._is_deflate, self._decoder = False, zlib.decompressobj(-zlib.MAX_WBITS)
            return self(chunk)
        self._num_bytes += len(unpacked)
        if self._num_bytes > self._limit:
            raise FetchError(f"more than {self._limit:,} bytes when unpacked", "too_large")
        return unpacked

    def check_end(self) -> None:
        """Raise if something is missing."""
        if self._decoder is not None and not self._decoder.eof:
            raise FetchError("cut short: the packed answer has no end", "cut_short", may_pass=True)


def parse_address(url: str) -> httpx.URL:
    """
    Read an address as it stands in a list, with spaces and letters that a request must not have.

    Args:
        url (`str`): The address.

    Returns:
        `httpx.URL`: The same, as it is asked for.

    Raises:
        FetchError: If it is none of `http` or `https`.
    """
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError, TypeError, AttributeError) as error:
        raise FetchError(f"no address: {error}", "address") from error
    if parsed.scheme not in ("http", "https"):
        raise FetchError(f"not an http address: {url[:200]}", "scheme")
    if not parsed.host:
        raise FetchError(f"no address: {url[:200]} names no server", "address")
    return parsed


def _next_address(url: httpx.URL, location: str, status: int) -> httpx.URL:
    try:
        return parse_address(str(url.join(location)))
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchError(f"redirected to no address: {error}", "address", status) from error
    except FetchError as error:
        raise FetchError(f"redirected to {error}", error.reason, status) from error


def _is_numerical(host: str) -> bool:
    try:
        is_public(host)
    except ValueError:
        return False
    return True


def _check_public(address: str, host: str) -> None:
    if not is_public(address):
        raise FetchError(f"{host} is an address of this machine or its own network ({address})", "private")


def _no_host(error: OSError | UnicodeError, host: str) -> FetchError:
    may_pass = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
    return FetchError(f"there is no server {host}: {error}", "no_host", may_pass=may_pass)


def _explained(error: httpx.HTTPError) -> FetchError:
    """What failed on the way, and whether it may pass."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchError(f"the server cannot show that it is the one: {cause.verify_message}", "certificate")
        if isinstance(cause, socket.gaierror):
            return _no_host(cause, error.request.url.host)
        cause = cause.__cause__ or cause.__context__
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return FetchError(f"timed out: {type(error).__name__}", "timeout", may_pass=True)
    if isinstance(error, httpx.RemoteProtocolError) and "without sending complete" in said:
        return FetchError(f"cut short: {said}", "cut_short", may_pass=True)
    if isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol):
        return FetchError(f"{type(error).__name__}: {said}", "connection", may_pass=True)
    return FetchError(f"{type(error).__name__}: {said}", "failed")
