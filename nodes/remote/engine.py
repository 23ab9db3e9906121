"""Runs paid jobs in threads of their own, one flight for each distinct request.

A flight outlives the node that started it: when the user interrupts, a neighbour node fails or the event loop
of the prompt closes, an accepted job is still fetched, because it is paid for either way. The next node that
asks for the same request boards the flight, or finds its result in the spool. After a crash the ledger says
what to ask for.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import images
from .drivers import DRIVERS, BflDriver, RunwareDriver, explain_lost
from .errors import Abandoned, JobFailed, MaybeBilled, Refused, RemoteError, StillRunning, Unsafe
from .flight import Flight, Order, Outcome, Picture, Ticket, describe_unsent
from .hosts import Service, find_service
from .keys import KeyStore
from .ledger import ACCEPTED, FAILED, MODERATED, REFUSED, SAVED, SUBMITTING, UNKNOWN, Claim, Item, Job, Ledger
from .pace import Gate, Pace, Patience
from .report import MODERATION, Report, Result
from .spool import Spool
from .transport import Transport

logger = logging.getLogger("kleinod.remote")
_QUIET_POLLS = 3
_LOST_POLLS = 12


class Engine:
    """Everything a remote node needs. `folder` is the pack's protected user folder."""

    def __init__(
        self,
        folder: Path,
        *,
        pace: Pace | None = None,
        keys: KeyStore | None = None,
        spool_bytes: int | None = None,
    ) -> None:
        self.pace = pace or Pace()
        self.keys = keys or KeyStore(folder)
        self.ledger = Ledger(folder)
        self.spool = Spool(folder / "spool", *([] if spool_bytes is None else [spool_bytes]))
        self._flights: dict[tuple[str, int], Flight] = {}
        self._gates: dict[tuple[str, str], Gate] = {}
        self._transports: dict[tuple[str, str, str], Transport] = {}
        self._lock = threading.Lock()

    def launch(self, prepare: Callable[[], Order]) -> Ticket:
        """Start at once in a thread; `prepare` (encoding images, checking fields) runs there too."""
        ticket = Ticket()
        threading.Thread(
            target=self._board, args=(ticket, prepare), name="kleinod-remote", daemon=True
        ).start()
        return ticket

    def recover(self, job_id: str, deadline_seconds: float = 600.0) -> Ticket:
        """Fetch a job from the ledger by its id, without ever sending it again."""
        ticket = Ticket()
        threading.Thread(
            target=self._board_recovery,
            args=(ticket, job_id, deadline_seconds),
            name="kleinod-remote",
            daemon=True,
        ).start()
        return ticket

    def driver(self, service: Service, profile: str, concurrency: int = 4) -> RunwareDriver | BflDriver:
        """A conversation with a service under a profile's key. NoKey if there is none."""
        secret = self.keys.find(service.name, profile)
        key = hashlib.sha256(secret.value.encode()).hexdigest()
        # The name too: under one address and one key, as an emulator has them, each says its key differently.
        account = (service.name, service.base, key)
        with self._lock:
            gate = self._gates.setdefault((service.name, key), Gate(concurrency))
            transport = self._transports.setdefault(account, Transport(service, secret, self.pace))
        return DRIVERS[service.name](transport, gate)

    def forget_gates(self) -> None:
        """Let the next jobs take up a changed limit of jobs at once."""
        with self._lock:
            self._gates.clear()

    # --- boarding -------------------------------------------------------------------------------------------

    def _board(self, ticket: Ticket, prepare: Callable[[], Order]) -> None:
        try:
            order = prepare()
            key = (order.claim.request_hash, order.claim.take)
            self._ride(ticket, key, lambda flight: self._fly(order, flight))
        except Exception as error:  # noqa: BLE001 - the node raises it
            ticket.settle(None, error)

    def _board_recovery(self, ticket: Ticket, job_id: str, deadline: float) -> None:
        try:
            job = self.ledger.read(job_id)
            self._ride(
                ticket, (job.request_hash, job.take), lambda flight: self._fetch_old(job, deadline, flight)
            )
        except Exception as error:  # noqa: BLE001 - the node raises it
            ticket.settle(None, error)

    def _ride(self, ticket: Ticket, key: tuple[str, int], fly: Callable[[Flight], Outcome]) -> None:
        with self._lock:
            flight = self._flights.get(key)
            mine = flight is None
            if mine:
                flight = self._flights[key] = Flight()
            with ticket._lock:
                ticket.flight = flight
                if not ticket.left:
                    flight.board()
        flight.on_done(lambda: ticket.settle(flight.outcome_for(mine), flight.error))
        if not mine:
            return
        outcome, error = None, None
        try:
            outcome = fly(flight)
        except Exception as problem:  # noqa: BLE001 - handed to everyone on board
            error = problem if isinstance(problem, (RemoteError, ValueError)) else _wrap(problem)
        with self._lock:
            self._flights.pop(key, None)
        flight.finish(outcome, error)

    # --- flying ---------------------------------------------------------------------------------------------

    def _fly(self, order: Order, flight: Flight) -> Outcome:
        claim, started = order.claim, time.monotonic()
        service = find_service(claim.service, order.region)
        patience = Patience(order.deadline_seconds)
        driver = self.driver(service, claim.profile, order.concurrency)
        price = self._ask_price(order, driver, patience, flight)
        if order.price_check == "only":
            return Outcome(
                describe_unsent(claim),
                (),
                None,
                False,
                time.monotonic() - started,
                price or claim.estimate_usd,
            )
        if not flight.is_wanted():
            raise Abandoned("Interrupted before the request was sent. Nothing was billed.")
        if price is not None:
            claim = replace(claim, estimate_usd=price)
        known = self.ledger.find(claim.request_hash, claim.take)
        outcome = self._from_spool(known, started, price) if known is not None else None
        if outcome is not None:
            return outcome
        gate = driver.gate
        flight.status.words = "Waiting for a free place"
        if not gate.enter(flight.is_wanted, patience):
            raise Abandoned("Interrupted before the request was sent. Nothing was billed.")
        good = False
        try:
            job, fresh = self.ledger.claim(claim)
            job = self._submit(job, fresh, claim, driver, patience, flight)
            job = self._follow(job, driver, patience, flight)
            good = True
        finally:
            gate.leave(good)
        return self._land(job, started, fresh, price, flight.pixels)

    def _ask_price(self, order: Order, driver: Any, patience: Patience, flight: Flight) -> float | None:
        claim = order.claim
        if order.price_check == "off" and not (claim.run_limit_usd or claim.day_limit_usd):
            return None
        known = self.ledger.find(claim.request_hash, claim.take)
        if known is not None and known.state not in (REFUSED, FAILED) and order.price_check != "only":
            return None
        flight.status.words = "Asking the price"
        try:
            price = driver.dry_run(claim.body, str(uuid.uuid4()), patience)
        except Exception as error:  # noqa: BLE001 - the price is a courtesy; the job tells what is really wrong
            logger.info("No dry-run price from %s (%s).", claim.service, type(error).__name__)
            price = None
        price = price if price is not None else claim.estimate_usd
        flight.status.words = f"Price: ${price:.4f}"
        return price

    def _submit(
        self, job: Job, fresh: bool, claim: Claim, driver: Any, patience: Patience, flight: Flight
    ) -> Job:
        if job.state == UNKNOWN:
            raise MaybeBilled(job.message)
        if job.state != SUBMITTING:
            return job
        flight.status.words = "Sending" if fresh else "Looking for the earlier job"
        try:
            submission = driver.submit(job, claim.body, not fresh, patience, flight.is_wanted)
        except (Refused, Abandoned) as error:
            self.ledger.update(job.id, state=REFUSED, message=str(error))
            raise
        except MaybeBilled as error:
            self.ledger.update(job.id, state=UNKNOWN, message=str(error))
            raise
        except StillRunning as error:
            raise _pending(job, str(error)) from None
        job = self.ledger.accept(job.id, submission.vendor_id, submission.polling_url, submission.cost_usd)
        logger.info("%s accepted job %s.", claim.service, job.vendor_id)
        if submission.report is not None:
            return self._absorb(job, submission.report, driver, patience, flight)[0]
        return job

    def _follow(self, job: Job, driver: Any, patience: Patience, flight: Flight) -> Job:
        """Poll until every picture has arrived or failed."""
        count = quiet = lost = 0
        seen = len(self.ledger.items(job.id))
        try:
            while job.state == ACCEPTED:
                patience.wait(self.pace.poll(job.service, count))
                report = driver.poll(job, count, patience)
                count += 1
                lost = 0 if report.known else lost + 1
                if report.words == "Task not found" and lost >= _LOST_POLLS:
                    error = explain_lost(find_service(job.service).title, job)
                    self.ledger.update(job.id, state=UNKNOWN, message=str(error))
                    raise error
                job, settled = self._absorb(job, report, driver, patience, flight)
                quiet = quiet + 1 if report.failures and not report.working and settled == seen else 0
                seen = settled
                if quiet >= _QUIET_POLLS and job.state == ACCEPTED:
                    job = self._settle(job, report)
        except StillRunning:
            title = find_service(job.service).title
            trace = f"{title} has not finished in time"
            if lost >= _LOST_POLLS:
                trace = f"{title} shows no trace of it; if so later too, 'take' {job.take + 1} orders it anew"
            raise _pending(job, trace) from None
        return job

    def _absorb(
        self, job: Job, report: Report, driver: Any, patience: Patience, flight: Flight
    ) -> tuple[Job, int]:
        """Fetch and keep what is new in a report; settle the job when nothing is missing."""
        have = {item.item_id for item in self.ledger.items(job.id) if item.kind == "picture"}
        for result in report.results:
            if result.item_id not in have and self._keep(job, result, len(have), driver, patience, flight):
                have.add(result.item_id)
        settled = len(have) + len(report.failures)
        share = len(have) / job.wanted
        flight.status.progress = max(flight.status.progress, share, min(report.progress or 0.0, 0.99))
        flight.status.words = f"{len(have)} of {job.wanted} done" if job.wanted > 1 else "Working"
        if settled >= job.wanted or (report.final and not report.results):
            job = self._settle(job, report)
        return job, settled

    def _keep(
        self, job: Job, result: Result, position: int, driver: Any, patience: Patience, flight: Flight
    ) -> bool:
        """Download, check and spool one picture. False if its address has expired: the next poll brings
        another.
        """
        try:
            data = (
                images.from_base64(result.data)
                if result.data
                else driver.transport.download(result.url, patience)
            )
            pixels = images.decode(data)
        except LookupError:
            return False
        except Unsafe as error:
            # The next poll may lead to the right bytes, so only a stubborn fault ends the flight.
            flight.bad[result.item_id] = flight.bad.get(result.item_id, 0) + 1
            if flight.bad[result.item_id] < 3:
                return False
            raise Unsafe(
                f"{error} The job {job.id} stays in the ledger: queue again, or use Klein Recover Job."
            ) from None
        name = self.spool.keep(job.id, position, data, images.sniff(data))
        flight.pixels[result.item_id] = pixels
        self.ledger.add_item(
            Item(
                job.id,
                result.item_id,
                position,
                "picture",
                result.seed,
                result.cost_usd,
                result.nsfw,
                name,
                pixels.shape[1],
                pixels.shape[0],
            )
        )
        return True

    def _settle(self, job: Job, report: Report) -> Job:
        """Write down failures, the cost and the final state."""
        kept = [item for item in self.ledger.items(job.id) if item.kind == "picture"]
        for index, failure in enumerate(report.failures):
            self.ledger.add_item(
                Item(job.id, f"failure-{index}", len(kept) + index, failure.kind, message=failure.message)
            )
        costs = [item.cost_usd for item in kept if item.cost_usd]
        kinds = {failure.kind for failure in report.failures}
        state = SAVED if kept else MODERATED if kinds == {MODERATION} else FAILED
        message = "; ".join(dict.fromkeys(failure.message for failure in report.failures))
        return self.ledger.update(
            job.id, state=state, message=message, cost_usd=sum(costs) if costs else job.cost_usd
        )

    # --- landing --------------------------------------------------------------------------------------------

    def _land(
        self, job: Job, started: float, paid_now: bool, price: float | None, decoded: dict[str, np.ndarray]
    ) -> Outcome:
        title = find_service(job.service).title
        if job.state == FAILED:
            raise JobFailed(
                f"{title} accepted the job and then failed: {job.message}. Whether a failed job is billed "
                f"is between "
                f"you and {title}. Queue again to try anew."
            )
        pictures = []
        for item in self.ledger.items(job.id):
            pixels = decoded.get(item.item_id)
            if item.kind == "picture" and pixels is None:
                data = self.spool.read(item.file)
                if data is None:
                    raise explain_lost(title, job)
                pixels = images.decode(data)
            pictures.append(
                Picture(pixels, item.seed, item.nsfw, item.cost_usd, item.item_id, item.kind, item.message)
            )
        self.ledger.update(job.id, delivered=1)
        self.spool.trim(lambda job_id: job_id != job.id and self._is_delivered(job_id))
        return Outcome(job, tuple(pictures), job.cost_usd, paid_now, time.monotonic() - started, price)

    def _is_delivered(self, job_id: str) -> bool:
        try:
            return bool(self.ledger.read(job_id).delivered)
        except ValueError:
            return True

    def _from_spool(self, job: Job, started: float, price: float | None) -> Outcome | None:
        """The outcome of a settled job whose files are all there; None if it has to be followed or sent."""
        if job.state not in (SAVED, MODERATED):
            return None
        files = [item.file for item in self.ledger.items(job.id) if item.kind == "picture"]
        if any(self.spool.read(name) is None for name in files):
            self.ledger.update(job.id, state=ACCEPTED)
            self.ledger.forget_items(job.id)
            return None
        return self._land(job, started, False, price, {})

    def _fetch_old(self, job: Job, deadline: float, flight: Flight) -> Outcome:
        started = time.monotonic()
        outcome = self._from_spool(job, started, None)
        if outcome is not None:
            return outcome
        job = self.ledger.read(job.id)
        if job.state in (REFUSED, FAILED, UNKNOWN) and not job.vendor_id:
            raise JobFailed(f"There is nothing to fetch for the job {job.id}: {job.message or job.state}")
        service = find_service(job.service)
        if service.base != job.base and not service.override:
            service = replace(service, address=job.base)
        driver = self.driver(service, job.profile)
        if job.state == SUBMITTING and job.service == "bfl":
            raise JobFailed(
                "BFL's answer to this job never arrived, so its number is unknown and it cannot be fetched."
            )
        if job.state in (SUBMITTING, UNKNOWN, FAILED):
            job = self.ledger.update(job.id, state=ACCEPTED, vendor_id=job.vendor_id or job.id)
        job = self._follow(job, driver, Patience(deadline), flight)
        return self._land(job, started, False, None, flight.pixels)


def _pending(job: Job, words: str) -> StillRunning:
    return StillRunning(
        f"{words} (job {job.id}). Nothing is lost: queue again and the job is picked up without a second "
        f"bill, "
        "or fetch it later with Klein Recover Job."
    )


def _wrap(problem: Exception) -> RemoteError:
    # Not the exception itself: its text may hold a signed address.
    where = traceback.extract_tb(problem.__traceback__)[-1]
    name = type(problem).__name__
    logger.error("A remote job stopped on %s in %s line %s.", name, where.name, where.lineno)
    return RemoteError(
        f"Kleinod stopped on an unexpected {name}. If the job was sent, it is in the ledger: queue again, or "
        "use Klein Recover Job."
    )
