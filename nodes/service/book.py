"""Everything that must outlive a crash, in one SQLite file: keys, jobs, pictures and uploads.

A job is written before it is accepted and known by its key and its task id: the same body again is the same
job, another body is a conflict. Each of its pictures is a row of its own, queued, running, done or failed;
what was running when the process died is queued again by `recover`. One process has the file at a time.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import InputError
from ..base.sentences import say
from .clock import Clock
from .drawing import Drawing
from .messages import Refusal

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
OPEN = (QUEUED, RUNNING)
DAY = 86400.0
MAX_ATTEMPTS = 3
FILE, LOCK = "api.sqlite", "api.lock"

_TABLES = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists keys (
    id integer primary key, name text not null unique, hash text not null, at_once integer not null,
    a_day integer not null, created real not null, revoked integer not null default 0);
create table if not exists jobs (
    id text primary key, key_id integer not null, task text not null, dialect text not null,
    body_hash text not null, terms text not null, created real not null, unique (key_id, task));
create table if not exists pictures (
    id text primary key, job text not null, key_id integer not null, position integer not null,
    seed text not null, drawing text not null, state text not null, attempts integer not null default 0,
    error_code text not null default '', error text not null default '', file text not null default '',
    width integer not null default 0, height integer not null default 0, seconds real not null default 0,
    finished real, expires real, errand text not null default '', tries integer not null default 0,
    next_try real not null default 0, flagged integer not null default 0);
create table if not exists media (
    id text primary key, key_id integer not null, file text not null, expires real not null);
create index if not exists pictures_by_job on pictures (job, position);
create index if not exists pictures_by_state on pictures (state, key_id);
create index if not exists pictures_by_errand on pictures (errand, next_try) where errand != '';
create index if not exists jobs_by_key on jobs (key_id, created);
"""


@dataclass(frozen=True)
class Job:
    """An accepted request. task: its id, by the client or by us. terms: how it is delivered, as JSON of its
    dialect.
    """

    id: str
    key_id: int
    task: str
    dialect: str
    body_hash: str
    terms: str
    created: float


@dataclass(frozen=True)
class Picture:
    """One picture of a job. seed: the one asked for. errand: what still has to be sent out about it.
    flagged: whether a classifier would not show it.
    """

    id: str
    job: str
    key_id: int
    position: int
    seed: int
    drawing: str
    state: str
    attempts: int
    error_code: str
    error: str
    file: str
    width: int
    height: int
    seconds: float
    finished: float | None
    expires: float | None
    errand: str
    tries: int
    flagged: bool = False

    @property
    def is_over(self) -> bool:
        return self.state not in OPEN


