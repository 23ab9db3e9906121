"""Remote nodes in this process: one emulator for both services, ComfyUI's user folder somewhere temporary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folder_paths
import pytest
from kleinod.nodes.remote import session
from kleinod.nodes.remote.engine import Engine
from kleinod.nodes.remote.retry import RetryPolicy

from tests.emulator import Emulator


@contextmanager
def set_stage(monkeypatch: pytest.MonkeyPatch, folder: Path, accepted: str) -> Iterator[Emulator]:
    """An emulator that takes the key `accepted`, which is in no environment variable yet."""
    before = folder_paths.get_user_directory()
    folder_paths.set_user_directory(str(folder))
    engine = Engine(session.find_folder(), policy=RetryPolicy(scale=0.02, read=2))
    monkeypatch.setattr(session, "find_engine", lambda: engine)
    with Emulator(keys={accepted}) as running:
        for name in ("RUNWARE", "BFL"):
            monkeypatch.setenv(f"KLEINOD_{name}_URL", running.url)
            monkeypatch.delenv(f"{name}_API_KEY", raising=False)
        yield running
    engine.close()
    folder_paths.set_user_directory(before)
