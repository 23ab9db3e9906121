"""From an accepted job to its pictures: poll, fetch, check, keep, and write down how it ended.

Only a failure that names this job and stays ends it: it must be there in three polls on end, and there must
be no picture left that could still come. Everything else is asked again until the deadline, and after that
the job stays open.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from dataclasses import replace
from typing import TypeVar

from ..base.sentences import say
from . import images
from .allowed_hosts import AllowedHosts
from .errors import Expired, StillRunning, StorageError, UnknownHost, Unsafe
from .job_request import ReceivedImage, RunningJob
from .ledger import ACCEPTED, FAILED, MODERATED, SAVED, UNKNOWN, Item, Job, Ledger
from .result_store import ResultStore
from .status import MODERATION, Failure, JobStatus, RemoteImage
from .submission import Conversation, explain_pending, lost

logger = logging.getLogger("kleinod.remote")

FINAL_POLLS = 3
LOST_POLLS = 12
REFUSED_POLLS = 3
_UNUSABLE_TIMES = 3
# A service that says nothing about a job may have it in its queue; about one this old it has forgotten it.
_FORGOTTEN_SECONDS = 3600.0

Result = TypeVar("Result", bound=Item | ReceivedImage)


class Follower:
    """Brings one accepted job home."""

    def __init__(
        self, ledger: Ledger, store: ResultStore, hosts: AllowedHosts, talk: Conversation, running: RunningJob
    ) -> None:
        self.ledger, self.store, self.hosts = ledger, store, hosts
        self.talk, self.running = talk, running
        self._confirmed = 0
        self._failures: tuple[Failure, ...] = ()

    def follow(self, job: Job) -> Job:
        """Poll until every picture has arrived or failed; the job, still accepted, where the deadline came
        after some. Raises StillRunning when it came before any, JobFailed for a job that is gone.
        """
        service, policy = self.talk.service, self.talk.transport.policy
        count = silent = missing = refused = 0
        complaint = ""
        try:
            while job.state == ACCEPTED:
                self.talk.deadline.wait(policy.poll(service.poll_pace, count))
                status = self.talk.ask(job, count)
                count += 1
                complaint = status.complaint or complaint
                if status.known or status.complaint:
                    silent = missing = 0
                else:
                    silent, missing = silent + 1, missing + status.missing
                refused = refused + 1 if status.refused else 0
                if refused >= REFUSED_POLLS:
                    raise self.talk.locked_out(job, complaint)
                self._check_lost(job, silent, missing)
                job = self.take_in(job, status)
        except StillRunning as error:
            if refused >= REFUSED_POLLS:
                raise
            if self._list_pictures(job):
                return job
            raise explain_pending(job.service, job, self._describe(job, complaint, silent)) from error
        return job

    def take_in(self, job: Job, status: JobStatus) -> Job:
        """Fetch and keep what is new; settle the job when nothing can come any more."""
        have = self._list_pictures(job)
        for image in status.images:
            if image.item_id not in have and self._keep(job, image, len(have)):
                have.add(image.item_id)
        share = len(have) / job.wanted
        progress = self.running.progress
        progress.share = max(progress.share, share, min(status.progress or 0.0, 0.99))
        several = job.wanted > 1
        progress.words = say("%1 of %2 done", len(have), job.wanted) if several else say("Working")
        self._failures = status.failures or self._failures
        if len(have) >= job.wanted:
            return self._settle(job, ())
        ended = status.whole or len(have) + len(status.failures) >= job.wanted
        if not status.failures or not ended or status.working:
            self._confirmed = 0
            return job
        self._confirmed += 1
        moderated = all(failure.kind == MODERATION for failure in status.failures)
        return self._settle(job, status.failures) if moderated or self._confirmed >= FINAL_POLLS else job

    def _check_lost(self, job: Job, silent: int, missing: int) -> None:
        old = time.time() - job.created > _FORGOTTEN_SECONDS
        if missing >= LOST_POLLS or (silent >= LOST_POLLS and old):
            error = lost(self.talk.service.title, job)
            self.ledger.update(job.id, state=UNKNOWN, message=str(error))
            raise error

    def _describe(self, job: Job, complaint: str, silent: int) -> str:
        words = say("has not finished in time")
        said = "; ".join(dict.fromkeys(failure.message for failure in self._failures)) or complaint
        if said:
            words = say("has not finished in time and last said: %1", self.talk.transport.clean(said))
        if silent >= LOST_POLLS:
            words = say("shows no trace of it (if so later too: 'take' %1 orders it anew)", job.take + 1)
        return words

    def _list_pictures(self, job: Job) -> set[str]:
        written = {item.item_id for item in self.ledger.items(job.id) if item.kind == "picture"}
        return written | set(self.running.received)

    def _keep(self, job: Job, image: RemoteImage, position: int) -> bool:
        """Fetch, check and keep one picture. False if it cannot be had yet: the next poll may lead to it."""
        try:
            if image.data:
                data = images.from_base64(image.data)
            else:
                allowed = self.hosts.read(job.service)
                data = self.talk.transport.download(image.url, allowed, self.talk.deadline)
            pixels = images.decode(data)
        except Expired:
            return False
        except Unsafe as error:
            self.running.unusable[image.item_id] += 1
            if self.running.unusable[image.item_id] < _UNUSABLE_TIMES:
                return False
            if isinstance(error, UnknownHost):
                raise
            raise Unsafe(
                say(
                    "%1's picture cannot be used. %2 The job %3 stays in the "
                    "ledger: queue again, or use Recover in the Klein Jobs panel.",
                    self.talk.service.title,
                    error,
                    job.id,
                )
            ) from None
        seed, cost, nsfw = image.seed, image.cost_usd, image.nsfw
        self.running.received[image.item_id] = ReceivedImage(pixels, seed, nsfw, cost, image.item_id)
        height, width = pixels.shape[:2]
        try:
            name = self.store.keep(job.id, position, data, images.sniff(data) or "PNG")
            self.ledger.add_item(
                Item(job.id, image.item_id, position, "picture", seed, cost, nsfw, name, width, height)
            )
            if image.worker:
                self.ledger.note_worker(job.id, image.item_id, image.worker)
        except (sqlite3.Error, OSError, StorageError):
            logger.exception("A picture of job %s could not be kept; it is handed over all the same.", job.id)
        return True

    def _settle(self, job: Job, failures: tuple[Failure, ...]) -> Job:
        """Write down failures, the cost and the final state."""
        clean = self.talk.transport.clean
        told = [Failure(failure.kind, clean(failure.message)) for failure in failures]
        kept = [item for item in self.ledger.items(job.id) if item.kind == "picture"]
        pictures = self._list_pictures(job)
        kinds = {failure.kind for failure in told}
        state = SAVED if pictures else MODERATED if kinds == {MODERATION} else FAILED
        costs = [item.cost_usd for item in kept if item.cost_usd]
        message = "; ".join(dict.fromkeys(failure.message for failure in told))
        if len(kept) < len(pictures):
            # Not all of it could be written down, so the row stays open: it can be fetched again.
            return _end_in_memory(job, state, message)
        try:
            for index, failure in enumerate(told):
                self.ledger.add_item(
                    Item(job.id, f"failure-{index}", len(kept) + index, failure.kind, message=failure.message)
                )
            if self.running.began is not None:
                self.ledger.note_time(job.id, time.monotonic() - self.running.began)
            cost = sum(costs) if costs else job.cost_usd
            return self.ledger.update(job.id, state=state, message=message, cost_usd=cost)
        except (sqlite3.Error, OSError):
            logger.exception("The end of job %s could not be written down.", job.id)
            return _end_in_memory(job, state, message)


def _end_in_memory(job: Job, state: str, message: str) -> Job:
    return replace(job, state=state, message=message)


def read_images(
    ledger: Ledger, store: ResultStore, job: Job, running: RunningJob
) -> tuple[ReceivedImage, ...] | None:
    """What is known of a job's results, in order; None where a picture's file is gone."""
    found: list[ReceivedImage] = []
    left = dict(running.received)
    for item in ledger.items(job.id):
        received = left.pop(item.item_id, None)
        if received is None and item.kind == "picture":
            data = store.read(item.file)
            if data is None:
                return None
            received = ReceivedImage(
                images.decode(data), item.seed, item.nsfw, item.cost_usd, item.item_id, item.kind
            )
        found.append(
            received
            or ReceivedImage(None, item.seed, item.nsfw, item.cost_usd, item.item_id, item.kind, item.message)
        )
    return order_by_seed((*found, *left.values()))


def order_by_seed(results: tuple[Result, ...]) -> tuple[Result, ...]:
    """Pictures in the order of their seeds, where these are the run of numbers that one job has; else as they
    came. A service of several workers hands them over as each is done. What is no picture stands last.
    """
    pictures = [result for result in results if result.kind == "picture"]
    seeds = {picture.seed for picture in pictures if picture.seed is not None}
    if len(seeds) < len(pictures) or len(pictures) < 2 or max(seeds) - min(seeds) >= len(results):
        return results
    others = [result for result in results if result.kind != "picture"]
    return (*sorted(pictures, key=lambda picture: picture.seed or 0), *others)
