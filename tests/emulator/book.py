"""The emulator's books: which jobs it accepted, what it billed, and how far each one is.

The counters are the money assertion of every fault test: accepted == asked for.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field

# `seconds_per_job` of jobs that are done when the test says `finish`, and not before.
HELD = 1e9


@dataclass
class Item:
    """One image of a job."""

    id: str
    seed: int
    ready_at: float
    failed: str = ""
    nsfw: bool = False
    expired: bool = False
    deliveries: int = 0


@dataclass
class Job:
    """One accepted, and therefore billed, request."""

    id: str
    service: str
    request: dict
    started: float
    cost_usd: float
    items: list[Item]
    outcome: str = ""
    polls: int = 0
    fresh: int = 0

    def progress(self, now: float) -> float:
        last = max(item.ready_at for item in self.items)
        span = max(last - self.started, 1e-9)
        return min(1.0, max(0.0, (now - self.started) / span))

    def is_done(self, now: float) -> bool:
        return all(now >= item.ready_at for item in self.items)


@dataclass
class Book:
    """Accepted jobs by id. Thread-safe."""

    seconds_per_job: float = 0.05
    seconds_between_items: float = 0.0
    jobs: dict[str, Job] = field(default_factory=dict)
    submissions: int = 0
    conflicts: int = 0
    balance_usd: float = 100.0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def accept(self, service: str, job_id: str, request: dict, cost_usd: float, seeds: list[int]) -> Job:
        with self.lock:
            if job_id in self.jobs:
                raise KeyError(job_id)
            now = time.monotonic()
            ready = now + self.seconds_per_job
            items = [
                Item(str(uuid.uuid4()), seed, ready + index * self.seconds_between_items)
                for index, seed in enumerate(seeds)
            ]
            job = Job(job_id, service, request, now, cost_usd, items)
            self.jobs[job_id] = job
            self.balance_usd -= cost_usd
            return job

    def finish(self) -> None:
        """Every accepted job is done now, however long it was to take."""
        with self.lock:
            for job in self.jobs.values():
                for item in job.items:
                    item.ready_at = 0.0

    def find_item(self, item_id: str) -> tuple[Job, Item] | None:
        with self.lock:
            for job in self.jobs.values():
                for item in job.items:
                    if item.id == item_id:
                        return job, item
        return None

    @property
    def accepted(self) -> int:
        return len(self.jobs)

    @property
    def billed_usd(self) -> float:
        return sum(job.cost_usd for job in self.jobs.values())

    @property
    def images(self) -> int:
        return sum(len(job.items) for job in self.jobs.values())
