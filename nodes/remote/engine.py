"""Runs paid jobs in threads of their own, one for each distinct request.

A running job outlives the node that started it: when the user interrupts, a neighbour node fails or the event
loop of the prompt closes, an accepted job is still fetched, because it is paid for either way. The next node
that asks for the same request joins it, or finds its result in the store. After a crash the ledger says what
to ask for. A request that differs from an undelivered job in its seed alone gets that job's picture first:
ComfyUI draws a new seed whenever it queues, and the picture of an interrupted run would be paid twice.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from pathlib import Path

from ..base.errors import InputError
from .allowed_hosts import AllowedHosts
from .concurrency import ConcurrencyLimit, RequestLocks, name_lock
from .errors import (
    Abandoned,
    JobFailed,
    MaybeBilled,
    Refused,
    RemoteError,
    StillRunning,
    StorageError,
)
from .folder import refuse_folder
from .following import Follower, read_images
from .hosts import Endpoint, make_endpoint, make_endpoint_at
from .job_request import PRICE_OFF, PRICE_ONLY, JobHandle, JobRequest, JobResult, RunningJob
from .keys import KeyStore
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
from .retry import RetryPolicy
from .services import find_service, name_service
from .submission import (
    ABANDONED,
    Conversation,
    ForeignJob,
    explain_pending,
    lost,
    refuse_key,
)
from .transport import Transport

logger = logging.getLogger("kleinod.remote")
# A node gives up this much later than the job itself, whose own sentence says more.
_GRACE_SECONDS = 5.0
_CHECK_SECONDS = 15.0


class Engine:
    """Everything a remote node needs. `folder` is the pack's protected user folder."""

    def __init__(
        self,
        folder: Path,
        *,
        policy: RetryPolicy | None = None,
        keys: KeyStore | None = None,
        store_bytes: int | None = None,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.keys = keys or KeyStore(folder)
        self.ledger = Ledger(folder)
        self.store = ResultStore(folder / "spool", *([] if store_bytes is None else [store_bytes]))
        self.hosts = AllowedHosts(folder)
        self.locks = RequestLocks(folder / "locks")
        self._running: dict[tuple[str, int], RunningJob] = {}
        self._limits: dict[tuple[str, str], ConcurrencyLimit] = {}
        self._transports: dict[tuple[str, str, str], Transport] = {}
        # Accepted jobs that could not be written down, as on a full disk.
        self._unwritten: dict[str, Job] = {}
        self._lock = threading.Lock()

    def launch(self, prepare: Callable[[], JobRequest]) -> JobHandle:
        """Start at once in a thread; `prepare` (encoding images, checking fields) runs there too."""
        return self._start(lambda handle: self._serve(handle, prepare()))

    def recover(self, job_id: str, deadline_seconds: float = 600.0) -> JobHandle:
        """Fetch a job from the ledger by its id, without ever sending it again."""

        def fetch(handle: JobHandle) -> JobResult:
            job = self.ledger.read(job_id)
            return self._share(
                handle,
                lambda: (job.request_hash, job.take),
                deadline_seconds,
                lambda running: self._fetch(job, running),
            )

        return self._start(fetch)

    def deliver(self, result: JobResult) -> None:
        """Note that a node, or the user, has the pictures."""
        if result.job is not None and any(image.pixels is not None for image in result.images):
            job_id = result.job.id
            self._write(lambda: self.ledger.update(job_id, delivered=1))

    def converse(self, endpoint: Endpoint, profile: str, running: RunningJob, limit: int = 4) -> Conversation:
        """Talk with a service under a profile's key. NoKey if there is none."""
        service = endpoint.service
        secret = self.keys.find(service.name, profile)
        key = hashlib.sha256(secret.value.encode()).hexdigest()
        # The name too: under one address and one key, as an emulator has them, each says its key differently.
        account = (service.name, endpoint.base, key)
        with self._lock:
            shared = self._limits.setdefault((service.name, key), ConcurrencyLimit(limit))
            transport = self._transports.setdefault(account, Transport(endpoint, secret, self.policy))

        def tell(words: str, share: float | None) -> None:
            running.progress.words = words
            running.progress.share = running.progress.share if share is None else share

        return Conversation(transport, shared, running.deadline, running.is_wanted, tell)

    def ask_balance(self, name: str, profile: str, seconds: float = _CHECK_SECONDS) -> float | None:
        """USD on the account, None where the service does not say. Raises Refused for a key that does not
        work, NoKey, and TransportError.
        """
        service = find_service(name)
        talk = self.converse(make_endpoint(service), profile, RunningJob(seconds))
        answer = talk.transport.ask(
            service.make_balance(talk.endpoint.base, str(uuid.uuid4())), talk.deadline
        )
        try:
            return service.read_balance(answer)
        except PermissionError:
            raise refuse_key(service, profile) from None

    def forget_limits(self) -> None:
        """Let the next jobs take up a changed limit of jobs at once."""
        with self._lock:
            self._limits.clear()

    # --- sharing --------------------------------------------------------------------------------------------

    def _start(self, work: Callable[[JobHandle], JobResult]) -> JobHandle:
        handle = JobHandle(self._lock)
        handle.set_running_or_notify_cancel()

        def run() -> None:
            try:
                handle.set_result(work(handle))
            except Exception as error:  # noqa: BLE001 - the node raises it
                handle.set_exception(error)

        threading.Thread(target=run, name="kleinod-remote", daemon=True).start()
        return handle

    def _serve(self, handle: JobHandle, request: JobRequest) -> JobResult:
        if request.price_check == PRICE_ONLY:
            return self._tell_price(request)
        asked = request

        def choose() -> tuple[str, int]:
            nonlocal request
            request = self._prefer_undelivered(asked)
            return request.request_hash, request.take

        result = self._share(
            handle, choose, asked.deadline_seconds, lambda running: self._run(request, running)
        )
        if request is asked:
            return result
        old, new = (each.body.get("seed") for each in (request, asked))
        note = (
            f"This is the picture with seed {old}, which was under way when its run ended. Queue again for "
            f"seed {new}"
        )
        return replace(result, note="; ".join(filter(None, [result.note, note])))

    def _prefer_undelivered(self, request: JobRequest) -> JobRequest:
        """An earlier job that differs in its seed alone and was left before its picture came; else the
        request itself. The caller holds the lock.
        """
        if "seed" not in request.body or self.ledger.find(request.request_hash, request.take) is not None:
            return request
        for job in self.ledger.list_undelivered(request.family_hash, request.take):
            seed = job.facts.get("seed")
            running = self._running.get((job.request_hash, job.take))
            if seed is None or (running is not None and running.is_wanted()):
                continue
            if running is None and not self.locks.is_free(name_lock(job.request_hash, job.take)):
                continue  # another ComfyUI waits for it
            earlier = request.with_seed(seed)
            if earlier.request_hash == job.request_hash:
                return earlier
        return request

    def _share(
        self,
        handle: JobHandle,
        choose: Callable[[], tuple[str, int]],
        seconds: float,
        work: Callable[[RunningJob], JobResult],
    ) -> JobResult:
        """Join the job that runs under the chosen key, or start it; wait as long as this node wants to."""
        with self._lock:
            key = choose()
            running = self._running.get(key)
            mine = running is None
            if running is None:
                running = self._running[key] = RunningJob(seconds)
            running.deadline.extend(seconds)
            handle.join(running)
        if mine:
            threading.Thread(
                target=self._conclude, args=(key, running, work), name="kleinod-job", daemon=True
            ).start()
        latest = running.deadline.left <= seconds
        try:
            result = running.future.result(seconds + (_GRACE_SECONDS if latest else 0.0))
        except FutureTimeout:
            if running.future.done():
                result = running.future.result()
            else:
                raise StillRunning(
                    "The job has not finished within the deadline of this node; it goes on. Nothing is lost: "
                    "queue again and it is picked up without a second bill."
                ) from None
        return result if mine else replace(result, paid_now=False)

    def _conclude(
        self, key: tuple[str, int], running: RunningJob, work: Callable[[RunningJob], JobResult]
    ) -> None:
        result, problem = None, None
        try:
            result = work(running)
        except Exception as error:  # noqa: BLE001 - handed to everyone who waits
            problem = error if isinstance(error, (RemoteError, ValueError)) else _wrap(error)
        with self._lock:
            self._running.pop(key, None)
        if result is None:
            running.future.set_exception(problem)
        else:
            running.future.set_result(result)

    # --- running --------------------------------------------------------------------------------------------

    def _tell_price(self, request: JobRequest) -> JobResult:
        """The price of a request. Nothing is sent but a free question, whether the key works."""
        started = time.monotonic()
        estimate = estimate_from_history(self.ledger, request)
        note = ""
        try:
            self.ask_balance(request.service, request.profile)
        except RemoteError:
            raise
        except Exception as error:  # noqa: BLE001 - the price is known all the same
            note = f"the key could not be checked ({type(error).__name__})"
        seconds = time.monotonic() - started
        return JobResult(request.service, estimate_usd=estimate, seconds=seconds, note=note)

    def _run(self, request: JobRequest, running: RunningJob) -> JobResult:
        started = time.monotonic()
        service = find_service(request.service)
        talk = self.converse(
            make_endpoint(service, request.region),
            request.profile,
            running,
            request.context.limits.concurrency,
        )
        estimate = estimate_from_history(self.ledger, request)
        if request.price_check != PRICE_OFF:
            talk.tell(f"Price: about {format_usd(estimate)}", None)
        request = replace(request, estimate_usd=estimate)
        name = name_lock(request.request_hash, request.take)
        talk.tell("Waiting for a free place", None)
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
                job = self._make_follower(talk, running).follow(job)
                good = True
            finally:
                talk.limit.leave(good)
            return self._hand_over(job, started, sent, running)

    def _claim(self, request: JobRequest) -> tuple[Job, bool]:
        try:
            return self.ledger.claim(request)
        except sqlite3.Error as error:
            raise refuse_folder(self.keys.folder, error) from None

    def _submit(
        self, job: Job, fresh: bool, request: JobRequest, talk: Conversation, running: RunningJob
    ) -> tuple[Job, bool]:
        """The accepted job, and whether it was sent now. Raises what keeps it from being accepted."""
        if job.id in self._unwritten:
            return self._unwritten[job.id], False
        if job.state == UNKNOWN:
            raise MaybeBilled(job.message)
        if job.state != SUBMITTING:
            return job, False
        talk.tell("Sending" if fresh else "Looking for the earlier job", None)
        began = time.monotonic()
        try:
            answer = talk.submit(job, request.body, not fresh)
        except StillRunning as error:
            raise explain_pending(job.service, job, "gives no clear answer") from error
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
        written = self._write(
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

    def _note_failure(self, job: Job, error: RemoteError) -> None:
        state = UNKNOWN if isinstance(error, MaybeBilled) else REFUSED
        if isinstance(error, (Refused, Abandoned, MaybeBilled)):
            self._write(lambda: self.ledger.update(job.id, state=state, message=str(error)))

    def _write(self, work: Callable[[], Job]) -> Job | None:
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
            raise JobFailed(
                f"{title} accepted the job and then failed: {job.message}. Whether a failed job is billed is "
                f"between you and {title}. Queue again to try anew."
            )
        images = read_images(self.ledger, self.store, job, running)
        if images is None:
            raise lost(title, job)
        arrived = sum(image.pixels is not None for image in images)
        note = ""
        if job.state == ACCEPTED:
            note = (
                f"{arrived} of {job.wanted} pictures have come in time; the job goes on, and Recover in the "
                "Klein Jobs panel fetches the others"
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

    def _fetch(self, job: Job, running: RunningJob) -> JobResult:
        """The pictures of an earlier job, from the store or the service; it is never sent."""
        started = time.monotonic()
        name = name_lock(job.request_hash, job.take)
        with self.locks.hold(name, running.is_wanted, running.deadline):
            job = self._unwritten.get(job.id) or self.ledger.read(job.id)
            if self._is_here(job):
                return self._hand_over(job, started, False, running)
            job = self._unwritten.get(job.id) or self.ledger.read(job.id)
            if job.state in (REFUSED, FAILED, UNKNOWN) and not job.vendor_id:
                raise JobFailed(f"There is nothing to fetch for the job {job.id}: {job.message or job.state}")
            service = find_service(job.service)
            if job.state == SUBMITTING and not service.repeats_safely:
                raise JobFailed(
                    f"{service.title}'s answer to this job never arrived, so its number is unknown and it "
                    "cannot be fetched."
                )
            talk = self.converse(make_endpoint_at(service, job.base), job.profile, running)
            if job.state != ACCEPTED:
                job = self.ledger.update(job.id, state=ACCEPTED, vendor_id=job.vendor_id or job.id)
            job = self._make_follower(talk, running).follow(job)
            return self._hand_over(job, started, False, running)


def _wrap(problem: Exception) -> RemoteError:
    # Not the exception itself: its text may hold a signed address.
    where = traceback.extract_tb(problem.__traceback__)[-1]
    name = type(problem).__name__
    logger.error("A remote job stopped on %s in %s line %s.", name, where.name, where.lineno)
    return RemoteError(
        f"Kleinod stopped on an unexpected {name}. If the job was sent, it is in the ledger: queue again, or "
        "use Recover in the Klein Jobs panel."
    )
