"""Which address may see a key, and from which one a picture may come.

A key is bound to the hosts of its own service, over https and the standard port. The one exception is an
address of this machine given by environment variable (an emulator), which then replaces the service
altogether. A picture may also come from a host that the user has allowed for this service.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from ..base.addresses import is_loopback
from ..base.sentences import say
from .environment import read_address
from .errors import UnknownHost, Unsafe

if TYPE_CHECKING:
    from .services.base import Service

HOST_NAME = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_SHOWN = 2000


@dataclass(frozen=True)
class Endpoint:
    """A service at the address where it is to be used now.

    override: the address that replaces `address`: of an emulator on this machine, or of a server of the
    user's own, which alone may be private; "" in ordinary life.
    """

    service: Service
    address: str
    override: str = ""

    @property
    def base(self) -> str:
        return self.override or self.address

    def check_key_url(self, url: str) -> str:
        """`url`, if the key may be sent there. Raises Unsafe."""
        parts = _split(url)
        own = _is_plain(parts) and _matches(self.service.key_hosts, parts)
        if not (own or self.is_override(url)):
            raise Unsafe(
                say(
                    "%1 answered with an address that is not its own: Kleinod was asked to "
                    "send the API key to %2 and refused.",
                    self.service.title,
                    _name_origin(parts),
                )
            )
        return url

    def check_picture_url(self, url: str, allowed: frozenset[str] = frozenset()) -> str:
        """`url`, if a picture may be fetched from there. Raises Unsafe, or UnknownHost where the user may
        allow the host.
        """
        parts = _split(url)
        if self.is_override(url):
            return url
        if self.service.own_path:
            raise Unsafe(
                say(
                    "%1 put the picture on %2, which is not the address it "
                    "has here. Enter that one under Settings > Kleinod > API keys > Own servers, or clear "
                    "public_address in the settings of its API.",
                    self.service.title,
                    _name_origin(parts),
                )
            )
        host = (parts.hostname or "").lower()
        if not _is_plain(parts) or not HOST_NAME.fullmatch(host):
            raise Unsafe(
                say(
                    "%1 answered with an address that is not its own: Kleinod was told to "
                    "fetch a picture from %2 and refused.",
                    self.service.title,
                    _name_origin(parts),
                )
            )
        if not _matches(self.service.picture_hosts, parts) and host not in allowed:
            raise UnknownHost(
                say(
                    "%1 put the picture on the host %2, which Kleinod does not know. If "
                    "you trust it, add %2 under Settings > Kleinod > Picture hosts and queue again: the job "
                    "is not paid twice. You can also open the picture yourself, as long as its address is "
                    "valid: %3",
                    self.service.title,
                    host,
                    url[:_MAX_SHOWN],
                )
            )
        return url

    def is_override(self, url: str) -> bool:
        """Whether an address belongs to what replaces the service."""
        return bool(self.override) and _name_origin(_split(url)) == _name_origin(_split(self.override))

    @functools.cached_property
    def is_near(self) -> bool:
        """Whether it is a server of a private network, to which no proxy of the environment leads."""
        return bool(self.service.own_path) and is_private(urlsplit(self.override).hostname or "")


def make_endpoint(service: Service, region: str = "") -> Endpoint:
    """The service as it is to be used now: region chosen, and replaced by an emulator if one is set up."""
    address = service.regions.get(region) or next(iter(service.regions.values()))
    override = read_address(service.address_variable)
    return Endpoint(service, address, "" if override is None else _check_override(override))


def make_endpoint_at(service: Service, base: str) -> Endpoint:
    """The service where an earlier job was sent to."""
    endpoint = make_endpoint(service)
    if endpoint.override or base not in service.regions.values():
        return endpoint
    return replace(endpoint, address=base)


def _is_plain(parts: SplitResult) -> bool:
    return parts.scheme == "https" and "@" not in parts.netloc and (parts.port or 443) == 443


def _matches(hosts: re.Pattern[str], parts: SplitResult) -> bool:
    return hosts.fullmatch(parts.hostname or "") is not None


def _name_origin(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc}"[:200]


def _check_override(address: str) -> str:
    parts = _split(address)
    if parts.query or parts.fragment or "@" in parts.netloc or not is_loopback(parts.hostname or ""):
        raise Unsafe(
            say(
                "The address '%1' from the environment must be this machine's own, such as "
                "http://127.0.0.1:8080 or http://127.0.0.1:8188/kleinod/api/runware. Correct or remove the "
                "variable.",
                address,
            )
        )
    return address


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise Unsafe(
            say("The service answered with an address that cannot be read; it was refused.")
        ) from None
    return parts


def is_private(host: str) -> bool:
    """Whether a name leads to a network that is not public."""
    return bool(_find_private(host))


def check_public(host: str) -> None:
    """Refuses a host that resolves to a private, loopback, link-local or otherwise special address."""
    address = _find_private(host)
    if address:
        raise Unsafe(
            say("%1 leads to a private network address (%2); the picture was not fetched.", host, address)
        )


def _find_private(host: str) -> str:
    """The first address of a name that is not a public one; "" where there is none."""
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except OSError:
        return ""  # the connection itself will fail, and say so
    addresses = (str(place[0]) for *_, place in found)
    return next((one for one in addresses if not ipaddress.ip_address(one.partition("%")[0]).is_global), "")
