"""Small files of the pack's own, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_bytes(file: Path, content: bytes) -> None:
    """Write `content` to `file` so that a crash, a full disk or a reader in between sees the old file or the
    new one, never half of either. The file is readable by its owner only.

    Raises OSError; nothing is left behind then.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(file: Path, value: Any, indent: int | None = None) -> None:
    """`value` as JSON through `write_bytes`."""
    write_bytes(file, (json.dumps(value, indent=indent) + "\n").encode())
