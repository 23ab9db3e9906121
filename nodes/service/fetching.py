"""Addresses that requests name: pictures fetched, results put, webhooks called; public ones only.

The check sits in the resolver, so that what was checked is what is connected to: a name that leads elsewhere
a moment later gains nothing. Redirects are followed by hand, each as a new address, and only for pictures.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from .messages import Refusal

MAX_ADDRESS = 2083
MAX_PICTURE_BYTES = 20 << 20
_REDIRECTS = 3
_SECONDS = 30.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class NotReached(Exception):
    """The other side did not take or give what it should: worth another try."""


def check_address(address: Any, name: str, reachable: Collection[str] = ()) -> str:
    """`address` where it can be one, as a request's field `name`. What it leads to is checked when it is
    connected to; a literal private address is refused here. Raises Refusal.
    """
    problem = "must be an http or https address with a host and without a password"
    try:
        parts = urlsplit(address) if isinstance(address, str) else urlsplit("")
        sound = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and len(address) <= MAX_ADDRESS
            and address.isprintable()
            and " " not in address
        )
        _ = parts.port
    except ValueError:
        sound = False
    if sound and not _is_reachable(parts.hostname or "", parts.netloc, reachable):
        literal = _read_literal(parts.hostname or "")
        if parts.hostname == "localhost" or (literal is not None and not is_public(literal)):
            sound, problem = False, "leads to a private network, which this server does not visit"
    if not sound:
        raise Refusal(400, "invalid" + name[:1].upper() + name[1:], f"'{name}' {problem}.", name)
    return str(address)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is of the public network, also one that wraps another."""
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if address in _NAT64:
        mapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return (mapped or address).is_global and not address.is_multicast


class Fetcher:
    """One for the service. reachable: hosts ("name" or "name:port") that the owner allows though private."""

    def __init__(self, reachable: Collection[str] = (), seconds: float = _SECONDS) -> None:
        self._reachable = frozenset(entry.lower() for entry in reachable)
        self._seconds = seconds

    async def fetch_picture(self, address: str, name: str) -> bytes:
        """The bytes behind an address. Raises Refusal, naming the field."""
        for _ in range(_REDIRECTS + 1):
            check_address(address, name, self._reachable)
            try:
                async with (
                    self._session(address) as session,
                    session.get(address, allow_redirects=False) as answer,
                ):
                    if 300 <= answer.status < 400 and "Location" in answer.headers:
                        address = urljoin(address, answer.headers["Location"])
                        continue
                    if answer.status != 200:
                        raise _refuse(name, f"answered HTTP {answer.status}")
                    data = bytearray()
                    async for part in answer.content.iter_chunked(1 << 16):
                        data += part
                        if len(data) > MAX_PICTURE_BYTES:
                            raise _refuse(name, f"sent more than {MAX_PICTURE_BYTES >> 20} MB")
                    return bytes(data)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
                raise _refuse(name, "could not be fetched") from None
        raise _refuse(name, "was redirected too often")

    async def send(self, method: str, address: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a body; no redirect is followed. Raises NotReached unless it is taken (2xx)."""
        try:
            check_address(address, "address", self._reachable)
            async with (
                self._session(address) as session,
                session.request(method, address, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                if not 200 <= answer.status < 300:
                    raise NotReached(f"HTTP {answer.status}")
        except Refusal as error:
            raise NotReached(error.message) from None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise NotReached(type(error).__name__) from None

    def _session(self, address: str) -> aiohttp.ClientSession:
        parts = urlsplit(address)
        allowed = _is_reachable(parts.hostname or "", parts.netloc, self._reachable)
        resolver: AbstractResolver = ThreadedResolver() if allowed else _PublicResolver()
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True),
            timeout=aiohttp.ClientTimeout(total=self._seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "kleinod", "Accept-Encoding": "identity"},
        )


class _PublicResolver(AbstractResolver):
    """Names to addresses, of which one that is not public spoils all."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for place in found:
            if not is_public(ipaddress.ip_address(place["host"].partition("%")[0])):
                raise OSError("The name leads to a private network.")
        return found

    async def close(self) -> None:
        await self._inner.close()


def _is_reachable(host: str, place: str, reachable: Collection[str]) -> bool:
    return host.lower() in reachable or place.lower() in reachable


def _read_literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _refuse(name: str, words: str) -> Refusal:
    return Refusal(400, "downloadFailed", f"The address in '{name}' {words}.", name)
