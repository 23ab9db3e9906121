"""The conversations with both services: submit without ever paying twice, then poll.

What a lost answer means decides everything here. Runware takes a job's id from us, so a repeated request is
recognised as a conflict and costs nothing: after an unclear answer ask for the result, then send the same id
again. BFL gives the id itself and knows no repetition: after an unclear answer nothing is ever sent again
without the user asking for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from . import bfl, runware
from .environment import read_webhook_secret
from .errors import Abandoned, JobFailed, MaybeBilled, Refused, RemoteError, StillRunning, Unsafe
from .ledger import Job
from .pace import Gate, Patience
from .report import MODERATION, Failure, Report
from .transport import ANSWER_BYTES, ANSWER_BYTES_WITH_PICTURES, Answer, NotSent, Transport, Unclear

logger = logging.getLogger("kleinod.remote")


@dataclass(frozen=True)
class Submission:
    """An accepted request: how to ask for it, and what already came with the answer."""

    vendor_id: str
    polling_url: str = ""
    cost_usd: float | None = None
    report: Report | None = None


class Driver(Protocol):
    """One service's conversation about one job."""

    def submit(
        self, job: Job, body: dict[str, Any], resumed: bool, patience: Patience, is_wanted: Callable[[], bool]
    ) -> Submission: ...

    def poll(self, job: Job, count: int, patience: Patience) -> Report: ...


def _refuse(kind: str, title: str, page: str, profile: str, words: str) -> Refused:
    """The sentence for a request that was turned down before it was accepted."""
    texts = {
        "balance": f"{title} says the balance is empty. Nothing was billed for this job. Top up at {page} "
        f"and queue "
        "again: the job resumes.",
        "key": f"{title} did not accept the API key of the profile '{profile}'. Nothing was billed. Check "
        f"it with the "
        "Test button in Settings > Kleinod > API keys.",
        "permission": f"{title} says the API key of the profile '{profile}' may not do this: {words}. "
        f"Nothing was billed.",
        "busy": f"{title} is too busy and turned the job down several times ({words}). Nothing was billed. "
        f"Queue again "
        "in a while.",
        "gone": f"{title} does not know this model or address: {words}. Nothing was billed.",
        "redirect": f"{title} answered with a redirect, which Kleinod never follows with a key. Nothing was "
        f"billed. "
        "Check the network: something stands between ComfyUI and the service.",
    }
    return Refused(
        texts.get(
            kind,
            f"{title} turned the request down: {words}. Nothing was billed. Change that and queue again.",
        )
    )


def _locked_out(title: str, job: Job) -> RemoteError:
    """Asking about a job is not allowed: the job itself may well be under way."""
    return RemoteError(
        f"{title} no longer accepts the API key of the profile '{job.profile}', so the job {job.id} cannot "
        f"be fetched. "
        "It stays in the ledger: correct the key in Settings > Kleinod > API keys and queue again; it is "
        "not paid twice."
    )


