"""What Klein Calibrate measured on a model, as a small JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..base.acceleration import FittedTable
from ..base.errors import InputError
from ..base.files import write_json
from ..base.sentences import say
from ..base.values import Calibration

VERSION = 2
WITHOUT_TABLES = 1
"""Made before there were tables. Of such a file Tea's curve is read; its profile, how much skipping hurts in
each tenth of a run, is not: the widths of a run's own steps say it better."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")


def check_name(name: str) -> str:
    """The name, if it can be a file's on any system; else an InputError."""
    if not _NAME.fullmatch(name) or name != name.strip() or name.endswith("."):
        raise InputError(
            say(
                "name is '%1', but it becomes a file: use letters, digits, spaces, dots, + and -, "
                "beginning with a letter or digit, at most 64.",
                name,
            )
        )
    return name


def save(value: Calibration, fitted_on: Mapping[str, Any], folder: Path) -> Path:
    """Write `value` to `folder`, whole or not at all. fitted_on: what stands behind it, kept for people.

    Tables of other models, steps or guidances that the file already holds stay in it. A file of that name
    that cannot be read is kept beside it, as NAME.json.unread.
    """
    file = folder / f"{check_name(value.name)}.json"
    tables = value.tables
    if file.is_file():
        try:
            tables = merge_tables(load(value.name, folder).tables, tables)
        except InputError:
            file.replace(file.with_name(f"{file.name}.unread"))
    data = {
        "version": VERSION,
        "tea_coefficients": list(value.tea_coefficients),
        "tea_limit": value.tea_limit,
        "tables": [asdict(table) for table in tables],
        "fitted_on": dict(fitted_on),
    }
    write_json(file, data)
    return file


def merge_tables(old: Iterable[FittedTable], new: Iterable[FittedTable]) -> tuple[FittedTable, ...]:
    """The new ones, and those of the old that they do not replace."""
    new = tuple(new)
    replaced = {_key(table) for table in new}
    return tuple(table for table in old if _key(table) not in replaced) + new


def _key(table: FittedTable) -> tuple[Any, ...]:
    levels = tuple(round(sigma, 2) for sigma in table.sigmas)
    return table.kind, table.model, round(table.guidance, 2), table.calls, levels


def list_names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.json")) if folder.is_dir() else []


def load(name: str, folder: Path) -> Calibration:
    """The calibration saved as `name`. Raises InputError where it is gone or damaged."""
    file = folder / f"{check_name(name)}.json"
    try:
        return read(name, file.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(list_names(folder)) or say("none yet")
        raise InputError(
            say(
                "calibration is '%1', but there is no such calibration (there are: %2). "
                "Run Klein Calibrate, or choose another.",
                name,
                known,
            )
        ) from None


def read(name: str, text: str) -> Calibration:
    """A calibration from its file's text. Raises InputError where it is damaged."""
    try:
        data = json.loads(text)
        if data["version"] not in (VERSION, WITHOUT_TABLES):
            raise InputError(say("its version is %1", data["version"]))
        tables = tuple(_read_table(table) for table in data.get("tables", ()))
        coefficients = tuple(float(v) for v in data["tea_coefficients"])
        return Calibration(name, coefficients, float(data["tea_limit"]), tables)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            say(
                "The calibration '%1' cannot be read (%2). Run Klein Calibrate again under that name.",
                name,
                error,
            )
        ) from None


def _read_table(data: Mapping[str, Any]) -> FittedTable:
    return FittedTable(
        kind=str(data["kind"]),
        model=str(data["model"]),
        guidance=float(data["guidance"]),
        sigmas=tuple(float(v) for v in data["sigmas"]),
        computed=tuple(int(v) for v in data["computed"]),
        levels=tuple(float(v) for v in data["levels"]),
        weights=tuple(tuple(tuple(float(v) for v in row) for row in bands) for bands in data["weights"]),
        errors=tuple(float(v) for v in data["errors"]),
        rule_errors=tuple(float(v) for v in data["rule_errors"]),
    )


def of_model(value: Calibration, fingerprint: str) -> Calibration:
    """`value` with the tables of one model alone."""
    return replace(value, tables=tuple(table for table in value.tables if table.model == fingerprint))
