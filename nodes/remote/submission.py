"""Sending a job without ever paying twice, and asking for it: once for every service.

What a lost answer means decides everything here. Where a service recognises a repeated request
(`repeats_safely`), an unclear answer is followed by asking for the result, then by the same request under the
same id. Where it does not, nothing is ever sent again without the user asking for it. What provably was not
sent blocks nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..base.sentences import Sentence, say
from .concurrency import ConcurrencyLimit
from .errors import (
    Abandoned,
    JobFailed,
    MaybeBilled,
    NotReached,
    NotSent,
    Refused,
    RemoteError,
    StillRunning,
    TransportError,
    Unclear,
    Unsafe,
)
from .hosts import Endpoint
from .ledger import Job
from .retry import Deadline
from .services import name_service
from .services.base import (
    ACCEPTED,
    BALANCE,
    BUSY,
    CONFLICT,
    GONE,
    KEY,
    MODERATED,
    PERMISSION,
    REDIRECT,
    UNCLEAR,
    Answer,
    Service,
    SubmitAnswer,
)
from .status import MODERATION, Failure, JobStatus
from .transport import Transport

logger = logging.getLogger("kleinod.remote")

CONFLICT_POLLS = 4
ABANDONED = say("Interrupted before the request was sent. Nothing was billed.")


class ForeignJob(Refused):
    """The service has a job under this id that is not ours."""


@dataclass(frozen=True)
class Conversation:
    """One job's talk with its service.

    is_wanted: whether anybody still waits. tell(words, share): what to show. share None: as before.
    """

    transport: Transport
    limit: ConcurrencyLimit
    deadline: Deadline
    is_wanted: Callable[[], bool]
    tell: Callable[[Sentence, float | None], None]

    @property
    def endpoint(self) -> Endpoint:
        return self.transport.endpoint

    @property
    def service(self) -> Service:
        return self.transport.endpoint.service

    def submit(self, job: Job, body: Mapping[str, Any], resumed: bool) -> SubmitAnswer:
        """Send until accepted; the answer's kind is ACCEPTED.

        resumed: an earlier process may have sent it. Raises Refused or Abandoned when it certainly was not
        accepted, MaybeBilled when that cannot be known, StillRunning when asking later will tell.
        """
        service, title = self.service, self.service.title
        if resumed and not service.repeats_safely:
            raise _maybe_billed(title, job)
        unclear = resumed
        refusal: Refused = NotReached(say("%1 could not be reached. Nothing was sent or billed.", title))
        tries, posted = self.transport.policy.tries, False
        for attempt in range(tries):
            if unclear and (status := self.ask(job)).known:
                return SubmitAnswer(ACCEPTED, vendor_id=job.id, status=status, sent=posted)
            if not (unclear or self.is_wanted()):
                raise Abandoned(ABANDONED)
            retry_after = None
            try:
                answer = self._send(job, body, unclear)
                posted = True
            except NotSent as error:
                refusal = _not_reached(title, str(error))
            except (Unclear, Unsafe) as error:
                if not service.repeats_safely:
                    logger.warning("No usable answer from %s to job %s (%s).", title, job.id, error)
                    raise _maybe_billed(title, job) from None
                unclear = posted = True
            else:
                verdict = service.read_submit(answer, job)
                if verdict.kind == ACCEPTED:
                    return verdict
                retry_after = answer.retry_after
                unclear, refusal = self._judge(answer, verdict, job, unclear, refusal)
                if verdict.kind == CONFLICT:
                    return replace(self._answer_conflict(job, unclear), sent=attempt > 0 and not resumed)
                if verdict.kind == MODERATED:
                    failure = Failure(MODERATION, self.transport.clean(verdict.words))
                    status = JobStatus(failures=(failure,), known=True, whole=True)
                    return SubmitAnswer(ACCEPTED, vendor_id=job.id, status=status)
            if attempt < tries - 1:
                self.deadline.wait(self.transport.policy.retry(attempt, retry_after))
        if not unclear:
            raise refusal
        raise StillRunning(
            say(
                "%1 gives no clear answer (job %2). Queue again later: the job keeps its number, so "
                "it is billed once at most.",
                title,
                job.id,
            )
        )

    def ask(self, job: Job, count: int = 0) -> JobStatus:
        """The job's state as of now; `JobStatus()` where no answer came."""
        service = self.service
        call = service.make_poll(self.endpoint.base, job, count)
        try:
            self.endpoint.check_key_url(call.url)
        except Unsafe:
            logger.warning(
                "%s named a polling address that is not its own; asking %s.",
                service.title,
                self.endpoint.base,
            )
            call = service.make_poll(self.endpoint.base, replace(job, polling_url=""), count)
        try:
            answer = self.transport.ask(call, self.deadline)
        except (TransportError, Unsafe):
            return JobStatus(complaint="no answer")
        return service.read_poll(answer, job)

    def locked_out(self, job: Job, words: str) -> RemoteError:
        """Asking about a job is not allowed: the job itself may well be under way."""
        return StillRunning(
            say(
                "%1 does not let the API key of the profile '%2' ask for the job "
                "%3 (%4). It stays in the ledger: correct the key under "
                "Settings > Kleinod > API keys and queue again; it is not paid twice.",
                self.service.title,
                job.profile,
                job.id,
                self.transport.clean(words),
            )
        )

    def _send(self, job: Job, body: Mapping[str, Any], unclear: bool) -> Answer:
        call = self.service.make_submit(self.endpoint.base, job, body)

        def watch(sent: int, total: int) -> None:
            if not unclear and not self.is_wanted():
                raise Abandoned(ABANDONED)
            if self.deadline.left <= 0:
                raise NotSent(say("the deadline passed while it was being sent (raise it for a slow line)"))
            if total > 1 << 20:
                megabytes = f"{sent / 1e6:.1f}", f"{total / 1e6:.1f}"
                self.tell(say("Sending %1 of %2 MB", *megabytes), sent / total)

        answer = self.transport.submit(call, watch)
        self.tell(say("Waiting for the answer"), None)
        return answer

    def _judge(
        self, answer: Answer, verdict: SubmitAnswer, job: Job, unclear: bool, refusal: Refused
    ) -> tuple[bool, Refused]:
        """(whether it may have been accepted, what to say if it was not). Raises what ends the sending."""
        service, kind = self.service, verdict.kind
        words = self.transport.clean(verdict.words)
        if kind in (CONFLICT, MODERATED):
            return unclear, refusal
        if kind == BUSY and answer.status == 429:
            self.limit.slow_down()
            if not service.repeats_safely:
                return unclear, _refuse(BUSY, service, job, words)
        if kind in (BUSY, UNCLEAR) or not answer.whole:
            # Even a well-formed 5xx may follow an acceptance.
            if not service.repeats_safely:
                raise _maybe_billed(service.title, job)
            return True, refusal
        raise _refuse(kind, service, job, words)

    def _answer_conflict(self, job: Job, ours: bool) -> SubmitAnswer:
        """The service knows the id. If we cannot have sent it, and there is nothing to fetch, say so soon."""
        accepted = SubmitAnswer(ACCEPTED, vendor_id=job.id)
        if ours:
            return accepted
        for count in range(CONFLICT_POLLS):
            status = self.ask(job, count)
            if status.known:
                return replace(accepted, status=status)
            self.deadline.wait(self.transport.policy.poll(self.service.poll_pace, count))
        raise ForeignJob(
            say(
                "%1 already has a job with the number %2, which this computer did not send, "
                "and nothing can be fetched for it. "
                "Nothing was billed now. Queue again: the job gets another number.",
                self.service.title,
                job.id,
            )
        )


