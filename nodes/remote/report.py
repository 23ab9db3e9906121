"""What both services say about a job, in one vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

FAILURE, MODERATION = "failure", "moderation"


@dataclass(frozen=True)
class Result:
    """One finished picture: an address to fetch it from, or its base64."""

    item_id: str
    seed: int | None = None
    url: str = ""
    data: str = ""
    cost_usd: float | None = None
    nsfw: bool = False


@dataclass(frozen=True)
class Failure:
    """What stands in the place of a picture. kind: failure | moderation."""

    kind: str
    message: str


@dataclass(frozen=True)
class Report:
    """The state of a job as of one poll.

    known: the service has heard of the job. working: it says more is to come. final: it says nothing is to
    come.
    progress: 0..1 or None.
    """

    results: tuple[Result, ...] = ()
    failures: tuple[Failure, ...] = ()
    known: bool = False
    working: bool = False
    final: bool = False
    progress: float | None = None
    words: str = ""
