"""What the application is told, by `run.py cluster` or by the files for `serve deploy` and KubeRay."""

from __future__ import annotations

from typing import Any

from kleinod_pure.base.errors import InputError

OPTIONS: dict[str, Any] = {
    "folder": "", "workers": 1, "most_workers": 0, "gpus_per_worker": 1.0, "cpus_per_worker": 1.0,
    "threads": 0, "remote": False, "stand_in": True, "hang_seconds": 60.0, "silent_seconds": 900.0,
    "head": True,
}  # fmt: skip


def read_options(given: dict[str, Any]) -> dict[str, Any]:
    """`given` over the defaults, each of its kind. Raises InputError."""
    unknown = set(given) - set(OPTIONS)
    if unknown or not given.get("folder"):
        raise InputError(
            f"The cluster's application takes {', '.join(OPTIONS)}, and needs folder; "
            f"it was given {', '.join(given) or 'nothing'}."
        )
    read = dict(OPTIONS)
    for name, value in given.items():
        kind = type(OPTIONS[name])
        if kind is bool and isinstance(value, str):
            value = value.lower() in ("true", "1", "yes")
        read[name] = kind(value)
    return read
