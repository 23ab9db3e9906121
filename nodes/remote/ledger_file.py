"""The ledger's file: its tables, and what keeps it readable.

`jobs` and `items` are those of 1.0.0 and stay so, because 1.0.0 builds its rows of every column it finds:
what came later stands in a table of its own (`facts`), so a file may go to a newer version and back. Version
numbers: 0 (1.0.0), 1. Columns that are missing are added, columns that somebody added are let be as long as
they need no value; a file that is no ledger is set aside, and a new one begun.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path

from .folder import make_private_folder, refuse_folder

logger = logging.getLogger("kleinod.remote")

VERSION = 1
FILE = "ledger.sqlite"
_SIDE_FILES = ("-wal", "-shm", "-journal")

# Name, type and, for a column that has to be added to a file without it, its default.
_JOBS = {
    "id": "text primary key",
    "service": "text not null",
    "request_hash": "text not null",
    "take": "integer not null",
    "attempt": "integer not null",
    "profile": "text not null",
    "base": "text not null",
    "endpoint": "text not null",
    "node_id": "text not null",
    "prompt_id": "text not null",
    "state": "text not null",
    "vendor_id": "text not null default ''",
    "polling_url": "text not null default ''",
    "wanted": "integer not null",
    "estimate_usd": "real not null",
    "cost_usd": "real",
    "summary": "text not null",
    "message": "text not null default ''",
    "created": "real not null",
    "updated": "real not null",
    "delivered": "integer not null default 0",
}
_ITEMS = {
    "job_id": "text not null",
    "item_id": "text not null",
    "position": "integer not null",
    "kind": "text not null",
    "seed": "integer",
    "cost_usd": "real",
    "nsfw": "integer not null default 0",
    "file": "text not null default ''",
    "width": "integer",
    "height": "integer",
    "message": "text not null default ''",
}
_FACTS = {
    "job_id": "text not null",
    "item_id": "text not null default ''",
    "name": "text not null",
    "value": "text not null",
}
_TABLES = {
    "jobs": (_JOBS, ", unique (request_hash, take, attempt)"),
    "items": (_ITEMS, ", primary key (job_id, item_id)"),
    "facts": (_FACTS, ", primary key (job_id, item_id, name)"),
}
_INDEXES = """
create index if not exists jobs_by_time on jobs (created);
create index if not exists jobs_by_prompt on jobs (prompt_id);
create index if not exists facts_by_value on facts (name, value);
"""
# What an added column holds in old rows, where it may not be empty.
_FILLINGS = {"wanted": "1", "estimate_usd": "0", "summary": "'{}'", "take": "0", "attempt": "0"}


class _NoLedger(Exception):
    """The file is none, or cannot be made one."""


def open_ledger(folder: Path) -> tuple[sqlite3.Connection, str]:
    """The connection, and a sentence where a damaged file was set aside ("" otherwise).

    Raises StorageError where the folder cannot be written.
    """
    make_private_folder(folder)
    file = folder / FILE
    try:
        return _open(file), ""
    except (_NoLedger, sqlite3.DatabaseError) as error:
        if isinstance(error, sqlite3.OperationalError):  # no disk, no rights, or somebody else's lock
            raise refuse_folder(folder, error) from None
        name = _set_aside(file)
        note = (
            f"Kleinod's ledger of paid jobs was damaged and is set aside as {name} in {folder}; a new one "
            "was begun. Pictures that were fetched are still in the folder spool beside it. Jobs that were "
            "under way are listed on the service's own usage page."
        )
        logger.warning("%s (%s)", note, error)
        try:
            return _open(file), note
        except sqlite3.DatabaseError as problem:
            raise refuse_folder(folder, problem) from None


def _open(file: Path) -> sqlite3.Connection:
    base = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
    try:
        base.row_factory = sqlite3.Row
        base.execute("pragma journal_mode = wal")
        base.execute("pragma synchronous = normal")
        if base.execute("pragma quick_check(1)").fetchone()[0] != "ok":
            raise _NoLedger("the check found damage")
        base.execute("begin immediate")
        _migrate(base)
        base.execute("commit")
        return base
    except BaseException:
        base.close()
        raise


def _migrate(base: sqlite3.Connection) -> None:
    """Bring the tables to what this version needs, losing nothing. Proves that the file can be written."""
    for name, (columns, constraint) in _TABLES.items():
        there = {row["name"]: row for row in base.execute(f"pragma table_info({name})")}
        described = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        if not there:
            base.execute(f"create table {name} ({described}{constraint})")
            continue
        needy = [
            column
            for column, row in there.items()
            if column not in columns and row["notnull"] and row["dflt_value"] is None
        ]
        missing_key = {"id", "job_id"} & set(columns) - set(there)
        if missing_key:
            raise _NoLedger(f"the table {name} has no column {', '.join(missing_key)}")
        if needy:
            _rebuild(base, name, described + constraint, [c for c in columns if c in there])
            there = {row["name"]: row for row in base.execute(f"pragma table_info({name})")}
        for column, kind in columns.items():
            if column not in there:
                base.execute(f"alter table {name} add column {column} {_as_addition(column, kind)}")
    for statement in filter(None, map(str.strip, _INDEXES.split(";"))):
        base.execute(statement)
    if base.execute("pragma user_version").fetchone()[0] < VERSION:
        base.execute(f"pragma user_version = {VERSION}")


def _rebuild(base: sqlite3.Connection, name: str, described: str, kept: list[str]) -> None:
    """The table without a foreign column that wants a value in every row we write."""
    base.execute(f"alter table {name} rename to {name}_before")
    base.execute(f"create table {name} ({described})")
    # A column that the old table does not have gets its filling: the statement names those it has.
    columns = _TABLES[name][0]
    fillings = {
        c: _as_filling(c, kind) for c, kind in columns.items() if c not in kept and "not null" in kind
    }
    names = ", ".join([*kept, *fillings])
    values = ", ".join([*kept, *fillings.values()])
    base.execute(f"insert into {name} ({names}) select {values} from {name}_before")
    base.execute(f"drop table {name}_before")


def _as_addition(column: str, kind: str) -> str:
    if "not null" in kind and "default" not in kind:
        return f"{kind} default {_as_filling(column, kind)}"
    return kind


def _as_filling(column: str, kind: str) -> str:
    if column in _FILLINGS:
        return _FILLINGS[column]
    return "''" if kind.startswith("text") else "0"


def _set_aside(file: Path) -> str:
    """Move the damaged file out of the way; returns its new name."""
    name = time.strftime(f"ledger-damaged-%Y%m%d-%H%M%S-{os.getpid()}.sqlite")
    try:
        os.replace(file, file.with_name(name))
        for ending in _SIDE_FILES:
            side = file.with_name(file.name + ending)
            if side.exists():
                os.replace(side, file.with_name(name + ending))
    except OSError as error:
        raise refuse_folder(file.parent, error) from None
    return name
