"""Pictures waiting beside the ledger, so that a failure after the download costs nothing.

The folder is held under a size limit: results already handed over go first, oldest first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..base.files import write_bytes
from .folder import make_private_folder

DEFAULT_BYTES = 2 << 30
_UNFINISHED = "."
_STALE_SECONDS = 3600
_PROMPT = "prompt.txt"
_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


class ResultStore:
    """Files named `<job id>/<position><ending>` under `folder`, and the prompt beside them."""

    def __init__(self, folder: Path, limit: int = DEFAULT_BYTES) -> None:
        self.folder = make_private_folder(folder)
        self.limit = limit

    def keep(self, job_id: str, position: int, data: bytes, kind: str) -> str:
        """Write a result whole or not at all; returns its name."""
        make_private_folder(self.folder / job_id)
        name = f"{job_id}/{position}{_ENDINGS[kind]}"
        write_bytes(self.folder / name, data)
        return name

    def keep_prompt(self, job_id: str, prompt: str) -> None:
        """Keep what a job's pictures were asked for with, beside them: it goes when they go."""
        make_private_folder(self.folder / job_id)
        write_bytes(self.folder / job_id / _PROMPT, prompt.encode("utf-8", "replace"))

    def read_prompt(self, job_id: str) -> str:
        """The prompt of a job of the ledger; "" where it was cleared away."""
        try:
            return (self.folder / job_id / _PROMPT).read_text("utf-8")
        except OSError:
            return ""

    def read(self, name: str) -> bytes | None:
        """The bytes of a result, or None if it was cleared away."""
        try:
            data = (self.folder / name).read_bytes()
            os.utime(self.folder / name)
            return data
        except OSError:
            return None

    def trim(self, is_delivered: Callable[[str], bool]) -> int:
        """Delete until the limit holds: delivered jobs first, the least recently used first. Bytes freed."""
        files = []
        for file in self.folder.glob("*/*"):
            # Other jobs finish meanwhile: what was listed may be renamed or trimmed by now.
            with suppress(FileNotFoundError):
                facts = file.stat()
                if not file.name.startswith(_UNFINISHED):
                    files.append((file, facts))
                elif time.time() - facts.st_mtime > _STALE_SECONDS:
                    file.unlink()  # its writer was killed
        total = sum(facts.st_size for _, facts in files)
        freed = 0
        for file, facts in sorted(files, key=lambda f: (not is_delivered(f[0].parent.name), f[1].st_mtime)):
            if total - freed <= self.limit:
                break
            file.unlink(missing_ok=True)
            freed += facts.st_size
        for folder in self.folder.iterdir():
            # A young empty folder may be about to receive its first file.
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                    folder.rmdir()  # refuses a folder that holds anything
        return freed
