"""The folder of keys, ledger and results: this user's alone."""

from __future__ import annotations

import os
from pathlib import Path

from ..base.sentences import say
from .errors import StorageError


def make_private_folder(folder: Path) -> Path:
    """`folder`, made where it is missing, closed to other users. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.name == "posix" and os.stat(folder).st_mode & 0o077:
            os.chmod(folder, 0o700)
    except OSError as error:
        raise refuse_folder(folder, error) from None
    return folder


def refuse_folder(folder: Path, error: Exception) -> StorageError:
    """The sentence for a folder that cannot be written."""
    words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return StorageError(
        say(
            "Kleinod cannot write to its folder %1 (%2), where it notes every paid job before it is "
            "sent. Nothing was sent. Make the folder writable, or free some space, and queue again.",
            folder,
            words,
        )
    )
