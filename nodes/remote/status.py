"""What every service says about a job, in one vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

FAILURE, MODERATION = "failure", "moderation"


@dataclass(frozen=True)
class RemoteImage:
    """One finished picture: an address to fetch it from, or its base64. worker: which card of a cluster drew
    it, where that is told.
    """

    item_id: str
    seed: int | None = None
    url: str = ""
    data: str = ""
    cost_usd: float | None = None
    nsfw: bool = False
    worker: str = ""


@dataclass(frozen=True)
class Failure:
    """What stands in the place of a picture, in the service's own words. kind: failure | moderation."""

    kind: str
    message: str


@dataclass(frozen=True)
class JobStatus:
    """The state of a job as of one poll.

    known: the service has heard of the job. working: it says that more is to come. whole: a failure that
    stands for the whole job, not for one picture of it. missing: it says that there is no such job.
    refused: it does not let us ask (the key, the balance). progress: 0..1 or None. words: what it says about
    itself. complaint: an error that decides nothing about the job (rate limit, a busy server), told if the
    deadline comes.
    """

    images: tuple[RemoteImage, ...] = ()
    failures: tuple[Failure, ...] = ()
    known: bool = False
    working: bool = False
    whole: bool = False
    missing: bool = False
    refused: bool = False
    progress: float | None = None
    words: str = ""
    complaint: str = ""