def lost(title: str, job: Job) -> JobFailed:
    return JobFailed(
        say(
            "%1 no longer knows the job %2, so its result is gone. To make the "
            "picture again, set 'take' to %3; that is a new, billed job.",
            title,
            job.vendor_id or job.id,
            job.take + 1,
        )
    )


def _not_reached(title: str, cause: str) -> NotReached:
    return NotReached(
        say(
            "%1 could not be reached: %2. Nothing was sent or billed. Repair that and queue again.",
            title,
            cause,
        )
    )


def _maybe_billed(title: str, job: Job) -> MaybeBilled:
    return MaybeBilled(
        say(
            "%1 gave no clear answer to this request and may have billed it; %1 cannot recognise a "
            "repeated request, so Kleinod does not send it again by itself. Look at the usage page of your "
            "%1 account; to send it again, set 'take' to %2.",
            title,
            job.take + 1,
        )
    )


def _refuse(kind: str, service: Service, job: Job, words: str) -> Refused:
    """The sentence for a request that was turned down before it was accepted."""
    words = words.rstrip(" .")  # the sentence around them ends itself
    title = service.title
    if service.own_path and kind == BALANCE:
        return Refused(
            say("%1 says: %2. Its owner sets what a key may have; queue again later.", title, words)
        )
    texts = {
        BALANCE: say(
            "%1 says the balance is empty. Nothing was billed for this job. Top up at %2 and queue again: "
            "the job resumes.",
            title,
            service.key_page,
        ),
        KEY: say(
            "%1 did not accept the API key of the profile '%2'. Nothing was billed. Check it with the Test "
            "button under Settings > Kleinod > API keys.",
            title,
            job.profile,
        ),
        PERMISSION: say(
            "%1 says the API key of the profile '%2' may not do this: %3. Nothing was billed.",
            title,
            job.profile,
            words,
        ),
        BUSY: say(
            "%1 is too busy and turned the job down several times (%2). Nothing was billed. "
            "Queue again in a while.",
            title,
            words,
        ),
        GONE: say("%1 does not know this model or address: %2. Nothing was billed.", title, words),
        REDIRECT: say(
            "%1 answered with a redirect, which Kleinod never follows with a key. Nothing was billed. "
            "Check the network: something stands between ComfyUI and the service.",
            title,
        ),
    }
    other = say(
        "%1 turned the request down: %2. Nothing was billed. Change that and queue again.", title, words
    )
    return Refused(texts.get(kind, other))


def refuse_key(service: Service, profile: str) -> Refused:
    """A free question has shown that the key does not work."""
    return Refused(
        say(
            "%1 did not accept the API key of the profile '%2'. Nothing was sent or billed. "
            "Save a working one under Settings > Kleinod > API keys.",
            service.title,
            profile,
        )
    )


def explain_pending(service: str, job: Job, words: str) -> StillRunning:
    return StillRunning(
        say(
            "%1 %2 (job %3). Nothing is lost: queue again and the job is picked "
            "up without a second bill, or fetch it later from the Klein Jobs panel.",
            name_service(service),
            words,
            job.id,
        )
    )
