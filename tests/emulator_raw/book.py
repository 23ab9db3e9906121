"""Who is owed what: every accepted job, how far it is, and what each of its pictures became."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What will become of the next accepted job. Time is counted in polls, so no test waits for a clock.

    items: one of picture, flagged, failure, moderation, never for each result; the last entry stands for
    all further ones. after: polls that find nothing ready. between: polls from one ready item to the next.
    whispers: unfinished items are not mentioned (otherwise they are listed as processing).
    lost_id: the service forgets the job (an unknown id from the start).
    """

    items: tuple[str, ...] = ("picture",)
    after: int = 1
    between: int = 0
    whispers: bool = False
    lost_id: bool = False


@dataclass
class Item:
    """One result of a job."""

    id: str
    seed: int
    fate: str
    ready_at: int
    fetched: int = 0


@dataclass
class Accepted:
    """One job on the bill."""

    service: str
    id: str
    request: dict[str, Any]
    usd: float
    items: list[Item]
    plan: Plan
    polls: int = 0

    def ready(self) -> list[Item]:
        return [item for item in self.items if item.fate != "never" and self.polls > item.ready_at]

    @property
    def is_over(self) -> bool:
        return len(self.ready()) == len(self.items)


@dataclass
class Book:
    """The accepted jobs in order, and what was planned for the next ones."""

    accepted: list[Accepted] = field(default_factory=list)
    conflicts: int = 0
    plans: deque[Plan] = field(default_factory=deque)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def accept(
        self, service: str, job_id: str, request: dict[str, Any], usd: float, seeds: list[int]
    ) -> Accepted:
        with self.lock:
            plan = self.plans.popleft() if self.plans else Plan()
            items = [
                Item(
                    str(uuid.uuid4()),
                    seed,
                    plan.items[min(index, len(plan.items) - 1)],
                    plan.after + index * plan.between,
                )
                for index, seed in enumerate(seeds)
            ]
            job = Accepted(service, job_id, request, usd, items, plan)
            self.accepted.append(job)
            return job

    def find(self, service: str, job_id: str) -> Accepted | None:
        with self.lock:
            for job in self.accepted:
                if (job.service, job.id) == (service, job_id):
                    return job
        return None

    def poll(self, service: str, job_id: str) -> Accepted | None:
        """The job, one poll further. None for an id that is unknown or forgotten."""
        with self.lock:
            job = self.find(service, job_id)
            if job is None or job.plan.lost_id:
                return None
            job.polls += 1
            return job

    def find_item(self, item_id: str) -> tuple[Accepted, Item] | None:
        with self.lock:
            for job in self.accepted:
                for item in job.items:
                    if item.id == item_id:
                        return job, item
        return None
