"""A Kleinod of the user's own that answers in a paid service's place (nodes/service): the same wire, another
address. It is free unless its owner set a price, and fast to ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...base.sentences import say
from ..errors import Refused
from ..retry import PollPace
from ..status import JobStatus
from .base import Answer, HttpCall
from .bfl import Bfl
from .runware import Runware, describe_error, read_errors

if TYPE_CHECKING:
    from ..ledger import Job

_NONE = re.compile(r"(?!)")


class _OwnServer:
    """What a server of the user's own is, whichever wire it speaks: known by its address alone."""

    title = "Your server"
    key_variable = address_variable = ""
    key_hosts = picture_hosts = _NONE
    poll_pace = PollPace(0.3, 1.3, 3.0)


class OwnRunware(_OwnServer, Runware):
    """Runware's wire, answered by the user's own server."""

    name = "own-runware"
    own_path = "/runware"
    regions: dict[str, str] = {}

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        super().estimate_usd(widgets, references)  # for what it refuses
        return 0.0

    def read_balance(self, answer: Answer) -> float | None:
        if answer.status == 403:  # not for its key, which it would call unknown: it does not let us in
            words = "; ".join(describe_error(error) for error in read_errors(answer.body, ""))
            raise Refused(say("%1 does not let this machine in: %2", self.title, words or "HTTP 403"))
        if answer.status == 404:
            raise Refused(
                say(
                    "At this address nothing answers API requests. If that is the right machine, "
                    "switch it on there under Settings > Kleinod > API that answers."
                )
            )
        return super().read_balance(answer)


class OwnBfl(_OwnServer, Bfl):
    """BFL's wire, answered by the user's own server, which knows a repeated request."""

    name = "own-bfl"
    own_path = "/bfl"
    regions: dict[str, str] = {}
    repeats_safely = True

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        super().estimate_usd(widgets, references)
        return 0.0

    def make_submit(self, base: str, job: Job, body: Mapping[str, Any]) -> HttpCall:
        return replace(super().make_submit(base, job, body), headers={"Idempotency-Key": job.id})

    # The key is an id of the job, too: it can be asked for where the answer never came.

    def make_fallback_poll(self, base: str, job: Job) -> str:
        return super().make_fallback_poll(base, _name(job))

    def read_poll(self, answer: Answer, job: Job) -> JobStatus:
        return super().read_poll(answer, _name(job))


def _name(job: Job) -> Job:
    return replace(job, vendor_id=job.vendor_id or job.id)
