"""Servers of the user's own, by name: a small file beside the keys. A node's `profile` may name one.

Only here may an address be of a private network, and only with the user's word may it be without encryption.
A server's key lies with the other keys, under the server's name, and is given together with the address: who
changes the address has to know the key.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..base.addresses import is_loopback
from ..base.errors import InputError
from ..base.files import write_json
from ..base.sentences import say
from .errors import Refused
from .folder import make_private_folder, refuse_folder
from .hosts import Endpoint
from .keys import KeyStore
from .profiles import check_profile
from .services import find_own, find_service
from .services.base import Service

API_PATH = "/kleinod/api"
# What may be pasted: any of the three addresses that the server shows.
_ENDINGS = ("/runware/v1", "/runware", "/bfl/v1", "/bfl", "/openai/v1", "/openai")
_MAX_SERVERS = 64


@dataclass(frozen=True)
class OwnServer:
    """address: of its API, such as "http://192.168.1.20:8188/kleinod/api"."""

    name: str
    address: str

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    def find_endpoint(self, service: Service) -> Endpoint:
        """Where it answers in the place of `service`."""
        base = self.address + service.own_path
        return Endpoint(service, base, base)


class OwnServers:
    """The servers of one folder, which `keys` keeps, too. own_port: of this ComfyUI, 0 for none."""

    def __init__(self, keys: KeyStore, own_port: int = 0) -> None:
        self.keys, self.own_port = keys, own_port
        self.file = keys.folder / "servers.json"

    def find(self, name: str) -> OwnServer | None:
        return self._read().get(name)

    def describe(self) -> list[dict[str, str]]:
        """[{"name", "address", "hint"}], without keys."""
        hints = self.keys.hint_own()
        return [
            {"name": server.name, "address": server.address, "hint": hints.get(server.name, "")}
            for server in self._read().values()
        ]

    def save(self, name: object, address: object, key: object, plain: object) -> None:
        """Store a server and its key. plain: whether no encryption is all right. Raises InputError."""
        name = check_profile(name)
        if name == "default" or self.keys.has_profile(name):
            raise InputError(
                say(
                    "The name '%1' is that of an account whose API key is stored here. "
                    "Choose another one, such as workstation.",
                    name,
                )
            )
        address = check_address(address, plain is True)
        parts = urlsplit(address)
        if self.own_port and parts.port == self.own_port and is_this_machine(parts.hostname or ""):
            raise InputError(
                say(
                    "%1 is this very ComfyUI: a node would wait for its own queue for ever. "
                    "To draw here, use Klein Sampler; enter the address of another machine.",
                    parts.netloc,
                )
            )
        self.keys.check(key)
        servers = self._read()
        if len(servers) >= _MAX_SERVERS and name not in servers:
            raise InputError(say("There are %1 servers already: clear one first.", _MAX_SERVERS))
        self.keys.clear_own(name)  # never an old key at a new address
        self._write({**servers, name: OwnServer(name, address)})
        self.keys.save_own(name, key)

    def clear(self, name: object) -> None:
        name = check_profile(name)
        servers = self._read()
        servers.pop(name, None)
        self.keys.clear_own(name)
        self._write(servers)

    def find_endpoint(self, service_name: str, profile: str, base: str = "") -> Endpoint:
        """Where a job of an own server goes. base: where it was, or is to be, sent to. Raises Refused."""
        server = self.find(profile)
        if server is None:
            raise Refused(
                say(
                    "There is no server named '%1' any more, so nothing was sent. "
                    "Add it under Settings > Kleinod > API keys > Own servers.",
                    profile,
                )
            )
        endpoint = server.find_endpoint(find_service(service_name))
        if base and endpoint.base != base:
            raise Refused(
                say(
                    "This job went to %1, but '%2' is now %3, so nothing was sent. "
                    "Enter the former address again under Settings > Kleinod > API keys > Own servers, "
                    "or order the picture anew.",
                    urlsplit(base).netloc,
                    profile,
                    server.host,
                )
            )
        return endpoint

    def place(self, service_name: str, profile: str) -> Endpoint | None:
        """Where a node with this profile sends to; None for the paid service itself."""
        server = self.find(profile)
        own = find_own(service_name) if server is not None else None
        return None if server is None or own is None else server.find_endpoint(own)

    def _read(self) -> dict[str, OwnServer]:
        try:
            stored = json.loads(self.file.read_text(encoding="utf-8"))
            return {name: OwnServer(name, _check_stored(entry)) for name, entry in stored.items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, AttributeError):
            raise InputError(
                say(
                    "The list of your own servers is damaged. "
                    "Delete servers.json in ComfyUI's user/__kleinod folder and enter them again."
                )
            ) from None

    def _write(self, servers: Mapping[str, OwnServer]) -> None:
        folder: Path = self.keys.folder
        try:
            make_private_folder(folder)
            write_json(self.file, {name: {"address": server.address} for name, server in servers.items()})
        except OSError as error:
            raise refuse_folder(folder, error) from None


def is_this_machine(host: str) -> bool:
    """Whether an address can be listened at here."""
    try:
        for family, kind, _, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as listener:
                listener.bind(place)
            return True
    except OSError:
        pass
    return False


def _check_stored(entry: Any) -> str:
    return check_address(entry.get("address"), plain=True)  # the word was given when it was stored


def check_address(address: object, plain: bool) -> str:
    """The API's address from what a user pastes: its host alone, its page, or one of the addresses it shows.
    Raises InputError.
    """
    text = address.strip().rstrip("/") if isinstance(address, str) else ""
    if text and "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if (
        parts.scheme not in ("http", "https")
        or not host
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not text.isprintable()
        or " " in text
        or len(text) > 500
    ):
        raise InputError(
            say(
                "address is '%1', but must be that of a ComfyUI with Kleinod, such as "
                "http://192.168.1.20:8188 or https://pictures.example.com.",
                text[:80],
            )
        )
    if parts.scheme == "http" and not plain and not is_loopback(host):
        raise InputError(
            say(
                "%1 would be asked without encryption: everybody on the way could read the key, "
                "the prompts and the pictures. Tick the box that allows it, on a network that you trust, "
                "or give an address that begins with https://.",
                parts.netloc,
            )
        )
    path = next((parts.path[: -len(end)] for end in _ENDINGS if parts.path.endswith(end)), parts.path)
    return f"{parts.scheme}://{parts.netloc}{path or API_PATH}"