class RunwareDriver:
    """Runware over REST."""

    def __init__(self, transport: Transport, gate: Gate) -> None:
        self.transport, self.gate = transport, gate
        self._url = transport.service.base + "/v1"

    def submit(
        self, job: Job, body: dict[str, Any], resumed: bool, patience: Patience, is_wanted: Callable[[], bool]
    ) -> Submission:
        """Send until accepted. Refused when that cannot be; StillRunning when no answer tells."""
        task = body | {"taskUUID": job.id}
        pictures = body.get("outputType", "URL") != "URL"
        unclear, refusal = resumed, None
        for attempt in range(self.transport.pace.tries):
            if unclear and (report := self._ask(job, patience)).known:
                return Submission(job.id, report=report)
            if not (unclear or is_wanted()):
                raise Abandoned("Interrupted before the request was sent. Nothing was billed.")
            retry_after = None
            try:
                answer = self.transport.submit(
                    self._url,
                    [task],
                    sync=body.get("deliveryMethod") != "async",
                    limit=ANSWER_BYTES_WITH_PICTURES if pictures else ANSWER_BYTES,
                )
            except NotSent as error:
                refusal = ("offline", str(error))
            except (Unclear, Unsafe):
                unclear, refusal = True, None
            else:
                kind, words = self._read_submit(answer, job.id)
                if kind == "accepted":
                    return Submission(job.id, report=runware.read_report(answer.body, job.id))
                if kind == "conflict":
                    return Submission(job.id)
                if kind == "moderated":
                    return Submission(
                        job.id, report=Report(failures=(Failure(MODERATION, words),), known=True, final=True)
                    )
                if kind not in ("busy", "unclear"):
                    raise _refuse(kind, "Runware", self.transport.service.key_page, job.profile, words)
                if answer.status == 429:
                    self.gate.slow_down()
                # Even a well-formed 5xx may follow an acceptance.
                unclear, refusal, retry_after = True, (kind, words), answer.retry_after
            if attempt < self.transport.pace.tries - 1:
                patience.wait(self.transport.pace.retry(attempt, retry_after))
        self._give_up(unclear, refusal, job)
        raise AssertionError("unreachable")

    def _give_up(self, unclear: bool, refusal: tuple[str, str] | None, job: Job) -> None:
        if refusal and refusal[0] == "offline" and not unclear:
            raise Refused(
                "Runware could not be reached: no connection. Nothing was sent or billed. Check the network "
                "and queue again."
            )
        raise StillRunning(
            f"Runware gives no clear answer (job {job.id}). Queue again later: the job keeps its number, so "
            f"it "
            "is billed once at most."
        )

    def _read_submit(self, answer: Answer, task_uuid: str) -> tuple[str, str]:
        body = answer.body
        errors = runware.read_errors(body, task_uuid)
        if answer.status == 200 and isinstance(body, dict) and runware.read_report(body, task_uuid).known:
            kinds = {runware.classify(200, str(error.get("code", ""))) for error in errors}
            if not errors or body.get("data"):
                return "accepted", ""
            if kinds == {"moderated"}:
                return "moderated", "; ".join(runware.describe_error(error) for error in errors)
        if errors:
            words = self.transport.clean("; ".join(runware.describe_error(error) for error in errors))
            kind = runware.classify(answer.status, str(errors[0].get("code", "")))
            return kind, words + self._hint(errors)
        if 300 <= answer.status < 400:
            return "redirect", ""
        if (
            answer.status in (401, 402, 403, 404)
            or 400 <= answer.status < 500
            and answer.status not in (408, 409, 429)
        ):
            return runware.classify(answer.status, ""), f"HTTP {answer.status}"
        return "unclear" if answer.status != 429 else "busy", f"HTTP {answer.status}"

    @staticmethod
    def _hint(errors: list[dict[str, Any]]) -> str:
        named = " ".join(str(error.get("parameter")) for error in errors)
        return (
            " - set true_cfg_scale to 0 to leave it out"
            if "trueCFGScale" in named or "settings" in named
            else ""
        )

    def _ask(self, job: Job, patience: Patience) -> Report:
        try:
            answer = self.transport.ask(
                "POST",
                self._url,
                patience,
                body=[{"taskType": "getResponse", "taskUUID": job.id}],
                limit=ANSWER_BYTES_WITH_PICTURES,
            )
        except (NotSent, Unclear):
            return Report()
        if answer.status in (401, 402, 403):
            raise _locked_out("Runware", job)
        if answer.status != 200:
            return Report()
        return runware.read_report(answer.body, job.id)

    def poll(self, job: Job, count: int, patience: Patience) -> Report:
        """The job's state; every eighth empty answer the archive is asked too."""
        report = self._ask(job, patience)
        if not report.known and count % 8 == 7:
            try:
                answer = self.transport.ask(
                    "POST",
                    self._url,
                    patience,
                    body=[{"taskType": "getTaskDetails", "taskUUID": job.id}],
                    limit=ANSWER_BYTES_WITH_PICTURES,
                )
                if answer.status == 200:
                    return runware.read_details(answer.body, job.id)
            except (NotSent, Unclear):
                pass
        return report

    def dry_run(self, body: dict[str, Any], job_id: str, patience: Patience) -> float | None:
        """The price of a request in USD, without running or billing it; None where Runware does not say."""
        answer = self.transport.ask(
            "POST",
            self._url,
            patience,
            body=[body | {"taskUUID": job_id}],
            headers={"X-Runware-Dry-Run": "1"},
        )
        return runware.read_cost(answer.body.get("data")) if isinstance(answer.body, dict) else None

    def balance(self, patience: Patience, task_uuid: str) -> float | None:
        """The account's balance in USD: a free question that also tests the key."""
        body = [{"taskType": "accountManagement", "operation": "getDetails", "taskUUID": task_uuid}]
        answer = self.transport.ask("POST", self._url, patience, body=body)
        if answer.status in (401, 403) or runware.read_errors(answer.body, task_uuid):
            raise _refuse("key", "Runware", self.transport.service.key_page, "tested", "")
        data = answer.body.get("data") if isinstance(answer.body, dict) else None
        found = (
            data[0].get("balance") if isinstance(data, list) and data and isinstance(data[0], dict) else None
        )
        return float(found) if isinstance(found, (int, float)) else None


