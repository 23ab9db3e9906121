"""One job from its request to its pictures: price, place in the queue, sending, following, handing over."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace

from ..base.errors import InputError
from ..base.sentences import Sentence, say
from .accounts import Accounts
from .allowed_hosts import AllowedHosts
from .concurrency import RequestLocks, name_lock
from .errors import (
    Abandoned,
    JobFailed,
    MaybeBilled,
    NotReached,
    NotSent,
    Refused,
    RemoteError,
    StillRunning,
    StorageError,
)
from .folder import refuse_folder
from .following import Follower, read_images
from .job_request import ON_ITS_WAY, PRICE_OFF, WITH_SERVICE, JobRequest, JobResult, RunningJob
from .ledger import (
    ACCEPTED,
    FAILED,
    MODERATED,
    REFUSED,
    SAVED,
    SUBMITTING,
    UNKNOWN,
    Job,
    Ledger,
    format_usd,
)
from .prices import estimate_from_history
from .result_store import ResultStore
from .services import find_service, name_service
from .submission import ABANDONED, Conversation, ForeignJob, explain_pending, lost

logger = logging.getLogger("kleinod.remote")


class JobRunner:
    """Runs one job at a time in the calling thread; several threads may do so at once."""

    def __init__(
        self,
        ledger: Ledger,
        store: ResultStore,
        hosts: AllowedHosts,
        locks: RequestLocks,
        accounts: Accounts,
    ) -> None:
        self.ledger, self.store, self.hosts = ledger, store, hosts
        self.locks, self.accounts = locks, accounts
        # Accepted jobs that could not be written down, as on a full disk.
        self._unwritten: dict[str, Job] = {}

    def tell_price(self, request: JobRequest) -> JobResult:
        """The price of a request. Nothing is sent but a free question, whether the key works."""
        started = time.monotonic()
        estimate = estimate_from_history(self.ledger, request)
        note = Sentence("")
        try:
            self.accounts.ask_balance(request.service, request.profile)
        except RemoteError:
            raise
        except NotSent as error:
            note = say("the key could not be checked: %1", error)
        except Exception:  # noqa: BLE001 - the price is known all the same
            note = say("the key could not be checked: the service gave no usable answer")
        seconds = time.monotonic() - started
        return JobResult(request.service, estimate_usd=estimate, seconds=seconds, note=note)

    def run(self, request: JobRequest, running: RunningJob) -> JobResult:
        started = time.monotonic()
        talk = self.accounts.converse(
            self.accounts.find_endpoint(request.service, request.profile, request.region, request.base),
            request.profile,
            running,
            request.context.limits.concurrency,
        )
        estimate = estimate_from_history(self.ledger, request)
        if request.price_check != PRICE_OFF:
            talk.tell(say("Price: about %1", format_usd(estimate)), None)
        request = replace(request, estimate_usd=estimate)
        name = name_lock(request.request_hash, request.take)
        talk.tell(say("Waiting for a free place"), None)
        with self.locks.hold(name, running.is_wanted, running.deadline):
            known = self.ledger.find(request.request_hash, request.take)
            if known is not None and self._is_here(known):
                return self._hand_over(known, started, False, running)
            if not running.is_wanted():
                raise Abandoned(ABANDONED)
            if not talk.limit.enter(running.is_wanted, running.deadline):
                raise Abandoned(ABANDONED)
            good = False
            try:
                job, fresh = self._claim(request)
                job, sent = self._submit(job, fresh, request, talk, running)
                running.reach = WITH_SERVICE
                job = self._make_follower(talk, running).follow(job)
                good = True
            finally:
                talk.limit.leave(good)
            return self._hand_over(job, started, sent, running)

    def _claim(self, request: JobRequest) -> tuple[Job, bool]:
        try:
            return self.ledger.claim(request)
        except sqlite3.Error as error:
            raise refuse_folder(self.accounts.keys.folder, error) from None

    def _submit(
        self, job: Job, fresh: bool, request: JobRequest, talk: Conversation, running: RunningJob
    ) -> tuple[Job, bool]:
        """The accepted job, and whether it was sent now. Raises what keeps it from being accepted."""
        if job.id in self._unwritten:
            return self._unwritten[job.id], False
        if job.state == UNKNOWN:
            raise MaybeBilled(Sentence(job.message))
        if job.state != SUBMITTING:
            return job, False
        self._keep_prompt(job, request.prompt)
        running.reach = ON_ITS_WAY
        talk.tell(say("Sending") if fresh else say("Looking for the earlier job"), None)
        began = time.monotonic()
        try:
            answer = talk.submit(job, request.body, not fresh)
        except StillRunning as error:
            raise explain_pending(job.service, job, say("gives no clear answer")) from error
        except ForeignJob as error:
            job = self.ledger.renumber(job.id)
            self._note_failure(job, error)
            raise
        except RemoteError as error:
            self._note_failure(job, error)
            raise
        # The log first: it can be read when nothing can be written down any more.
        logger.info("%s accepted job %s.", talk.service.title, answer.vendor_id)
        accepted = replace(
            job,
            state=ACCEPTED,
            vendor_id=answer.vendor_id,
            polling_url=answer.polling_url,
            cost_usd=answer.cost_usd,
        )
        self._unwritten[job.id] = accepted
        written = self.write(
            lambda: self.ledger.accept(job.id, answer.vendor_id, answer.polling_url, answer.cost_usd)
        )
        if written is not None:
            del self._unwritten[job.id]
        else:
            logger.error(
                "The job %s of %s could not be written down; its polling address is %s.",
                answer.vendor_id,
                talk.service.title,
                talk.transport.clean(answer.polling_url) or "none",
            )
        running.began = began if answer.sent else None
        job = written or accepted
        if answer.status is not None:
            job = self._make_follower(talk, running).take_in(job, answer.status)
        return job, answer.sent

    def _make_follower(self, talk: Conversation, running: RunningJob) -> Follower:
        return Follower(self.ledger, self.store, self.hosts, talk, running)

    def _keep_prompt(self, job: Job, prompt: str) -> None:
        """For the job panel. Without it, the job is as good."""
        try:
            self.store.keep_prompt(job.id, prompt)
        except (OSError, StorageError):
            logger.warning("The prompt of job %s could not be kept for the Klein Jobs panel.", job.id)

    def _note_failure(self, job: Job, error: RemoteError) -> None:
        state = UNKNOWN if isinstance(error, MaybeBilled) else REFUSED
        if isinstance(error, (Refused, Abandoned, MaybeBilled)):
            self.write(lambda: self.ledger.update(job.id, state=state, message=str(error)))
        if isinstance(error, (NotReached, Abandoned)):
            self.write(lambda: self.ledger.note_unsent(job.id))

    def write(self, work: Callable[[], Job]) -> Job | None:
        """What cannot be written down now must not cost a picture; None then."""
        try:
            return work()
        except (sqlite3.Error, OSError, StorageError):
            logger.exception("The ledger of paid jobs cannot be written.")
            return None

    # --- handing over ---------------------------------------------------------------------------------------

    def _hand_over(self, job: Job, started: float, sent: bool, running: RunningJob) -> JobResult:
        title = name_service(job.service)
        if job.state == FAILED:
            words = job.message.rstrip(" .")
            raise JobFailed(
                say(
                    "%1 accepted the job and then failed: %2. Whether a failed job is billed is "
                    "between you and %1. Queue again to try anew.",
                    title,
                    words,
                )
            )
        images = read_images(self.ledger, self.store, job, running)
        if images is None:
            raise lost(title, job)
        arrived = sum(image.pixels is not None for image in images)
        note = Sentence("")
        if job.state == ACCEPTED:
            note = say(
                "%1 of %2 pictures have come in time: the job goes on and Recover in the Klein Jobs panel "
                "fetches the others",
                arrived,
                job.wanted,
            )
        self.store.trim(lambda job_id: job_id != job.id and self._is_delivered(job_id))
        return JobResult(
            job.service,
            images,
            job,
            job.cost_usd,
            sent,
            time.monotonic() - started,
            job.estimate_usd,
            note,
        )

    def _is_delivered(self, job_id: str) -> bool:
        try:
            return bool(self.ledger.read(job_id).delivered)
        except InputError:
            return True

    def _is_here(self, job: Job) -> bool:
        """Whether the job is settled and its files are all in the store; opens it again where one is gone."""
        if job.state not in (SAVED, MODERATED):
            return False
        files = [item.file for item in self.ledger.items(job.id) if item.kind == "picture"]
        if all(self.store.read(name) is not None for name in files):
            return True
        self.ledger.update(job.id, state=ACCEPTED)
        self.ledger.forget_items(job.id)
        return False

    def fetch(self, job: Job, running: RunningJob) -> JobResult:
        """The pictures of an earlier job, from the store or the service; it is never sent."""
        started = time.monotonic()
        name = name_lock(job.request_hash, job.take)
        with self.locks.hold(name, running.is_wanted, running.deadline):
            job = self._unwritten.get(job.id) or self.ledger.read(job.id)
            if self._is_here(job):
                return self._hand_over(job, started, False, running)
            job = self._unwritten.get(job.id) or self.ledger.read(job.id)
            if job.state in (REFUSED, FAILED, UNKNOWN) and not job.vendor_id:
                raise JobFailed(
                    say("There is nothing to fetch for the job %1: %2", job.id, job.message or job.state)
                )
            service = find_service(job.service)
            if job.state == SUBMITTING and not service.repeats_safely:
                raise JobFailed(
                    say(
                        "%1's answer to this job never arrived, so its number is unknown and it "
                        "cannot be fetched.",
                        service.title,
                    )
                )
            running.reach = WITH_SERVICE
            endpoint = self.accounts.find_endpoint_at(job.service, job.profile, job.base)
            talk = self.accounts.converse(endpoint, job.profile, running)
            if job.state != ACCEPTED:
                job = self.ledger.update(job.id, state=ACCEPTED, vendor_id=job.vendor_id or job.id)
            job = self._make_follower(talk, running).follow(job)
            return self._hand_over(job, started, False, running)
