"""Finding the file a row means: by name, by a name that moved, by hash.

A found file is always the one the row means or a plain sentence: no name is matched by resemblance.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..base.errors import InputError
from ..base.sentences import Sentence, join, say
from ..base.values import LoraRow
from .hashes import HashBook, Progress

ENDINGS = (".safetensors", ".sft")


@dataclass(frozen=True)
class Found:
    """name: below models/loras. note: what the artist should know of how it was found."""

    name: str
    path: str
    note: Sentence = Sentence("")


class Unhashed(Exception):
    """The file may be among some that nobody hashed yet."""


class LoraIndex:
    """The files of models/loras: name -> path. `book` remembers hashes."""

    def __init__(self, files: Mapping[str, str], book: HashBook) -> None:
        self.files = {name.replace("\\", "/"): path for name, path in files.items()}
        self.book = book

    def find(self, row: LoraRow, progress: Progress | None = None, max_bytes: float = float("inf")) -> Found:
        """The file of `row`. Raises ValueError where there is none or several, Unhashed where finding out
        would take reading more than `max_bytes`.
        """
        named = self._by_name(row.file)
        if named and not row.sha256:
            return Found(named, self.files[named])
        if named and self._hash(named, progress, max_bytes) == row.sha256:
            return Found(named, self.files[named])
        if row.sha256:
            other = self._by_hash(row, progress, max_bytes)
            if other:
                return Found(other, self.files[other], say("found by its sha256 as %1", other))
            if named:
                return Found(
                    named,
                    self.files[named],
                    say("another file than when the workflow was saved (other sha256)"),
                )
        else:
            moved = [name for name in self.files if _base(name) == _base(row.file)]
            if len(moved) == 1:
                return Found(moved[0], self.files[moved[0]], say("found as %1", moved[0]))
            if moved:
                raise InputError(
                    say(
                        '"%1" could be any of %2. Write the one you mean with its folder.',
                        row.file,
                        ", ".join(sorted(moved)[:5]),
                    )
                )
        raise InputError(self._missing(row))

    def _by_name(self, name: str) -> str:
        name = name.replace("\\", "/").removeprefix("./")
        if name in self.files:
            return name
        return next((name + ending for ending in ENDINGS if name + ending in self.files), "")

    def _by_hash(self, row: LoraRow, progress: Progress | None, max_bytes: float) -> str:
        """The file with the row's hash: remembered ones first, then those of the same name, then all."""
        unhashed = []
        for name, path in self.files.items():
            known = self.book.remembered(path)
            if known == row.sha256:
                return name
            if not known:
                unhashed.append(name)
        unhashed.sort(key=lambda name: _base(name) != _base(row.file))
        for name in unhashed:
            if self._hash(name, progress, max_bytes) == row.sha256:
                return name
            max_bytes -= _size(self.files[name])
        return ""

    def _hash(self, name: str, progress: Progress | None, max_bytes: float) -> str:
        path = self.files[name]
        if not self.book.remembered(path) and _size(path) > max_bytes:
            raise Unhashed(name)
        try:
            return self.book.find(path, progress)
        except OSError:
            return ""

    def _missing(self, row: LoraRow) -> Sentence:
        if row.file.lower().endswith((".pt", ".pth", ".ckpt", ".bin", ".pkl")):
            return say(
                '"%1" is no safetensors file, the only format read here because it cannot carry code. '
                "Download the .safetensors version.",
                row.file,
            )
        sentences = [
            say('"%1" is not in models/loras, nor any file with its sha256.', row.file)
            if row.sha256
            else say('"%1" is not in models/loras.', row.file)
        ]
        near = suggest(row.file, self.files)
        if near:
            sentences.append(say("Did you mean %1?", near))
        remedy = say(
            'Put the file there, correct the row, switch it off, or set missing_files to "skip the row".'
        )
        return join(" ", [*sentences, remedy])


def suggest(name: str, files: Iterable[str]) -> str:
    """A file whose name is much like `name`, for a question; never used by itself."""
    import difflib

    by_base: dict[str, str] = {_base(file): file for file in files}
    close = difflib.get_close_matches(_base(name), by_base, n=1, cutoff=0.7)
    return by_base[close[0]] if close else ""


def find_all(
    rows: Iterable[LoraRow], find: Callable[[LoraRow], Found], skips_missing: bool
) -> tuple[list[Found | None], list[Sentence]]:
    """(the file of each row, None where it needs none or is skipped; notes). Raises ValueError naming the
    row.
    """
    found: list[Found | None] = []
    notes: list[Sentence] = []
    for number, row in enumerate(rows, 1):
        if not row.acts or not row.file:
            found.append(None)
            continue
        try:
            found.append(find(row))
        except ValueError as error:
            if not skips_missing:
                raise InputError(say("LoRA row %1: %2", number, error)) from None
            found.append(None)
            notes.append(say("Row %1 skipped: %2", number, error))
    return found, notes


def _base(name: str) -> str:
    base = os.path.basename(name.replace("\\", "/")).lower()
    return base.removesuffix(".safetensors").removesuffix(".sft")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
