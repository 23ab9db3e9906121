"""The account book of paid jobs: SQLite, synced to disk before money can move.

A job's row is committed before its request is posted, so whatever dies afterwards, the next run finds the row
and asks for the result instead of paying again. Results are kept as files beside it (`result_store.py`).
Prompts and images are not stored: a job is known by the hash of its request.

States:  submitting -> accepted -> saved | failed | moderated
         submitting -> refused (not accepted, not billed: may be sent again under the same id)
         submitting -> unknown (the service knows no repetition, and may or may not have accepted it: it is
                                never sent again by itself)

The tables and what keeps them readable by older and newer versions are in `ledger_file.py`.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from ..base.sentences import say
from .errors import SpendLimit
from .job_request import JobRequest
from .ledger_file import open_ledger

SUBMITTING, ACCEPTED, SAVED = "submitting", "accepted", "saved"
REFUSED, UNKNOWN, FAILED, MODERATED = "refused", "unknown", "failed", "moderated"
# A refused request cost nothing; everything else counts with its cost, or its estimate until the cost is
# known.
_SPENT = "coalesce(cost_usd, estimate_usd)"
_INT64 = 2**63
_OFFERED_SECONDS = 86400.0
FAMILY, SECONDS, SEED, UNSENT, WORKER = "family", "seconds", "seed", "unsent", "worker"


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

    @property
    def facts(self) -> dict[str, Any]:
        """What the summary holds: model, size, seed ..."""
        try:
            found = json.loads(self.summary)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Item:
    """One result of a job: a picture (with its file in the store) or the failure that stands in its place."""

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


_JOB_COLUMNS = ", ".join(field.name for field in fields(Job))
_ITEM_COLUMNS = ", ".join(field.name for field in fields(Item))


class Ledger:
    """The book in `folder`. One connection behind a lock. Raises StorageError where it cannot be written.

    What money hangs on (`claim`, `accept`) is on the platter when the call returns. The rest survives a
    killed process at once and a power cut within moments; lost, it would only be asked for again.

    note: a sentence for the user where a damaged file was set aside.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.RLock()
        self._base, self.note = open_ledger(folder)

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def claim(self, request: JobRequest) -> tuple[Job, bool]:
        """The job of this request, and whether it is to be sent now (True) or already was (False).

        SpendLimit, before anything is written, if sending would pass one of the limits.
        """
        with self._lock, self._durably():
            self._base.execute("begin immediate")
            try:
                found = self._latest(request.request_hash, request.take)
                if found is not None and found.state not in (REFUSED, FAILED):
                    return found, False
                self._check_limits(request)
                again = found is not None and found.state == REFUSED
                job_id = found.id if found is not None and again else self._insert(request, found)
                self._base.execute(
                    "update jobs set state = ?, updated = ?, prompt_id = ?, node_id = ?, message = '', "
                    "estimate_usd = ? where id = ?",
                    (
                        SUBMITTING,
                        time.time(),
                        request.context.prompt_id,
                        request.context.node_id,
                        request.estimate_usd,
                        job_id,
                    ),
                )
                self._set_fact(job_id, "", FAMILY, request.family_hash)
                self._base.execute("delete from facts where job_id = ? and name = ?", (job_id, UNSENT))
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

    def renumber(self, job_id: str) -> Job:
        """Give a job that was not accepted another id: the service has one under this id that is not ours."""
        other = str(uuid.uuid4())
        with self._lock, self._durably():
            self._base.execute("update jobs set id = ? where id = ?", (other, job_id))
            self._base.execute("update facts set job_id = ? where job_id = ?", (other, job_id))
            return self.read(other)

    def update(self, job_id: str, **values: Any) -> Job:
        """Change fields of a job; returns the row as it is now."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._lock:
            self._base.execute(
                f"update jobs set {names}, updated = ? where id = ?",
                (*map(_storable, values.values()), time.time(), job_id),
            )
            return self.read(job_id)

    def note_time(self, job_id: str, seconds: float) -> None:
        """How long the job took from its request to its last picture."""
        with self._lock:
            self._set_fact(job_id, "", SECONDS, repr(seconds))

    def note_worker(self, job_id: str, item_id: str, worker: str) -> None:
        """Which card of a cluster drew a picture."""
        with self._lock:
            self._set_fact(job_id, item_id, WORKER, worker)

    def workers(self, job_id: str) -> dict[str, str]:
        """Worker by item, of those that are known."""
        query = "select item_id, value from facts where job_id = ? and name = ?"
        return {item_id: worker for item_id, worker in self._base_rows(query, job_id, WORKER)}

    def note_unsent(self, job_id: str) -> Job:
        """A refused job that never reached the service: nobody has refused it."""
        with self._lock:
            self._set_fact(job_id, "", UNSENT, "1")
            return self.read(job_id)

    def is_unsent(self, job_id: str) -> bool:
        return bool(self._base_rows("select 1 from facts where job_id = ? and name = ?", job_id, UNSENT))

    def add_item(self, item: Item) -> None:
        """Write down one result; a second time for the same item replaces the first."""
        values = [_storable(getattr(item, field.name)) for field in fields(Item)]
        with self._lock:
            self._base.execute(
                f"insert or replace into items ({_ITEM_COLUMNS}) values ({', '.join('?' * len(values))})",
                values,
            )
            if item.seed is not None and not -_INT64 <= item.seed < _INT64:
                self._set_fact(item.job_id, item.item_id, SEED, str(item.seed))

    def forget_items(self, job_id: str) -> None:
        """Drop what was written about a job's results, to fetch them again."""
        with self._lock:
            self._base.execute("delete from items where job_id = ?", (job_id,))

    def read(self, job_id: str) -> Job:
        rows = self._jobs("where id = ?", job_id)
        if not rows:
            raise InputError(
                say("The ledger has no job '%1'. Pick one from the list of Klein Recover Job.", job_id)
            )
        return rows[0]

    def items(self, job_id: str) -> list[Item]:
        rows = self._all(f"select {_ITEM_COLUMNS} from items where job_id = ? order by position", job_id)
        query = "select item_id, value from facts where job_id = ? and name = ?"
        seeds = {item_id: int(value) for item_id, value in self._base_rows(query, job_id, SEED)}
        return [
            Item(**row | {"nsfw": bool(row["nsfw"]), "seed": seeds.get(row["item_id"], row["seed"])})
            for row in rows
        ]

    def find(self, request_hash: str, take: int = 0) -> Job | None:
        with self._lock:
            return self._latest(request_hash, take)

    def list_undelivered(self, family_hash: str, take: int) -> list[Job]:
        """Jobs of the last day that differ from a request in their seed at most, are sent, and whose pictures
        no node has had yet; the oldest first.
        """
        return self._jobs(
            "where id in (select job_id from facts where name = ? and value = ?) and take = ? "
            f"and created > ? and delivered = 0 and state in ('{SUBMITTING}', '{ACCEPTED}', '{SAVED}') order "
            "by created",
            FAMILY,
            family_hash,
            take,
            time.time() - _OFFERED_SECONDS,
        )

    def recent(self, limit: int = 50, states: Iterable[str] = ()) -> list[Job]:
        """Jobs, unfinished ones first, then the newest first."""
        states = tuple(states)
        where = f"where state in ({', '.join('?' * len(states))})" if states else ""
        order = f"order by state in ('{SUBMITTING}', '{ACCEPTED}') desc, created desc limit {int(limit)}"
        return self._jobs(f"{where} {order}", *states)

    def list_seconds(self, service: str, limit: int) -> list[float]:
        """How long the last finished jobs of a service took, the newest first."""
        query = (
            "select value from facts join jobs on jobs.id = facts.job_id where name = ? and service = ? "
            "and state = ? order by created desc limit ?"
        )
        return [float(value) for (value,) in self._base_rows(query, SECONDS, service, SAVED, limit)]

    def list_costs(self, service: str, limit: int = 200) -> list[Job]:
        """The last finished jobs of a service whose cost the service has told, the newest first."""
        return self._jobs(
            "where service = ? and state = ? and cost_usd is not null order by created desc limit ?",
            service,
            SAVED,
            limit,
        )

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

    def _check_limits(self, request: JobRequest) -> None:
        limits = request.context.limits
        for limit, spent, name in (
            (limits.run_usd, lambda: self.spent_in_run(request.context.prompt_id), "this run"),
            (limits.day_usd, lambda: self.spent_since(start_of_day()), "today"),
        ):
            if limit > 0 and (so_far := spent()) + request.estimate_usd > limit + 1e-9:
                raise SpendLimit(
                    say(
                        "Sending this job (about %1) would pass your limit of "
                        "%2 for %3; %4 is spent. Nothing was sent. Raise "
                        "the limit under Settings > Kleinod > Spending.",
                        format_usd(request.estimate_usd),
                        format_usd(limit),
                        name,
                        format_usd(so_far),
                    )
                )

    def _insert(self, request: JobRequest, previous: Job | None) -> str:
        # Random, so that no other installation makes it; written down before it is sent, so that no lost
        # answer changes it.
        job_id = str(uuid.uuid4())
        now = time.time()
        row = {
            "id": job_id,
            "service": request.service,
            "request_hash": request.request_hash,
            "take": request.take,
            "attempt": 0 if previous is None else previous.attempt + 1,
            "profile": request.profile,
            "base": request.base,
            "endpoint": request.endpoint,
            "node_id": request.context.node_id,
            "prompt_id": request.context.prompt_id,
            "state": SUBMITTING,
            "wanted": request.wanted,
            "estimate_usd": request.estimate_usd,
            "summary": json.dumps(dict(request.summary)),
            "created": now,
            "updated": now,
        }
        self._base.execute(
            f"insert into jobs ({', '.join(row)}) values ({', '.join('?' * len(row))})",
            [_storable(value) for value in row.values()],
        )
        return job_id

    def _latest(self, request_hash: str, take: int) -> Job | None:
        rows = self._jobs(
            "where request_hash = ? and take = ? order by attempt desc limit 1", request_hash, take
        )
        return rows[0] if rows else None

    def _set_fact(self, job_id: str, item_id: str, name: str, value: str) -> None:
        self._base.execute(
            "insert or replace into facts (job_id, item_id, name, value) values (?, ?, ?, ?)",
            (job_id, item_id, name, value),
        )

    def _jobs(self, rest: str, *values: Any) -> list[Job]:
        return [Job(**row) for row in self._all(f"select {_JOB_COLUMNS} from jobs {rest}", *values)]

    def _all(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._base_rows(query, *values)]

    def _base_rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._base.execute(query, values).fetchall()

    def _sum(self, query: str, *values: Any) -> float:
        return float(self._base_rows(query, *values)[0][0] or 0.0)


def _storable(value: Any) -> Any:
    """Answers hold anything; SQLite holds 64 bits, whole characters and no infinities."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def format_usd(usd: float) -> str:
    """Dollars with as many digits as the amount has, at least cents: $1.00, $0.0019."""
    whole, _, digits = f"{usd:.6f}".partition(".")
    return f"${whole}.{digits[:2]}{digits[2:].rstrip('0')}"


def start_of_day() -> float:
    """Unix time of the last local midnight."""
    now = time.localtime()
    return time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1))
