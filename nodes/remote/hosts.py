"""Which address may see a key, and from which one a picture may come.

A key is bound to the hosts of its own service, over https and the standard port. The one exception is an
address of this machine given by environment variable (an emulator), which then replaces the service
altogether.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from .environment import read_address
from .errors import Unsafe

BFL_REGIONS = {"global": "https://api.bfl.ai", "eu": "https://api.eu.bfl.ai", "us": "https://api.us.bfl.ai"}


@dataclass(frozen=True)
class Service:
    """A paid service: where it is, and which hosts belong to it.

    override: the address that replaces `address` (loopback only), "" in ordinary life.
    """

    name: str
    title: str
    address: str
    key_hosts: re.Pattern[str]
    picture_hosts: re.Pattern[str]
    key_page: str
    override: str = ""

    @property
    def base(self) -> str:
        return self.override or self.address

    def check_key_url(self, url: str) -> str:
        """`url`, if the key may be sent there."""
        return self._check(url, self.key_hosts, "was asked to send the API key to")

    def check_picture_url(self, url: str) -> str:
        """`url`, if a picture may be fetched from there."""
        return self._check(url, self.picture_hosts, "was told to fetch a picture from")

    def _check(self, url: str, hosts: re.Pattern[str], doing: str) -> str:
        parts = _split(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if self.override and origin == self.override:
            return url
        host = parts.hostname or ""
        safe = parts.scheme == "https" and "@" not in parts.netloc and (parts.port or 443) == 443
        if not (safe and hosts.fullmatch(host)):
            raise Unsafe(
                f"{self.title} answered with an address that is not its own: Kleinod {doing} {origin} and "
                f"refused."
            )
        return url


RUNWARE = Service(
    "runware",
    "Runware",
    "https://api.runware.ai",
    re.compile(r"api\.runware\.ai"),
    re.compile(r"(im|vm)\.runware\.ai"),
    "https://my.runware.ai",
)
BFL = Service(
    "bfl",
    "BFL",
    BFL_REGIONS["global"],
    re.compile(r"api(\.[a-z]{2}\d?)?\.bfl\.ai|api(\.[a-z]{2}\d?)?\.bfl\.ml"),
    re.compile(
        r"([a-z0-9-]+\.)?delivery[a-z0-9-]*(\.[a-z0-9-]+)?\.bfl\.ai|bfldelivery[a-z0-9]*\.blob\.core\.windows\.net"
    ),
    "https://dashboard.bfl.ai",
)
SERVICES = {"runware": RUNWARE, "bfl": BFL}


def find_service(name: str, region: str = "global") -> Service:
    """The service as it is to be used now: region chosen, and replaced by an emulator if one is set up."""
    service = SERVICES[name]
    if name == "bfl":
        service = replace(service, address=BFL_REGIONS[region])
    override = read_address(name)
    return service if override is None else replace(service, override=_check_override(override))


def _check_override(address: str) -> str:
    parts = _split(address)
    if parts.path or parts.query or "@" in parts.netloc or not is_loopback(parts.hostname or ""):
        raise Unsafe(
            f"The address '{address}' from the environment must be this machine's own, such as "
            "http://127.0.0.1:8080 without a path. Correct or remove the variable."
        )
    return address


def _split(url: str):
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise Unsafe("The service answered with an address that cannot be read; it was refused.") from None
    return parts


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_public(host: str) -> None:
    """Refuses a host that resolves to a private, loopback, link-local or otherwise special address."""
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except OSError:
        return  # the connection itself will fail, and say so
    for *_, place in found:
        if not ipaddress.ip_address(place[0].partition("%")[0]).is_global:
            raise Unsafe(
                f"{host} leads to a private network address ({place[0]}); the picture was not fetched."
            )