class Book:
    """The file in `folder`. Raises InputError where another process has it, or it cannot be written. now: the
    clock of everything that is written here.
    """

    def __init__(self, folder: Path, now: Callable[[], float] | None = None) -> None:
        self.now = now or Clock()
        self._mutex = threading.RLock()
        # Held until this process ends, however it ends; a file of its own, so that readers are not kept out.
        self._lock = sqlite3.connect(
            folder / LOCK, isolation_level=None, check_same_thread=False, timeout=0.5
        )
        try:
            self._lock.execute("begin exclusive")
            self._base = sqlite3.connect(
                folder / FILE, isolation_level=None, check_same_thread=False, timeout=10
            )
            self._base.row_factory = sqlite3.Row
            self._base.execute("pragma journal_mode = wal")
            self._base.execute("pragma synchronous = normal")
            self._base.executescript(_TABLES)
            self._add_column("pictures", "flagged", "integer not null default 0")
        except sqlite3.Error as error:
            self._lock.close()
            raise InputError(
                say(
                    "The jobs of Kleinod's API in %1 cannot be opened (%2): "
                    "another ComfyUI or cluster may answer from the same folder. "
                    "Stop it, or give this one a folder of its own: "
                    "--base-directory of ComfyUI, --data of run.py cluster.",
                    folder,
                    error,
                )
            ) from None

    def _add_column(self, table: str, name: str, kind: str) -> None:
        """To a file of an earlier Kleinod."""
        if name not in {row["name"] for row in self._base.execute(f"pragma table_info({table})")}:
            self._base.execute(f"alter table {table} add column {name} {kind}")

    def close(self) -> None:
        with self._mutex:
            self._base.close()
            self._lock.close()

    def read(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._mutex:
            return self._base.execute(query, values).fetchall()

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Rows changed."""
        with self._mutex:
            return self._base.execute(statement, values).rowcount

    @contextmanager
    def _whole(self) -> Iterator[None]:
        with self._mutex:
            self._base.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._base.execute("rollback")
                raise
            self._base.execute("commit")

    def fact(self, name: str, default: str) -> str:
        """A value kept under a name, `default` from the first time on."""
        self.write("insert or ignore into facts values (?, ?)", (name, default))
        return self.read("select value from facts where name = ?", (name,))[0]["value"]

    # --- Jobs

    def find_job(self, key_id: int, task: str) -> Job | None:
        rows = self.read("select * from jobs where key_id = ? and task = ?", (key_id, task))
        return Job(**rows[0]) if rows else None

    def read_job(self, job_id: str) -> Job | None:
        rows = self.read("select * from jobs where id = ?", (job_id,))
        return Job(**rows[0]) if rows else None

    def accept(
        self, key: Any, task: str, dialect: str, body_hash: str, terms: str,
        drawings: Sequence[Drawing], seeds: Sequence[int], most_open: int,
    ) -> tuple[Job, bool]:  # fmt: skip
        """(the job, whether it is new), written down with all its pictures or not at all. key: an ApiKey.

        Raises Refusal for another body under the same id, and where a limit of the key or of the whole queue
        is reached.
        """
        now = self.now()
        with self._whole():
            found = self.find_job(key.id, task)
            if found is not None:
                if found.body_hash != body_hash:
                    raise Refusal(
                        400, "conflictTaskUUID",
                        "A task with this taskUUID was sent before, and it was another.", "taskUUID",
                    )  # fmt: skip
                return found, False
            self._check_room(key, len(drawings), most_open, now)
            job = Job(str(uuid.uuid4()), key.id, task, dialect, body_hash, terms, now)
            self._base.execute("insert into jobs values (?, ?, ?, ?, ?, ?, ?)", tuple(vars(job).values()))
            self._base.executemany(
                "insert into pictures (id, job, key_id, position, seed, drawing, state) "
                "values (?, ?, ?, ?, ?, ?, 'queued')",
                [
                    (str(uuid.uuid4()), job.id, key.id, position, str(seed), drawing.to_json())
                    for position, (drawing, seed) in enumerate(zip(drawings, seeds, strict=True))
                ],
            )
        return job, True

    def _check_room(self, key: Any, more: int, most_open: int, now: float) -> None:
        counts = "select count(*) from pictures where state in ('queued', 'running')"
        own = self._base.execute(f"{counts} and key_id = ?", (key.id,)).fetchone()[0]
        if own + more > key.at_once:
            raise Refusal(
                429, "rateLimitExceeded",
                f"This key has {own} pictures open, and {key.at_once} is its limit: wait for some of them.",
            )  # fmt: skip
        if self._base.execute(counts).fetchone()[0] + more > most_open:
            raise Refusal(429, "rateLimitExceeded", f"{most_open} pictures are waiting: try again later.")
        if key.a_day and self.count_today(key.id, now) >= key.a_day:
            raise Refusal(
                402, "insufficientCredits", f"This key has had its {key.a_day} jobs of the last 24 hours."
            )

    def count_today(self, key_id: int, now: float | None = None) -> int:
        since = (now or self.now()) - DAY
        query = "select count(*) from jobs where key_id = ? and created > ?"
        return self.read(query, (key_id, since))[0][0]

    # --- Pictures

    def pictures(self, job_id: str) -> list[Picture]:
        return _pictures(self.read("select * from pictures where job = ? order by position", (job_id,)))

    def find_picture(self, picture_id: str) -> Picture | None:
        found = _pictures(self.read("select * from pictures where id = ?", (picture_id,)))
        return found[0] if found else None

    def waiting_keys(self) -> list[int]:
        query = "select distinct key_id from pictures where state = 'queued'"
        return [row[0] for row in self.read(query)]

    def take(self, key_id: int) -> Picture | None:
        """The oldest waiting picture of a key, which is running from now on."""
        with self._whole():
            rows = self._base.execute(
                "select * from pictures where state = 'queued' and key_id = ? order by rowid limit 1",
                (key_id,),
            ).fetchall()
            if not rows:
                return None
            self._base.execute(
                "update pictures set state = 'running', attempts = attempts + 1 where id = ?",
                (rows[0]["id"],),
            )
        return self.find_picture(rows[0]["id"])

    def put_back(self, picture_id: str) -> None:
        """Not run after all, and not counted."""
        self.write(
            "update pictures set state = 'queued', attempts = max(0, attempts - 1) "
            "where id = ? and state = 'running'",
            (picture_id,),
        )

    def finish(
        self, picture_id: str, file: str, size: tuple[int, int], seconds: float, expires: float, errand: str,
        flagged: bool = False,
    ) -> bool:  # fmt: skip
        """Whether it was running: a picture is done once."""
        return bool(
            self.write(
                "update pictures set state = 'done', file = ?, width = ?, height = ?, seconds = ?, "
                "finished = ?, expires = ?, errand = ?, flagged = ? where id = ? and state = 'running'",
                (file, *size, seconds, self.now(), expires, errand, flagged, picture_id),
            )
        )

    def fail(self, picture_id: str, code: str, words: str, errand: str = "") -> None:
        self.write(
            "update pictures set state = 'failed', error_code = ?, error = ?, finished = ?, errand = ? "
            "where id = ? and state in ('queued', 'running')",
            (code, words[:1000], self.now(), errand, picture_id),
        )

    def recover(self) -> int:
        """What ran when the process died waits again, but not for ever. How many pictures that are.

        What was to be sent later is due now: the clock of an earlier life may have been another.
        """
        self.write("update pictures set next_try = 0 where errand != ''")
        for picture in _pictures(
            self.read("select * from pictures where state = 'running' and attempts >= ?", (MAX_ATTEMPTS,))
        ):
            self.fail(
                picture.id, "processingFailed",
                f"The server ended {picture.attempts} times while it made this picture.",
            )  # fmt: skip
        return self.write("update pictures set state = 'queued' where state = 'running'")

    def count(self) -> dict[str, int]:
        """Pictures by state."""
        found = {state: 0 for state in (QUEUED, RUNNING, DONE, FAILED)}
        return found | dict(map(tuple, self.read("select state, count(*) from pictures group by state")))

    # --- Errands: webhooks and uploads

    def due_errands(self, now: float, most: int = 16) -> list[Picture]:
        query = "select * from pictures where errand != '' and next_try <= ? order by next_try limit ?"
        return _pictures(self.read(query, (now, most)))

    def next_errand(self) -> float | None:
        return self.read("select min(next_try) from pictures where errand != ''")[0][0]

    def set_errand(self, picture_id: str, errand: str, next_try: float = 0.0, tries: int = 0) -> None:
        self.write(
            "update pictures set errand = ?, next_try = ?, tries = ? where id = ?",
            (errand, next_try, tries, picture_id),
        )

    def note_upload(self, picture_id: str, words: str) -> None:
        """A finished picture that could not be uploaded: it is kept, and the answer says so."""
        self.write(
            "update pictures set error_code = 'uploadFailed', error = ? where id = ?", (words, picture_id)
        )

    # --- Uploads of clients, and what is over

    def add_media(self, key_id: int, file: str, expires: float) -> str:
        media_id = str(uuid.uuid4())
        self.write("insert into media values (?, ?, ?, ?)", (media_id, key_id, file, expires))
        return media_id

    def find_media(self, key_id: int, media_id: str) -> str | None:
        rows = self.read("select file from media where id = ? and key_id = ?", (media_id, key_id))
        return rows[0]["file"] if rows else None

    def drop_media(self, key_id: int, media_id: str) -> bool:
        return bool(self.write("delete from media where id = ? and key_id = ?", (media_id, key_id)))

    def forget(self, now: float, keep_seconds: float) -> None:
        """Jobs that are over since `keep_seconds`, with their prompts, and uploads past their time."""
        with self._whole():
            self._base.execute("delete from media where expires < ?", (now,))
            self._base.execute(
                "delete from jobs where created < ? and not exists (select 1 from pictures "
                "where job = jobs.id and (state in ('queued', 'running') or errand != '' or finished > ?))",
                (now - keep_seconds, now - keep_seconds),
            )
            self._base.execute("delete from pictures where job not in (select id from jobs)")

    def files_in_use(self) -> set[str]:
        """Every file of the store that a row still needs."""
        used = {row["file"] for row in self.read("select file from media")}
        for row in self.read("select drawing from pictures where state in ('queued', 'running')"):
            drawing = Drawing.from_json(row["drawing"])
            used.update({*drawing.references, drawing.mask})
        return used

    def expired(self, now: float) -> list[Picture]:
        return _pictures(
            self.read("select * from pictures where file != '' and expires < ? and errand = ''", (now,))
        )

    def oldest_files(self) -> list[Picture]:
        return _pictures(
            self.read("select * from pictures where file != '' and errand = '' order by finished")
        )

    def drop_file(self, picture_id: str) -> None:
        self.write("update pictures set file = '' where id = ?", (picture_id,))


def _pictures(rows: Sequence[sqlite3.Row]) -> list[Picture]:
    names = Picture.__dataclass_fields__
    # A seed may be larger than any integer of SQLite.
    rows_read: list[dict[str, Any]] = [{name: row[name] for name in names} for row in rows]
    return [
        Picture(**{**values, "seed": int(values["seed"]), "flagged": bool(values["flagged"])})
        for values in rows_read
    ]
