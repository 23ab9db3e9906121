"""How the owner wants the API to answer: a small file beside its jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from ..base.files import write_json
from ..base.sentences import Sentence, say
from ..remote.folder import make_private_folder

FILE = "api.json"
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9a-fA-F:]{2,45}\](:\d{1,5})?")


@dataclass(frozen=True)
class ApiSettings:
    """enabled: whether anything is answered. remote: whether other machines are, too. hosts: names, beside
    this machine's addresses, under which it is asked. public_address: what results' addresses begin with,
    behind a proxy. reachable: private hosts ("nas.local", "10.0.0.7:8080") that requests may name.

    picture_usd, second_usd: the price that `includeCost` tells. models: file by model name. loras: file by
    AIR id. stand_in: whether klein-nano draws where there are no weights. keep_seconds: how long results and
    jobs stay. keep_bytes: how much all results may take. most_open: pictures that may wait.

    classifier: folder of an image classifier for `safety.checkContent`, "" for none. flagged: those of its
    labels that are not safe, where their names do not say so.
    """

    enabled: bool = False
    remote: bool = False
    hosts: tuple[str, ...] = ()
    public_address: str = ""
    reachable: tuple[str, ...] = ()
    picture_usd: float = 0.0
    second_usd: float = 0.0
    models: Mapping[str, str] = field(default_factory=dict)
    loras: Mapping[str, str] = field(default_factory=dict)
    stand_in: bool = True
    keep_seconds: int = 86400
    keep_bytes: int = 2 << 30
    most_open: int = 10000
    classifier: str = ""
    flagged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("enabled", "remote", "stand_in"):
            if not isinstance(getattr(self, name), bool):
                raise _refuse(name, say("true or false"))
        for name in ("hosts", "reachable"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(
                isinstance(v, str) and _HOST.fullmatch(v) for v in value
            ):
                raise _refuse(name, say("a list of names such as nas.local"))
        for name in ("models", "loras"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
                raise _refuse(name, say("an object of file names"))
        for name, low in (
            ("picture_usd", 0), ("second_usd", 0), ("keep_seconds", 60), ("keep_bytes", 1 << 20),
            ("most_open", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < 1e15:
                raise _refuse(name, say("%1 or more", low))
        if not isinstance(self.classifier, str):
            raise _refuse("classifier", say("a folder"))
        if not isinstance(self.flagged, tuple):
            raise _refuse("flagged", say("a list of labels"))
        if self.public_address and not re.fullmatch(r"https?://[^\s/?#@]+(/[\w./-]*)?", self.public_address):
            raise _refuse("public_address", say("an address such as https://pictures.example.com"))


def _refuse(name: str, words: Sentence) -> InputError:
    return InputError(say("%1 of the API's settings must be %2.", name, words))


def read_settings(folder: Path) -> ApiSettings:
    """What is stored; the defaults, which answer nobody, where nothing is. Raises InputError for a file that
    is none of ours: an API must not open by accident.
    """
    try:
        stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ApiSettings()
    except (OSError, ValueError) as error:
        raise InputError(
            say("The settings of Kleinod's API cannot be read (%1): set them again.", error)
        ) from None
    return make_settings(stored)


def make_settings(values: Any, present: ApiSettings | None = None) -> ApiSettings:
    """`values` over `present`. Raises InputError."""
    names = {entry.name for entry in fields(ApiSettings)}
    if not isinstance(values, dict) or set(values) - names:
        raise InputError(say("The API's settings are %1.", ", ".join(sorted(names))))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return ApiSettings(**{**vars(present or ApiSettings()), **values})


def write_settings(folder: Path, settings: ApiSettings) -> None:
    make_private_folder(folder)
    write_json(folder / FILE, asdict(settings), indent=2)