class BflDriver:
    """BFL's submit-and-poll."""

    def __init__(self, transport: Transport, gate: Gate) -> None:
        self.transport, self.gate = transport, gate

    def submit(
        self, job: Job, body: dict[str, Any], resumed: bool, patience: Patience, is_wanted: Callable[[], bool]
    ) -> Submission:
        """Send once. Only a request that certainly did not arrive, or a 429, is sent again."""
        if resumed:
            raise self._unknown(job)
        if body.get("webhook_url") and (secret := read_webhook_secret()):
            body = body | {"webhook_secret": secret}
        service = self.transport.service
        for attempt in range(self.transport.pace.tries):
            if not is_wanted():
                raise Abandoned("Interrupted before the request was sent. Nothing was billed.")
            retry_after = None
            try:
                answer = self.transport.submit(f"{service.base}/v1/{job.endpoint}", body)
            except NotSent:
                refusal = Refused(
                    "BFL could not be reached: no connection. Nothing was sent or billed. Check the "
                    "network and queue again."
                )
            except (Unclear, Unsafe):
                raise self._unknown(job) from None
            else:
                accepted = bfl.read_submit(answer.body) if answer.status == 200 else None
                if accepted:
                    return Submission(*accepted)
                if answer.status != 429:
                    raise self._judge(answer, job)
                self.gate.slow_down()
                retry_after = answer.retry_after
                refusal = _refuse("busy", "BFL", service.key_page, job.profile, "too many jobs at once")
            if attempt < self.transport.pace.tries - 1:
                patience.wait(self.transport.pace.retry(attempt, retry_after))
        raise refusal

    def _judge(self, answer: Answer, job: Job) -> Exception:
        words = self.transport.clean(bfl.read_error(answer.body, answer.text))
        if answer.status in (401, 402, 403, 404):
            # BFL answers 403 for a missing or malformed key.
            kind = {401: "key", 402: "balance", 403: "key", 404: "gone"}[answer.status]
        elif 300 <= answer.status < 400:
            kind = "redirect"
        elif 400 <= answer.status < 500 and answer.status != 408:
            kind = "invalid"
        else:
            return self._unknown(job)
        return _refuse(kind, "BFL", self.transport.service.key_page, job.profile, words)

    @staticmethod
    def _unknown(job: Job) -> MaybeBilled:
        return MaybeBilled(
            "BFL gave no clear answer to this request and may have billed it; BFL cannot recognise a "
            "repeated request, "
            "so Kleinod does not send it again by itself. Look at the usage page of your BFL account; to "
            "send it again, "
            f"set 'take' to {job.take + 1}."
        )

    def poll(self, job: Job, count: int, patience: Patience) -> Report:
        """The job's state, from the polling address if it is BFL's own, else from the host it was sent to."""
        service = self.transport.service
        fallback = f"{service.base}/v1/get_result?id={quote(job.vendor_id)}"
        url = job.polling_url or fallback
        try:
            service.check_key_url(url)
        except Unsafe:
            logger.warning(
                "BFL named a polling address that is not its own; asking %s instead.", service.base
            )
            url = fallback
        try:
            answer = self.transport.ask("GET", url, patience)
        except (NotSent, Unclear):
            return Report(known=True, working=True)
        if answer.status in (401, 402, 403):
            raise _locked_out("BFL", job)
        if answer.status == 404:
            return Report(words="Task not found")
        if answer.status != 200:
            return Report(known=True, working=True)
        return bfl.read_report(answer.body)

    def balance(self, patience: Patience, task_uuid: str = "") -> float | None:
        """The account's credits in USD: a free question that also tests the key."""
        answer = self.transport.ask("GET", f"{self.transport.service.base}/v1/credits", patience)
        if answer.status in (401, 403):
            raise _refuse("key", "BFL", self.transport.service.key_page, "tested", "")
        found = answer.body.get("credits") if isinstance(answer.body, dict) else None
        return found / 100 if isinstance(found, (int, float)) else None

    def dry_run(self, body: dict[str, Any], job_id: str, patience: Patience) -> float | None:
        """BFL knows no dry run: the list price has to do."""
        return None


DRIVERS: dict[str, type[RunwareDriver] | type[BflDriver]] = {"runware": RunwareDriver, "bfl": BflDriver}


def explain_lost(title: str, job: Job) -> JobFailed:
    return JobFailed(
        f"{title} no longer knows the job {job.vendor_id or job.id}, so its result is gone. To make the "
        f"picture again, "
        f"set 'take' to {job.take + 1}; that is a new, billed job."
    )
