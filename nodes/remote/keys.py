"""Where API keys live: environment, then a file only this user can read, then the system's keyring if there
is one.

A key is never an input of a node, so it cannot reach a workflow, a picture, the history or an error report.
Nodes carry the name of a profile at most; the key itself is looked up on the server when a request is sent.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import ArtistError, InputError
from ..base.files import write_json
from ..base.sentences import join, say
from .environment import name_key_variable, read_variable
from .errors import NoKey
from .folder import make_private_folder, refuse_folder
from .profiles import check_profile
from .services import find_service, list_services

# In the file, beside the services: keys of the user's own servers, by their names.
OWN_SERVERS = "own servers"
_KEY = re.compile(r"[\x21-\x7e]{8,256}")


@dataclass(frozen=True, repr=False)
class Secret:
    """A key that does not print itself."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"Secret({self.source}, {self.hint})"

    __str__ = __repr__

    @property
    def hint(self) -> str:
        return "..." + self.value[-4:] if len(self.value) >= 16 else "..."


def read_keyring(service: str, profile: str) -> str | None:
    """The key from the operating system's keyring; None without the package, a back end or an entry."""
    try:
        import keyring  # type: ignore[import-not-found,unused-ignore]

        return keyring.get_password("kleinod", f"{service}:{profile}")
    except Exception:  # noqa: BLE001 - back ends fail in every way there is, and the keyring is optional
        return None


class KeyStore:
    """Keys by service and profile. `folder` is ComfyUI's protected user folder of this pack."""

    def __init__(self, folder: Path, keyring: Callable[[str, str], str | None] = read_keyring) -> None:
        self.folder = folder
        self.file = folder / "keys.json"
        self._keyring = keyring

    def find(self, service: str, profile: str = "default") -> Secret:
        """The key of a profile. NoKey, with what to do, if there is none."""
        known = find_service(service)
        if known.own_path:
            return self._find_own(profile)
        variable = name_key_variable(known.key_variable, profile)
        for source, read in (
            ("environment", lambda: read_variable(variable)),
            ("file", lambda: self._read().get(service, {}).get(profile)),
            ("keyring", lambda: self._keyring(service, profile)),
        ):
            value = read()
            if value:
                return Secret(self.check(value), source)
        advice = say(
            "Save one under Settings > Kleinod > API keys, or set the environment variable %1.", variable
        )
        if profile == "default":
            none = say("There is no %1 API key yet, so nothing was sent.", known.title)
            raise NoKey(join(" ", [none, advice]))
        none = say("There is no %1 API key for profile '%2' yet, so nothing was sent.", known.title, profile)
        own = say("If that is a machine of your own, add it under Own servers there.")
        raise NoKey(join(" ", [none, advice, own]))

    def _find_own(self, name: str) -> Secret:
        value = self._read().get(OWN_SERVERS, {}).get(name)
        if not value:
            raise NoKey(
                say(
                    "There is no key for your server '%1', so nothing was sent. Enter its address and key "
                    "under Settings > Kleinod > API keys > Own servers.",
                    name,
                )
            )
        return Secret(self.check(value), "file")

    def hint_own(self) -> dict[str, str]:
        """The ends of the own servers' keys, by name."""
        return {name: Secret(value, "file").hint for name, value in self._read().get(OWN_SERVERS, {}).items()}

    def save_own(self, name: str, key: object) -> None:
        """Store the key of an own server."""
        stored = self._read()
        stored.setdefault(OWN_SERVERS, {})[name] = self.check(key)
        self._write(stored)

    def clear_own(self, name: str) -> None:
        stored = self._read()
        if stored.get(OWN_SERVERS, {}).pop(name, None) is not None:
            self._write(stored)

    def has_profile(self, name: str) -> bool:
        """Whether a paid service has an account of this name."""
        stored = self._read()
        return any(name in stored.get(service.name, {}) for service in list_services())

    def describe(self) -> dict[str, dict[str, dict[str, object]]]:
        """{service: {profile: {"set", "source", "hint"}}}; no key is in it."""
        stored = self._read()
        table: dict[str, dict[str, dict[str, object]]] = {}
        for service in (known.name for known in list_services()):
            table[service] = {}
            for profile in sorted({"default", *stored.get(service, {})}):
                try:
                    secret = self.find(service, profile)
                    table[service][profile] = {"set": True, "source": secret.source, "hint": secret.hint}
                except ArtistError:
                    table[service][profile] = {"set": False, "source": "", "hint": ""}
        return table

    def save(self, service: object, profile: object, key: object) -> None:
        """Store a key in the file, readable by this user alone."""
        stored = self._read()
        known, name = find_service(service), check_profile(profile)
        if name in stored.get(OWN_SERVERS, {}):
            raise InputError(
                say("'%1' is the name of a server of your own. Choose another one for this account.", name)
            )
        stored.setdefault(known.name, {})[name] = self.check(key)
        self._write(stored)

    def clear(self, service: object, profile: object) -> None:
        stored = self._read()
        stored.get(find_service(service).name, {}).pop(check_profile(profile), None)
        self._write(stored)

    def holds(self, text: str) -> bool:
        """Whether a text is, or contains, one of the keys that are set: a key typed into the wrong field."""
        stored = self._read()
        for service in (known.name for known in list_services()):
            for profile in {"default", *stored.get(service, {})}:
                try:
                    if self.find(service, profile).value in text:
                        return True
                except ArtistError:
                    continue
        return any(value in text for value in stored.get(OWN_SERVERS, {}).values())

    @staticmethod
    def check(key: object) -> str:
        """`key`, if it can be one. Raises InputError."""
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise InputError(
                say("An API key is 8 to 256 visible characters without spaces. Copy it again, whole.")
            )
        return key

    def _read(self) -> dict[str, dict[str, str]]:
        """{service: {profile: key}}. InputError for a file that is not safe to use or holds anything else."""
        try:
            if self.file.is_symlink():
                raise InputError(
                    say(
                        "Kleinod's key file is a link to another place, so it was not used. "
                        "Put the file itself into ComfyUI's user/__kleinod folder, "
                        "or delete the link and save the keys again."
                    )
                )
            handle = os.open(self.file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with os.fdopen(handle, encoding="utf-8") as file:
                if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    raise InputError(
                        say(
                            "Other users of this computer can read Kleinod's key file, so it was not used. "
                            "Run 'chmod 600' on keys.json in ComfyUI's user/__kleinod folder, "
                            "and consider changing the keys."
                        )
                    )
                stored = json.load(file)
        except InputError:
            raise
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(
                say(
                    "Kleinod's key file cannot be read (%1). Look at "
                    "keys.json in ComfyUI's user/__kleinod folder.",
                    error.strerror or type(error).__name__,
                )
            ) from None
        except (ValueError, RecursionError):
            stored = None
        if not _is_table(stored):
            raise InputError(
                say(
                    "Kleinod's key file is damaged. Delete keys.json in ComfyUI's user/__kleinod folder "
                    "and save the keys again."
                )
            )
        return stored

    def _write(self, stored: dict[str, dict[str, str]]) -> None:
        try:
            make_private_folder(self.folder)
            write_json(self.file, stored)
        except OSError as error:
            raise refuse_folder(self.folder, error) from None


def _is_table(stored: object) -> bool:
    return isinstance(stored, dict) and all(
        isinstance(profiles, dict) and all(isinstance(key, str) for key in profiles.values())
        for profiles in stored.values()
    )
