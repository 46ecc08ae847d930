"""A single HTTP request: its turn at the server, redirects, the check of each server, and a bounded response."""

import asyncio
import socket
import ssl
import time
import urllib.request
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

from huggingface_hub.utils import httpx

from .checks import check_beginning, check_declared_type, is_public, opts_out, seconds_to_wait
from .config import FetchConfig, FetchError


# Statuses that may pass: slow, too many requests, and the server's own faults.
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Idle servers that are kept in memory.
_MAX_IDLE_HOSTS = 4096
# Bytes that are checked before the rest is read.
_BEGINNING = 1024


@dataclass
class _Host:
    slots: asyncio.Semaphore
    users: int = 0
    # When the next request may be sent, for our own delay, and for `Retry-After`.
    not_before: float = 0.0
    closed_until: float = 0.0


class HostLimits:
    """Limits the requests to each server and in all."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._slots = asyncio.Semaphore(config.num_connections)
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait until a request to a server may be sent, and hold the connection."""
        state = self._hosts.setdefault(host, _Host(asyncio.Semaphore(self._config.connections_per_host)))
        self._hosts.move_to_end(host)
        state.users += 1
        try:
            async with state.slots:
                while (wait := max(state.not_before, state.closed_until) - time.monotonic()) > 0:
                    if (rest := state.closed_until - time.monotonic()) > self._config.max_wait:
                        raise FetchError(f"{host} requested a pause of another {rest:,.0f} s")
                    await asyncio.sleep(wait)
                state.not_before = time.monotonic() + self._config.host_delay
                async with self._slots:
                    yield
        finally:
            state.users -= 1
            self._forget()

    def pause(self, host: str, seconds: float) -> None:
        """Send no requests to a server for a while."""
        if state := self._hosts.get(host):
            state.closed_until = max(state.closed_until, time.monotonic() + seconds)

    def _forget(self) -> None:
        now = time.monotonic()
        for host in list(self._hosts)[: max(0, len(self._hosts) - _MAX_IDLE_HOSTS)]:
            state = self._hosts[host]
            if not state.users and max(state.not_before, state.closed_until) < now:
                del self._hosts[host]


