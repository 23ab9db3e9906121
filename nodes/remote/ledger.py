"""The account book of paid jobs: SQLite, synced to disk before money can move.

A job's row is committed before its request is posted, so whatever dies afterwards, the next run finds the row
and asks for the result instead of paying again. Results are kept as files beside it (`spool.py`). Prompts and
images are not stored: a job is known by the hash of its request.

States:  submitting -> accepted -> saved | failed | moderated
         submitting -> refused (not accepted, not billed: may be sent again under the same id)
         submitting -> unknown (BFL only: may or may not have been accepted, is never sent again by itself)
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from .errors import SpendLimit
from .keys import make_private_folder

SUBMITTING, ACCEPTED, SAVED = "submitting", "accepted", "saved"
REFUSED, UNKNOWN, FAILED, MODERATED = "refused", "unknown", "failed", "moderated"
OPEN = (SUBMITTING, ACCEPTED, UNKNOWN)
# A refused request cost nothing; everything else counts with its cost, or its estimate until the cost is
# known.
_SPENT = "coalesce(cost_usd, estimate_usd)"

_TABLES = """
create table if not exists jobs (
    id text primary key, service text not null, request_hash text not null, take integer not null,
    attempt integer not null, profile text not null, base text not null, endpoint text not null,
    node_id text not null, prompt_id text not null, state text not null, vendor_id text not null default '',
    polling_url text not null default '', wanted integer not null, estimate_usd real not null, cost_usd real,
    summary text not null, message text not null default '', created real not null, updated real not null,
    delivered integer not null default 0,
    unique (request_hash, take, attempt)
);
create table if not exists items (
    job_id text not null, item_id text not null, position integer not null, kind text not null, seed integer,
    cost_usd real, nsfw integer not null default 0, file text not null default '', width integer, height
    integer, message text not null default '', primary key (job_id, item_id)
);
create index if not exists jobs_by_time on jobs (created);
create index if not exists jobs_by_prompt on jobs (prompt_id);
"""


@dataclass(frozen=True)
class Claim:
    """What is asked for: one request, as the ledger needs to know it. `body` is hashed, never stored."""

    service: str
    base: str
    endpoint: str
    body: dict[str, Any]
    profile: str = "default"
    take: int = 0
    wanted: int = 1
    estimate_usd: float = 0.0
    node_id: str = ""
    prompt_id: str = ""
    summary: dict[str, Any] | None = None
    run_limit_usd: float = 0.0
    day_limit_usd: float = 0.0

    @property
    def request_hash(self) -> str:
        whole = {
            "service": self.service,
            "base": self.base,
            "endpoint": self.endpoint,
            "profile": self.profile,
            "body": self.body,
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """One row of the book."""

    id: str
    service: str
    request_hash: str
    take: int
    attempt: int
    profile: str
    base: str
    endpoint: str
    node_id: str
    prompt_id: str
    state: str
    vendor_id: str
    polling_url: str
    wanted: int
    estimate_usd: float
    cost_usd: float | None
    summary: str
    message: str
    created: float
    updated: float
    delivered: int


@dataclass(frozen=True)
class Item:
    """One result of a job: a picture (with its file in the spool) or the failure that stands in its place."""

    job_id: str
    item_id: str
    position: int
    kind: str
    seed: int | None = None
    cost_usd: float | None = None
    nsfw: bool = False
    file: str = ""
    width: int | None = None
    height: int | None = None
    message: str = ""


def make_task_uuid(request_hash: str, take: int, attempt: int) -> str:
    """The id of a job: a UUID in v4's shape that follows from the request, so a lost answer cannot change
    it.
    """
    digest = bytearray(hashlib.sha256(f"{request_hash}|{take}|{attempt}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class Ledger:
    """The book in `folder`. One connection behind a lock.

    What money hangs on (`claim`, `accept`) is on the platter when the call returns. The rest survives a
    killed process at once and a power cut within moments; lost, it would only be asked for again.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._lock = threading.RLock()
        self._base = sqlite3.connect(
            folder / "ledger.sqlite", check_same_thread=False, isolation_level=None, timeout=30
        )
        self._base.row_factory = sqlite3.Row
        self._base.execute("pragma journal_mode = wal")
        self._base.execute("pragma synchronous = normal")
        self._base.executescript(_TABLES)

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def claim(self, claim: Claim) -> tuple[Job, bool]:
        """The job of this request, and whether it is to be sent now (True) or already was (False).

        SpendLimit, before anything is written, if sending would pass one of the claim's limits.
        """
        with self._lock, self._durably():
            self._base.execute("begin immediate")
            try:
                found = self._latest(claim.request_hash, claim.take)
                if found is not None and found.state not in (REFUSED, FAILED):
                    return found, False
                self._check_limits(claim)
                job_id = (
                    found.id if found is not None and found.state == REFUSED else self._insert(claim, found)
                )
                self._base.execute(
                    "update jobs set state = ?, updated = ?, prompt_id = ?, node_id = ?, message = '', "
                    "estimate_usd = ? where id = ?",
                    (SUBMITTING, time.time(), claim.prompt_id, claim.node_id, claim.estimate_usd, job_id),
                )
                return self.read(job_id), True
            finally:
                if self._base.in_transaction:
                    self._base.execute("commit")

    def accept(self, job_id: str, vendor_id: str, polling_url: str, cost_usd: float | None) -> Job:
        """Note that the service took the job, and how to ask for it."""
        with self._lock, self._durably():
            return self.update(
                job_id, state=ACCEPTED, vendor_id=vendor_id, polling_url=polling_url, cost_usd=cost_usd
            )

    def update(self, job_id: str, **values: Any) -> Job:
        """Change fields of a job; returns the row as it is now."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._lock:
            self._base.execute(
                f"update jobs set {names}, updated = ? where id = ?", (*values.values(), time.time(), job_id)
            )
            return self.read(job_id)

    def add_item(self, item: Item) -> None:
        """Write down one result; a second time for the same item replaces the first."""
        values = (
            item.job_id,
            item.item_id,
            item.position,
            item.kind,
            item.seed,
            item.cost_usd,
            item.nsfw,
            item.file,
            item.width,
            item.height,
            item.message,
        )
        with self._lock:
            self._base.execute(
                f"insert or replace into items values ({', '.join('?' * len(values))})", values
            )

    def forget_items(self, job_id: str) -> None:
        """Drop what was written about a job's results, to fetch them again."""
        with self._lock:
            self._base.execute("delete from items where job_id = ?", (job_id,))

    def read(self, job_id: str) -> Job:
        row = self._one("select * from jobs where id = ?", job_id)
        if row is None:
            raise InputError(
                f"The ledger has no job '{job_id}'. Pick one from the list of Klein Recover Job."
            )
        return Job(**row)

    def items(self, job_id: str) -> list[Item]:
        rows = self._all("select * from items where job_id = ? order by position", job_id)
        return [Item(**{**row, "nsfw": bool(row["nsfw"])}) for row in rows]

    def find(self, request_hash: str, take: int = 0) -> Job | None:
        with self._lock:
            return self._latest(request_hash, take)

    def recent(self, limit: int = 50, states: Iterable[str] = ()) -> list[Job]:
        """Jobs, unfinished ones first, then the newest first."""
        states = tuple(states)
        where = f"where state in ({', '.join('?' * len(states))})" if states else ""
        order = f"order by state in ('{SUBMITTING}', '{ACCEPTED}') desc, created desc limit {int(limit)}"
        return [Job(**row) for row in self._all(f"select * from jobs {where} {order}", *states)]

    def spent_since(self, moment: float) -> float:
        """USD of every job sent since `moment` (Unix time) that was not refused."""
        return self._sum(f"select sum({_SPENT}) from jobs where created >= ? and state != ?", moment, REFUSED)

    def spent_in_run(self, prompt_id: str) -> float:
        return self._sum(
            f"select sum({_SPENT}) from jobs where prompt_id = ? and state != ?", prompt_id, REFUSED
        )

    def spendings(self, moment: float) -> list[tuple[float, float]]:
        """(Unix time, USD) of every job sent since `moment` that cost something."""
        query = f"select created, {_SPENT} as usd from jobs where created >= ? and state != ?"
        return [(row["created"], row["usd"]) for row in self._all(query, moment, REFUSED) if row["usd"] > 0]

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """Commits inside wait until the disk has them."""
        self._base.execute("pragma synchronous = full")
        try:
            yield
        finally:
            self._base.execute("pragma synchronous = normal")

    def _check_limits(self, claim: Claim) -> None:
        for limit, spent, name in (
            (claim.run_limit_usd, lambda: self.spent_in_run(claim.prompt_id), "this run"),
            (claim.day_limit_usd, lambda: self.spent_since(start_of_day()), "today"),
        ):
            if limit > 0 and spent() + claim.estimate_usd > limit + 1e-9:
                raise SpendLimit(
                    f"Sending this job (about ${claim.estimate_usd:.4f}) would pass your limit of "
                    f"${limit:.2f} for "
                    f"{name}; ${spent():.4f} is spent. Nothing was sent. Raise the limit in Settings > "
                    f"Kleinod."
                )

    def _insert(self, claim: Claim, previous: Job | None) -> str:
        attempt = 0 if previous is None else previous.attempt + 1
        job_id = make_task_uuid(claim.request_hash, claim.take, attempt)
        now = time.time()
        self._base.execute(
            "insert into jobs (id, service, request_hash, take, attempt, profile, base, endpoint, node_id, "
            "prompt_id, "
            "state, wanted, estimate_usd, summary, created, updated) values "
            "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                job_id,
                claim.service,
                claim.request_hash,
                claim.take,
                attempt,
                claim.profile,
                claim.base,
                claim.endpoint,
                claim.node_id,
                claim.prompt_id,
                SUBMITTING,
                claim.wanted,
                claim.estimate_usd,
                json.dumps(claim.summary or {}),
                now,
                now,
            ),
        )
        return job_id

    def _latest(self, request_hash: str, take: int) -> Job | None:
        row = self._one(
            "select * from jobs where request_hash = ? and take = ? order by attempt desc limit 1",
            request_hash,
            take,
        )
        return None if row is None else Job(**row)

    def _one(self, query: str, *values: Any) -> dict[str, Any] | None:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    def _all(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self._base.execute(query, values)]

    def _sum(self, query: str, *values: Any) -> float:
        with self._lock:
            return float(self._base.execute(query, values).fetchone()[0] or 0.0)


def start_of_day() -> float:
    """Unix time of the last local midnight."""
    now = time.localtime()
    return time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1))
