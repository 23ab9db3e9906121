"""Files of results and of clients' pictures. Names are made here: no text of a request becomes a path."""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from pathlib import Path

from ..base.files import write_bytes
from ..remote.folder import make_private_folder
from ..remote.images import sniff

_NAME = re.compile(r"[0-9a-f-]{16,64}\.(png|jpg|webp)")
_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_YOUNG_SECONDS = 600.0
"""A picture of a client that no job names yet may belong to one that is just being accepted."""


class Store:
    """`results` and `inputs` below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._results = make_private_folder(folder / "results")
        self._inputs = make_private_folder(folder / "inputs")

    def keep_result(self, picture_id: str, data: bytes) -> str:
        """The name of a finished picture's file. Raises OSError."""
        name = f"{picture_id}.{_ENDINGS[sniff(data) or 'PNG']}"
        write_bytes(self._results / name, data)
        return name

    def keep_input(self, data: bytes) -> str:
        """The name of a client's picture: the same for the same bytes. Raises OSError."""
        name = f"{hashlib.sha256(data).hexdigest()[:48]}.{_ENDINGS[sniff(data) or 'PNG']}"
        file = self._inputs / name
        if file.exists():
            file.touch()
        else:
            write_bytes(file, data)
        return name

    def read_result(self, name: str) -> bytes | None:
        return _read(self._results, name)

    def read_input(self, name: str) -> bytes | None:
        return _read(self._inputs, name)

    def drop_result(self, name: str) -> None:
        if _NAME.fullmatch(name):
            (self._results / name).unlink(missing_ok=True)

    def drop_inputs(self, used: set[str]) -> None:
        """Clients' pictures that nothing needs any more, and what a killed writer left."""
        for file in self._inputs.iterdir():
            with suppress(OSError):
                if file.name not in used and time.time() - file.stat().st_mtime > _YOUNG_SECONDS:
                    file.unlink()

    def drop_results(self, used: set[str]) -> None:
        """Results that no picture has. used: files, and ids of pictures whose file is just being made."""
        for file in self._results.iterdir():
            with suppress(OSError):
                if not {file.name, file.stem} & used and time.time() - file.stat().st_mtime > _YOUNG_SECONDS:
                    file.unlink()

    def size(self) -> int:
        """Bytes of all results."""
        total = 0
        for file in self._results.iterdir():
            with suppress(OSError):
                total += file.stat().st_size
        return total


def _read(folder: Path, name: str) -> bytes | None:
    if not _NAME.fullmatch(name):
        return None
    try:
        return (folder / name).read_bytes()
    except OSError:
        return None
