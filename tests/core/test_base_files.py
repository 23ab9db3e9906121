"""Small files are written whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from kleinod_pure.base import files


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "limits.json"
    files.write_json(file, {"day": 1})
    files.write_json(file, {"day": 2})
    assert json.loads(file.read_text(encoding="utf-8")) == {"day": 2}
    assert [entry.name for entry in file.parent.iterdir()] == ["limits.json"]
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "limits.json"
    files.write_json(file, {"day": 1})

    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(file, {"day": 2})
    assert json.loads(file.read_text(encoding="utf-8")) == {"day": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["limits.json"]
