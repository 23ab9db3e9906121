"""The user's spending limits and how many jobs may run at once: a small file beside the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from ..base.files import write_json
from ..base.sentences import say
from .concurrency import MAX_CONCURRENT
from .folder import make_private_folder, refuse_folder

DEFAULT_DAY_USD = 1.0
"""Protects a newcomer from a queue left running: some hundred pictures a day, and raised with one click."""


@dataclass(frozen=True)
class Limits:
    """USD per queued run and per day (0: no limit), and jobs at once per account."""

    run_usd: float = 0.0
    day_usd: float = DEFAULT_DAY_USD
    concurrency: int = 4

    def __post_init__(self) -> None:
        for name in ("run_usd", "day_usd"):
            if not 0 <= float(getattr(self, name)) < 1e6:
                raise InputError(
                    say(
                        "%1 is %2, but must be an amount in USD from 0 (no limit) on.",
                        name,
                        getattr(self, name),
                    )
                )
        if not 1 <= int(self.concurrency) <= MAX_CONCURRENT:
            raise InputError(
                say("concurrency is %1, but must be from 1 to %2.", self.concurrency, MAX_CONCURRENT)
            )


def read_limits(folder: Path) -> Limits:
    """The stored limits. A damaged file is an error: money would otherwise go unguarded."""
    try:
        stored = json.loads((folder / "limits.json").read_text(encoding="utf-8"))
        return Limits(**{name: stored[name] for name in (f.name for f in fields(Limits)) if name in stored})
    except FileNotFoundError:
        return Limits()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            say(
                "Kleinod's spending limits cannot be read (%1), so nothing was sent. Set them again under "
                "Settings > Kleinod > Spending.",
                error,
            )
        ) from None


def write_limits(folder: Path, values: dict[str, Any]) -> Limits:
    """Check and store the given values over the present ones; over the defaults where the file is damaged."""
    names = {f.name for f in fields(Limits)}
    if not isinstance(values, dict) or set(values) - names:
        raise InputError(say("Limits are %1.", ", ".join(sorted(names))))
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values.values()):
        raise InputError(say("Limits are numbers."))
    try:
        present = read_limits(folder)
    except InputError:
        present = Limits()
    limits = Limits(**{**asdict(present), **values})
    try:
        make_private_folder(folder)
        write_json(folder / "limits.json", asdict(limits))
    except OSError as error:
        raise refuse_folder(folder, error) from None
    return limits