class RequestSender:
    """Sends requests; each of its methods runs in one event loop."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._limits = HostLimits(config)
        self._proxies = urllib.request.getproxies()
        self._client = httpx.AsyncClient(
            # No compression: images are compressed already.
            headers={"User-Agent": config.agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(
                config.read_timeout, connect=config.connect_timeout, pool=config.total_timeout + config.max_wait
            ),
            limits=httpx.Limits(max_connections=config.num_connections, keepalive_expiry=5.0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # none are kept
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def send(self, url: str, image: bool) -> bytes:
        """
        Send a request, once, and follow its redirects; return the unpacked content of the response.

        Raises:
            FetchError: If there is no response with content, or it is refused.
        """
        parsed = parse_url(url)
        left = self._config.total_timeout  # waiting for a turn does not count
        for _ in range(self._config.max_redirects + 1):
            async with self._limits.turn(parsed.host):
                started = time.monotonic()
                try:
                    async with asyncio.timeout(left):
                        await self._check_host(parsed)
                        response = await self._send_once(parsed, image)
                except TimeoutError as error:
                    message = f"timed out: more than {self._config.total_timeout:g} s in all"
                    raise FetchError(message, may_pass=True) from error
                except httpx.HTTPError as error:
                    raise _explained(error) from error
            left -= time.monotonic() - started
            if isinstance(response, bytes):
                return response
            parsed = response
        raise FetchError(f"more than {self._config.max_redirects} redirects")

    async def _send_once(self, url: httpx.URL, image: bool) -> bytes | httpx.URL:
        """The content, or the URL of a redirect."""
        async with self._client.stream("GET", url) as response:
            self._check_peer(response, url)
            status = response.status_code
            if status in _REDIRECTS and "Location" in response.headers:
                return _redirected(url, response.headers["Location"])
            if status != 200:
                wait = seconds_to_wait(response.headers.get("Retry-After")) if status in (429, 503) else None
                if wait is not None:
                    self._limits.pause(url.host, wait)
                raise FetchError(f"the server answered {status}", status in _PASSING_STATUS, wait)
            if directive := opts_out(response.headers.get_list("X-Robots-Tag"), self._config.opt_outs):
                raise FetchError(f"its owner opted out ({directive})")
            if image:
                check_declared_type(response.headers.get("Content-Type"))
            return await self._read(response, image)

    async def _read(self, response: httpx.Response, image: bool) -> bytes:
        """The content, never more of it than the limit, whatever length the server declares."""
        limit = self._config.max_bytes
        header = response.headers.get("Content-Length", "")
        declared = int(header) if header.isascii() and header.isdecimal() else None
        if declared is not None and declared > limit:
            raise FetchError(f"more than {limit:,} bytes: the server declares {declared:,}")
        unpack = _Unpacker(response.headers.get("Content-Encoding", ""), limit)
        content, num_read, is_checked = bytearray(), 0, not image
        async for chunk in response.aiter_raw():
            num_read += len(chunk)
            content += unpack(chunk)
            if len(content) > limit or num_read > limit:
                raise FetchError(f"more than {limit:,} bytes")
            if not is_checked and len(content) >= _BEGINNING:
                check_beginning(bytes(content[:_BEGINNING]))
                is_checked = True
        if declared is not None and num_read != declared:
            raise FetchError(f"cut short: {num_read:,} of {declared:,} bytes", may_pass=True)
        unpack.check_end()
        return bytes(content)

    def _is_proxied(self, url: httpx.URL) -> bool:
        proxies = self._proxies.get(url.scheme) or self._proxies.get("all")
        return bool(proxies) and not urllib.request.proxy_bypass(url.host)

    async def _check_host(self, url: httpx.URL) -> None:
        """Refuse a name of this machine or its own network; behind a proxy, the proxy resolves names."""
        if self._config.allow_private or (self._is_proxied(url) and not _is_numerical(url.host)):
            return
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise FetchError(f"timed out: no IP address of {url.host}", may_pass=True) from error
        except (socket.gaierror, UnicodeError) as error:
            raise _no_host(error, url.host) from error
        for *_, address in found:
            _check_public(str(address[0]), url.host)

    def _check_peer(self, response: httpx.Response, url: httpx.URL) -> None:
        """Check the server of the connection: the name may have been resolved to another since."""
        stream = response.extensions.get("network_stream")
        address = stream.get_extra_info("server_addr") if stream is not None else None
        if address is not None and not self._config.allow_private and not self._is_proxied(url):
            _check_public(str(address[0]), url.host)


class _Unpacker:
    """Unpacks what a server compressed against the request, up to a limit."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._limit = self._left = limit
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FetchError(f"compressed as {encoding}, which was not requested")
        # 32 more bits tell zlib to look for the header of gzip or its own.
        self._decoder = None if encoding in ("", "identity") else zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._may_lack_header = encoding == "deflate"

    def __call__(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            return chunk
        try:
            unpacked = self._decoder.decompress(chunk, self._left + 1)
        except zlib.error as error:
            if not self._may_lack_header:
                raise FetchError(f"cannot be unpacked: {error}") from error
            self._may_lack_header, self._decoder = False, zlib.decompressobj(-zlib.MAX_WBITS)
            return self(chunk)
        self._may_lack_header = self._may_lack_header and not unpacked
        if len(unpacked) > self._left:
            raise FetchError(f"more than {self._limit:,} bytes when unpacked")
        self._left -= len(unpacked)
        return unpacked

    def check_end(self) -> None:
        """Raise if something is missing."""
        if self._decoder is not None and not self._decoder.eof:
            raise FetchError("cut short: the compressed response has no end", may_pass=True)


def parse_url(url: str) -> httpx.URL:
    """
    Parse a URL of a list, which may have spaces and letters that a request must not have.

    Raises:
        FetchError: If it is none of `http` or `https`.
    """
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError, TypeError, AttributeError) as error:
        raise FetchError(f"not a URL: {error}") from error
    if parsed.scheme not in ("http", "https"):
        raise FetchError(f"not an http URL: {url[:200]}")
    if not parsed.host:
        raise FetchError(f"not a URL: {url[:200]} names no server")
    return parsed


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return parse_url(str(url.join(location)))
    except (httpx.InvalidURL, ValueError, FetchError) as error:
        raise FetchError(f"redirected to {error}") from error


def _is_numerical(host: str) -> bool:
    try:
        is_public(host)
    except ValueError:
        return False
    return True


def _check_public(address: str, host: str) -> None:
    if not is_public(address):
        raise FetchError(f"{host} is this machine or in its own network ({address})")


def _no_host(error: OSError | UnicodeError, host: str) -> FetchError:
    may_pass = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
    return FetchError(f"there is no server {host}: {error}", may_pass)


def _explained(error: httpx.HTTPError) -> FetchError:
    """The cause of a failed request, and whether it may pass."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchError(f"the server has no valid certificate: {cause.verify_message}")
        if isinstance(cause, socket.gaierror):
            return _no_host(cause, error.request.url.host)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return FetchError(f"timed out: {type(error).__name__}", may_pass=True)
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.RemoteProtocolError) and "without sending complete" in text:
        return FetchError(f"cut short: {text}", may_pass=True)
    may_pass = isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    return FetchError(f"{type(error).__name__}: {text}", may_pass)
