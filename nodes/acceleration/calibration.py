"""What Klein Calibrate measured on a model, as a small JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from ..base.files import write_json
from ..base.values import Calibration

VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")


def check_name(name: str) -> str:
    """The name, if it can be a file's on any system; else an InputError."""
    if not _NAME.fullmatch(name) or name != name.strip() or name.endswith("."):
        raise InputError(
            f"name is '{name}', but it becomes a file: use letters, digits, spaces, dots, + and -, beginning "
            "with a letter or digit, at most 64."
        )
    return name


def save(value: Calibration, fitted_on: Mapping[str, Any], folder: Path) -> Path:
    """Write `value` to `folder`, whole or not at all. fitted_on: what stands behind it, kept for people."""
    data = {
        "version": VERSION,
        "tea_coefficients": list(value.tea_coefficients),
        "tea_limit": value.tea_limit,
        "profile": list(value.profile),
        "fitted_on": dict(fitted_on),
    }
    file = folder / f"{check_name(value.name)}.json"
    write_json(file, data, indent=2)
    return file


def list_names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.json")) if folder.is_dir() else []


def load(name: str, folder: Path) -> Calibration:
    """The calibration saved as `name`. Raises InputError where it is gone or damaged."""
    file = folder / f"{check_name(name)}.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise InputError(f"its version is {data['version']}")
        numbers = {key: tuple(float(v) for v in data[key]) for key in ("tea_coefficients", "profile")}
        return Calibration(name, tea_limit=float(data["tea_limit"]), **numbers)
    except OSError:
        known = ", ".join(list_names(folder)) or "none yet"
        raise InputError(
            f"calibration is '{name}', but there is no such calibration (there are: {known}). Run Klein "
            "Calibrate, or choose another."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The calibration '{name}' cannot be read ({error}). Run Klein Calibrate again under that name."
        ) from None
