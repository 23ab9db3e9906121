"""What travels with a paid job: the order, everyone who waits for it, and what comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from .ledger import Claim, Job


@dataclass(frozen=True)
class Order:
    """A claim and how to handle it. price_check: off | show | only."""

    claim: Claim
    region: str = "global"
    deadline_seconds: float = 600.0
    price_check: str = "off"
    concurrency: int = 4


@dataclass(frozen=True)
class Picture:
    """One result: `pixels` `[H, W, 3]` float32, or None where moderation or a failure kept it back."""

    pixels: np.ndarray | None
    seed: int | None
    nsfw: bool = False
    cost_usd: float | None = None
    item_id: str = ""
    kind: str = "picture"
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a node gets: pictures in order, what they cost, and how the job went."""

    job: Job
    pictures: tuple[Picture, ...]
    cost_usd: float | None
    paid_now: bool
    seconds: float
    price_usd: float | None = None


@dataclass
class Status:
    """What to show while waiting."""

    words: str = "Preparing"
    progress: float = 0.0


class Flight:
    """One request under way, with everyone who waits for it."""

    def __init__(self) -> None:
        self.status = Status()
        self.done = threading.Event()
        # Pixels already decoded, and how often a result turned out unusable, by item id.
        self.pixels: dict[str, np.ndarray] = {}
        self.bad: dict[str, int] = {}
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self._riders = 0
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def board(self) -> None:
        with self._lock:
            self._riders += 1

    def leave(self) -> None:
        with self._lock:
            self._riders -= 1

    def is_wanted(self) -> bool:
        return self._riders > 0

    def outcome_for(self, leader: bool) -> Outcome | None:
        """The outcome as the one who paid sees it, or as one who came along does."""
        return self.outcome if leader or self.outcome is None else replace(self.outcome, paid_now=False)

    def on_done(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self.done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def finish(self, outcome: Outcome | None, error: Exception | None) -> None:
        with self._lock:
            self.outcome, self.error = outcome, error
            self.done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


@dataclass
class Ticket:
    """One node's place on a flight. `leave` gives it up: an unsent request is then not sent."""

    flight: Flight | None = None
    left: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    outcome: Outcome | None = None
    _callbacks: list[Callable[[], None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def status(self) -> Status:
        return self.flight.status if self.flight else Status()

    def leave(self) -> None:
        with self._lock:
            already, self.left = self.left, True
        if not already and self.flight:
            self.flight.leave()

    def result(self) -> Outcome:
        if self.error is not None:
            raise self.error
        return self.outcome

    def on_done(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self.done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def settle(self, outcome: Outcome | None, error: Exception | None) -> None:
        with self._lock:
            self.outcome, self.error = outcome, error
            self.done.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()


def describe_unsent(claim: Claim) -> Job:
    """A row for a request whose price was only asked; it is in no ledger."""
    now = time.time()
    return Job(
        id="",
        vendor_id="",
        polling_url="",
        state="priced",
        attempt=0,
        cost_usd=None,
        summary="{}",
        message="",
        created=now,
        updated=now,
        delivered=0,
        service=claim.service,
        request_hash=claim.request_hash,
        take=claim.take,
        profile=claim.profile,
        base=claim.base,
        endpoint=claim.endpoint,
        node_id=claim.node_id,
        prompt_id=claim.prompt_id,
        wanted=claim.wanted,
        estimate_usd=claim.estimate_usd,
    )
