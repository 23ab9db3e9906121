"""Runs paid jobs in threads of their own, one for each distinct request.

A running job outlives the node that started it: when the user interrupts, a neighbour node fails or the event
loop of the prompt closes, an accepted job is still fetched, because it is paid for either way. The next node
that asks for the same request joins it, or finds its result in the store. After a crash the ledger says what
to ask for. A request that differs from an undelivered job in its seed alone gets that job's picture first:
ComfyUI draws a new seed whenever it queues, and the picture of an interrupted run would be paid twice.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ..base.sentences import join, say
from .accounts import Accounts
from .allowed_hosts import AllowedHosts
from .concurrency import RequestLocks, name_lock
from .errors import RemoteError, StillRunning
from .job_request import PRICE_ONLY, JobHandle, JobRequest, JobResult, RunningJob
from .keys import KeyStore
from .ledger import Job, Ledger
from .result_store import ResultStore
from .retry import RetryPolicy
from .running import JobRunner

logger = logging.getLogger("kleinod.remote")
# A node gives up this much later than the job itself, whose own sentence says more.
_GRACE_SECONDS = 5.0


class Engine:
    """Everything a remote node needs. folder: the pack's protected one. own_port: of this ComfyUI."""

    def __init__(
        self,
        folder: Path,
        *,
        policy: RetryPolicy | None = None,
        keys: KeyStore | None = None,
        store_bytes: int | None = None,
        own_port: int = 0,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.keys = keys or KeyStore(folder)
        self.hosts = AllowedHosts(folder)
        self.locks = RequestLocks(folder / "locks")
        self.accounts = Accounts(self.keys, self.policy, own_port)
        self._folder, self._store_bytes = folder, store_bytes
        self._running: dict[tuple[str, int], RunningJob] = {}
        # Finished for a node that has not taken the pictures yet: nobody else's to have meanwhile.
        self._handed: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    # Made when first needed: keys can be seen and changed where the ledger cannot be opened.

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self._folder)

    @cached_property
    def store(self) -> ResultStore:
        limit = [] if self._store_bytes is None else [self._store_bytes]
        return ResultStore(self._folder / "spool", *limit)

    @cached_property
    def runner(self) -> JobRunner:
        return JobRunner(self.ledger, self.store, self.hosts, self.locks, self.accounts)

    def close(self) -> None:
        """Let go of the ledger's file."""
        if "ledger" in self.__dict__:
            self.ledger.close()

    def launch(self, prepare: Callable[[], JobRequest]) -> JobHandle:
        """Start at once in a thread; `prepare` (encoding images, checking fields) runs there too."""
        return self._start(lambda handle: self._serve(handle, self._place(prepare())))

    def recover(self, job_id: str, deadline_seconds: float = 600.0) -> JobHandle:
        """Fetch a job from the ledger by its id, without ever sending it again."""

        def fetch(handle: JobHandle) -> JobResult:
            job = self.ledger.read(job_id)
            return self._share(
                handle,
                lambda: (job.request_hash, job.take),
                deadline_seconds,
                lambda running: self.runner.fetch(job, running),
            )

        return self._start(fetch)

    def deliver(self, result: JobResult) -> None:
        """Note that a node, or the user, has the pictures."""
        if result.job is not None and any(image.pixels is not None for image in result.images):
            job = result.job
            self.runner.write(lambda: self.ledger.update(job.id, delivered=1))
            with self._lock:
                self._handed.discard((job.request_hash, job.take))

    def is_waited_for(self, job: Job) -> bool:
        """Whether a node of this ComfyUI waits for the job: an accepted one goes on without."""
        with self._lock:
            running = self._running.get((job.request_hash, job.take))
            return running is not None and running.is_wanted()

    def forget_limits(self) -> None:
        """Let the next jobs take up a changed limit of jobs at once."""
        self.accounts.forget_limits()

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

    def _place(self, request: JobRequest) -> JobRequest:
        """The request as it goes to the server that its profile names, which bills nothing by itself."""
        endpoint = self.accounts.servers.place(request.service, request.profile)
        if endpoint is None:
            return request
        return replace(request, service=endpoint.service.name, base=endpoint.base, estimate_usd=0.0)

    def _serve(self, handle: JobHandle, request: JobRequest) -> JobResult:
        if request.price_check == PRICE_ONLY:
            return self.runner.tell_price(request)
        asked = request

        def choose() -> tuple[str, int]:
            nonlocal request
            request = self._prefer_undelivered(asked)
            return request.request_hash, request.take

        result = self._share(
            handle, choose, asked.deadline_seconds, lambda running: self.runner.run(request, running)
        )
        if request is asked:
            return result
        old, new = (each.body.get("seed") for each in (request, asked))
        note = say(
            "this is the picture with seed %1 (under way when its run ended): queue again for seed %2",
            old,
            new,
        )
        return replace(result, note=join("; ", filter(None, [result.note, note])))

    def _prefer_undelivered(self, request: JobRequest) -> JobRequest:
        """An earlier job that differs in its seed alone and was left before its picture came; else the
        request itself. The caller holds the lock.
        """
        if "seed" not in request.body or self.ledger.find(request.request_hash, request.take) is not None:
            return request
        for job in self.ledger.list_undelivered(request.family_hash, request.take):
            seed = job.facts.get("seed")
            key = (job.request_hash, job.take)
            running = self._running.get(key)
            if seed is None or key in self._handed or (running is not None and running.is_wanted()):
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
                    say(
                        "The job has not finished within the deadline of this node; it goes on. "
                        "Nothing is lost: queue again and it is picked up without a second bill."
                    )
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
            if result is not None and running.is_wanted():
                self._handed.add(key)
        if result is None:
            running.future.set_exception(problem)
        else:
            running.future.set_result(result)


def _wrap(problem: Exception) -> RemoteError:
    # Not the exception itself: its text may hold a signed address.
    where = traceback.extract_tb(problem.__traceback__)[-1]
    name = type(problem).__name__
    logger.error("A remote job stopped on %s in %s line %s.", name, where.name, where.lineno)
    return RemoteError(
        say(
            "Kleinod stopped on an unexpected %1. If the job was sent, it is in the ledger: queue again, or "
            "use Recover in the Klein Jobs panel.",
            name,
        )
    )
