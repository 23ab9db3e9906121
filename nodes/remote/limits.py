"""The user's spending limits and how many jobs may run at once: a small file beside the ledger."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from .keys import make_private_folder

MOST_CONCURRENT = 24


@dataclass(frozen=True)
class Limits:
    """USD per queued run and per day (0: no limit), and jobs at once per account."""

    run_usd: float = 0.0
    day_usd: float = 0.0
    concurrency: int = 4

    def __post_init__(self) -> None:
        for name in ("run_usd", "day_usd"):
            if not 0 <= float(getattr(self, name)) < 1e6:
                raise InputError(
                    f"{name} must be an amount in USD from 0 (no limit) on; got {getattr(self, name)}."
                )
        if not 1 <= int(self.concurrency) <= MOST_CONCURRENT:
            raise InputError(f"concurrency must be from 1 to {MOST_CONCURRENT}; got {self.concurrency}.")


def read_limits(folder: Path) -> Limits:
    """The stored limits. A damaged file is an error: money would otherwise go unguarded."""
    try:
        stored = json.loads((folder / "limits.json").read_text(encoding="utf-8"))
        return Limits(**{name: stored[name] for name in (f.name for f in fields(Limits)) if name in stored})
    except FileNotFoundError:
        return Limits()
    except (ValueError, TypeError) as error:
        raise InputError(
            f"Kleinod's spending limits cannot be read ({error}). Set them again in Settings > Kleinod, or "
            f"delete "
            "limits.json in ComfyUI's user/__kleinod folder."
        ) from None


def write_limits(folder: Path, values: dict[str, Any]) -> Limits:
    """Check and store the given values over the present ones."""
    names = {f.name for f in fields(Limits)}
    if not isinstance(values, dict) or set(values) - names:
        raise InputError(f"Limits are {', '.join(sorted(names))}.")
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values.values()):
        raise InputError("Limits are numbers.")
    limits = Limits(**{**asdict(read_limits(folder)), **values})
    make_private_folder(folder)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".limits-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(limits), file)
    os.replace(name, folder / "limits.json")
    return limits
