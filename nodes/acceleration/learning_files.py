"""Where ComfyUI keeps what plain runs taught, and whether they may.

One small file a kind of run, beside Klein Calibrate's, each written whole or not at all: two ComfyUIs at
work on one can lose each other's newest prompt, never the file. The switch is a file of its own, read by
every run.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..base import seams
from ..base.acceleration import FittedTable
from ..base.doors import Doors
from ..base.files import write_json
from ..base.sentences import Sentence
from .calibration_files import calibrations_folder, folder_paths
from .learning import MOST_KINDS, Kind, Lessons, choose_steps, name_prompt, read_lessons, tell_count
from .routes import add_routes

logger = logging.getLogger("kleinod.acceleration")

_CHOOSING = "kleinod learning"
"""Name of the threads that choose steps."""
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)


def lessons_folder() -> Path:
    """What was learned; erasing it is safe at any time."""
    return calibrations_folder() / "learned"


def _switch() -> Path:
    return calibrations_folder().parent / "learning.json"


def read_salt() -> str:
    """What this installation's prompts are named by; empty where runs may not teach."""
    if not folder_paths:
        return ""
    try:
        data = json.loads(_switch().read_text(encoding="utf-8"))
        return str(data["salt"]) if data["enabled"] is True else ""
    except FileNotFoundError:
        return ""
    except (OSError, *_DAMAGED) as error:
        logger.warning("Learning from uncached runs is off: %s cannot be read (%s).", _switch(), error)
        return ""


def switch_learning(enabled: bool) -> None:
    """The salt stays, so that a prompt that has taught is known again."""
    try:
        salt = str(json.loads(_switch().read_text(encoding="utf-8"))["salt"])
    except (OSError, *_DAMAGED):
        salt = secrets.token_hex(16)
    write_json(_switch(), {"enabled": enabled, "salt": salt})


def load_lessons(file: Path) -> Lessons | None:
    """None where there is no such file, or it cannot be read, which is logged."""
    try:
        return read_lessons(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, *_DAMAGED) as error:
        logger.warning(
            "What uncached runs taught is left out and learned anew: %s is damaged (%s).", file, error
        )
        return None


def list_lessons(fingerprint: str = "") -> list[Lessons]:
    """Of one model, of all where not given; the newest first."""
    if not lessons_folder().is_dir():
        return []
    found = (load_lessons(file) for file in _by_age(f"{fingerprint}*.json"))
    return [lessons for lessons in found if lessons is not None]


def learned_tables(fingerprint: str) -> tuple[FittedTable, ...]:
    """Steps that plain runs of this very model chose; none while learning is off."""
    if not (fingerprint and read_salt()):
        return ()
    return tuple(table for lessons in list_lessons(fingerprint) for table in lessons.tables)


def teach(kind: Kind, conditioning: Any, gram: Tensor) -> Sentence:
    """Add a run of `kind` to what is known; a sentence for its report, empty where learning is off.

    Where steps are due, they are chosen in a thread of its own, so that nobody waits for it.
    Raises OSError where it cannot be kept.
    """
    salt = read_salt()
    if not salt:
        return Sentence("")
    file = lessons_folder() / kind.file_name
    before = load_lessons(file) or Lessons(kind)
    lessons = before.add(name_prompt(conditioning, salt), gram)
    if lessons is not before:
        write_json(file, lessons.data())
        for old in _by_age("*.json")[MOST_KINDS:]:
            old.unlink(missing_ok=True)
        if lessons.due:
            threading.Thread(target=_choose, args=(file,), name=_CHOOSING, daemon=True).start()
    return tell_count(lessons, lessons is not before)


def wait_until_chosen() -> None:
    """Until every choice that was due is made."""
    for thread in threading.enumerate():
        if thread.name == _CHOOSING:
            thread.join()


def _choose(file: Path) -> None:
    """Choose steps by what is in `file`; what was added to it, or erased, in the meantime wins."""
    lessons = load_lessons(file)
    if lessons is None:
        return
    try:
        chosen = choose_steps(lessons)
        now = load_lessons(file)
        if now is not None and now.seen >= lessons.seen:
            write_json(file, replace(now, tried=chosen.tried).data())
    except (RuntimeError, ValueError, OSError) as error:
        logger.warning("No steps were chosen from uncached runs: %s", error)


def erase_lessons() -> None:
    for file in lessons_folder().glob("*.json"):
        file.unlink(missing_ok=True)


def tell_state() -> dict[str, Any]:
    """What the settings show."""
    return {"enabled": bool(read_salt()), "learned": [lessons.describe() for lessons in list_lessons()]}


def register_routes(doors: Doors) -> None:
    """Put the settings' routes on ComfyUI's server, if there is one."""
    server = seams.find_server()
    if server is not None:
        add_routes(server.routes, doors, tell_state, switch_learning, erase_lessons)


def _by_age(pattern: str) -> list[Path]:
    """The newest first. One that another ComfyUI has just erased counts as the oldest."""

    def changed(file: Path) -> float:
        try:
            return file.stat().st_mtime
        except OSError:
            return 0.0

    return sorted(lessons_folder().glob(pattern), key=changed, reverse=True)
