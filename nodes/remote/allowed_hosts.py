"""Hosts the user lets pictures come from, beyond a service's own: a small file beside the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from ..base.files import write_json
from ..base.sentences import say
from .folder import make_private_folder
from .hosts import HOST_NAME
from .services import find_service, list_services

_MAX_HOSTS = 32


class AllowedHosts:
    """The lists by service. `folder` is the pack's protected user folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "hosts.json"

    def read(self, service: str) -> frozenset[str]:
        """The allowed hosts; none where the file is missing or damaged, nor for the user's own servers."""
        return frozenset(self.describe().get(service, []))

    def describe(self) -> dict[str, list[str]]:
        """{service: [host, ...]} of every service."""
        try:
            stored = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        stored = stored if isinstance(stored, dict) else {}
        return {service.name: _keep_hosts(stored.get(service.name)) for service in list_services()}

    def write(self, service: str, hosts: Any) -> dict[str, list[str]]:
        """Replace a service's list. Raises InputError for anything that is no public host's name."""
        find_service(service)
        if not isinstance(hosts, list) or len(hosts) > _MAX_HOSTS:
            raise InputError(say("The picture hosts are a list of at most %1 names.", _MAX_HOSTS))
        names = [host.strip().lower() if isinstance(host, str) else "" for host in hosts]
        for given, name in zip(hosts, names, strict=True):
            if not HOST_NAME.fullmatch(name):
                raise InputError(
                    say(
                        "'%1' is no name of a host. Write it as it stands in the address, between https:// "
                        "and the next slash, such as images.example.com.",
                        given,
                    )
                )
        stored = self.describe() | {service: sorted(set(names))}
        make_private_folder(self.file.parent)
        write_json(self.file, stored)
        return stored


def _keep_hosts(names: Any) -> list[str]:
    names = names if isinstance(names, list) else []
    return [name for name in names if isinstance(name, str) and HOST_NAME.fullmatch(name)]
