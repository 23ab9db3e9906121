"""What travels with a paid job: the request, who waits for it, and what comes back."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.sentences import Sentence, say
from .hosts import make_endpoint
from .limits import Limits
from .profiles import check_profile
from .retry import Deadline

if TYPE_CHECKING:
    from .ledger import Job
    from .services.base import Service

PRICE_CHECKS = ("off", "show before the run", "only show the price")
PRICE_OFF, PRICE_SHOW, PRICE_ONLY = PRICE_CHECKS
# How far a request has come. With the service it goes on without anybody, and is paid.
UNSENT, ON_ITS_WAY, WITH_SERVICE = "unsent", "on its way", "with the service"


@dataclass(frozen=True)
class RunContext:
    """Which node of which run asks, and the limits in force."""

    node_id: str = ""
    prompt_id: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True)
class JobRequest:
    """One job as asked for. `body` is hashed, never stored; it does not hold the job's id.

    wanted: pictures. summary: what the ledger may keep of it, without prompt and pictures. price_check: one
    of PRICE_CHECKS. prompt: what the job panel shows; it lies where the pictures lie, not in the ledger.
    """

    service: str
    base: str
    endpoint: str
    body: Mapping[str, Any]
    profile: str = "default"
    take: int = 0
    wanted: int = 1
    estimate_usd: float = 0.0
    summary: Mapping[str, Any] = field(default_factory=dict)
    context: RunContext = RunContext()
    region: str = "global"
    deadline_seconds: float = 600.0
    price_check: str = PRICE_OFF
    prompt: str = ""

    @property
    def request_hash(self) -> str:
        """The identity of the request: what is asked for, where and on whose account."""
        return self._hash(self.body)

    @property
    def family_hash(self) -> str:
        """The identity of the request whatever its seed."""
        return self._hash({name: value for name, value in self.body.items() if name != "seed"})

    def with_seed(self, seed: int) -> JobRequest:
        """The same request with another seed."""
        return replace(self, body={**self.body, "seed": seed}, summary={**self.summary, "seed": seed})

    def _hash(self, body: Mapping[str, Any]) -> str:
        whole = {
            "service": self.service,
            "base": self.base,
            "endpoint": self.endpoint,
            "profile": self.profile,
            "body": body,
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class ReceivedImage:
    """One result: `pixels` `[H, W, 3]` float32, or None where moderation or a failure kept it back."""

    pixels: np.ndarray | None
    seed: int | None
    nsfw: bool = False
    cost_usd: float | None = None
    item_id: str = ""
    kind: str = "picture"
    message: str = ""


@dataclass(frozen=True)
class JobResult:
    """What a node gets: pictures in order, what they cost, and how the job went.

    job: None where only the price was asked. paid_now: whether this run sent the job. note: what else the
    user should know.
    """

    service: str
    images: tuple[ReceivedImage, ...] = ()
    job: Job | None = None
    cost_usd: float | None = None
    paid_now: bool = False
    seconds: float = 0.0
    estimate_usd: float = 0.0
    note: Sentence = Sentence("")


@dataclass
class Progress:
    """What to show while waiting."""

    words: Sentence = say("Preparing")
    share: float = 0.0


class RunningJob:
    """One request under way, shared by everyone who waits for it."""

    def __init__(self, seconds: float) -> None:
        self.future: Future[JobResult] = Future()
        self.progress = Progress()
        self.deadline = Deadline(seconds)
        self.riders = 0
        # When the request was sent, where that was in this run.
        self.began: float | None = None
        # What an interrupt does not take back.
        self.reach = UNSENT
        # What has arrived so far, and how often a result turned out unusable, by item id.
        self.received: dict[str, ReceivedImage] = {}
        self.unusable: Counter[str] = Counter()

    def is_wanted(self) -> bool:
        return self.riders > 0


class JobHandle(Future[JobResult]):
    """One node's share in a running job. `leave` gives it up: an unsent request is then not sent."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self.job: RunningJob | None = None
        self.left = False
        self._engine_lock = lock

    @property
    def progress(self) -> Progress:
        return self.job.progress if self.job else Progress()

    @property
    def reach(self) -> str:
        """How far the request has come: one of UNSENT, ON_ITS_WAY, WITH_SERVICE."""
        return self.job.reach if self.job else UNSENT

    def join(self, job: RunningJob) -> None:
        """Take part. The caller holds the engine's lock."""
        self.job = job
        if not self.left:
            job.riders += 1

    def leave(self) -> None:
        with self._engine_lock:
            if not self.left and self.job is not None:
                self.job.riders -= 1
            self.left = True


def make_job_request(
    service: Service,
    context: RunContext,
    body: Mapping[str, Any],
    endpoint: str,
    prompt: str,
    summary: Mapping[str, Any],
    inputs: Mapping[str, Any],
    *,
    wanted: int = 1,
    estimate_usd: float = 0.0,
) -> JobRequest:
    """A service's `body` with what every node says about handling it (`fields.py`) from its `inputs`.

    The prompt stays out of the ledger; its fingerprint tells two jobs apart in the list.
    """
    region = str(inputs.get("region", ""))
    fingerprint = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    request = strip_request(body, service.private)
    return JobRequest(
        service.name,
        make_endpoint(service, region).base,
        endpoint,
        body,
        profile=check_profile(inputs.get("profile", "default")),
        take=inputs.get("take", 0),
        wanted=wanted,
        estimate_usd=estimate_usd,
        summary={**summary, "prompt_sha256": fingerprint, "request": request},
        context=context,
        region=region,
        deadline_seconds=inputs.get("deadline", 600),
        price_check=inputs.get("price_check", PRICE_OFF),
        prompt=prompt,
    )


def strip_request(body: Mapping[str, Any], private: frozenset[str]) -> dict[str, Any]:
    """A request without texts, pictures, addresses and id: what the ledger may keep and the panel copy."""
    return {
        name: strip_request(value, private) if isinstance(value, Mapping) else value
        for name, value in body.items()
        if name not in private
    }
