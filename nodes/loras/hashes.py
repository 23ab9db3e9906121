"""SHA-256 of LoRA files, computed once for each state of a file and remembered.

A file's state is its path, modification time and size. The book is one small JSON file in the pack's folder
among ComfyUI's users; losing it costs nothing but hashing again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ..base.files import write_json

logger = logging.getLogger("kleinod.loras")

BOOK = "lora_hashes.json"
MAX_ENTRIES = 50_000
_CHUNK = 4 * 1024 * 1024
# Called with (bytes done, bytes in all) while a file is read; may raise to stop.
Progress = Callable[[int, int], None]


class HashBook:
    """Hashes by file state. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / BOOK
        self._lock = threading.Lock()
        self._entries: dict[str, list] | None = None

    def remembered(self, path: str | os.PathLike[str]) -> str:
        """The hash of the file as it is now, or "" where it was not computed yet."""
        state = _state_of(path)
        with self._lock:
            entry = self._read().get(os.path.abspath(path))
        return entry[2] if state and entry and entry[:2] == state else ""

    def find(self, path: str | os.PathLike[str], progress: Progress | None = None) -> str:
        """The hash of the file, computed where it is not remembered. Raises OSError."""
        known = self.remembered(path)
        if known:
            return known
        state = _state_of(path)
        digest = hash_file(path, progress)
        if state and state == _state_of(path):
            with self._lock:
                self._read()[os.path.abspath(path)] = [*state, digest]
                self._write()
        return digest

    def _read(self) -> dict[str, list]:
        if self._entries is None:
            self._entries = {}
            try:
                parsed = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                parsed = {}
            if isinstance(parsed, dict):
                self._entries = {path: entry for path, entry in parsed.items() if _is_entry(entry)}
        return self._entries

    def _write(self) -> None:
        entries = self._read()
        for path in list(entries)[: max(0, len(entries) - MAX_ENTRIES)]:
            del entries[path]
        try:
            write_json(self._path, entries)
        except OSError as error:
            logger.warning("Hashes of LoRA files could not be remembered in %s: %s", self._path, error)


def hash_file(path: str | os.PathLike[str], progress: Progress | None = None) -> str:
    """SHA-256 of a whole file, 64 lower-case digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()


def _state_of(path: str | os.PathLike[str]) -> list[int]:
    try:
        stat = os.stat(path)
    except OSError:
        return []
    return [stat.st_mtime_ns, stat.st_size]


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 3
        and isinstance(entry[0], int)
        and isinstance(entry[1], int)
        and isinstance(entry[2], str)
        and len(entry[2]) == 64
    )
