"""Random sequences of faults, interrupts and restarts, against two emulators that share no code.

Whatever happens: jobs billed == jobs asked for, nothing paid is out of reach, and every sentence names what
happened and is true about the money.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.errors import (
    Abandoned,
    JobFailed,
    MaybeBilled,
    Refused,
    RemoteError,
    StillRunning,
    Unsafe,
)
from kleinod_pure.remote.job_request import JobRequest, RunContext
from kleinod_pure.remote.limits import Limits
from kleinod_pure.remote.retry import RetryPolicy
from kleinod_pure.remote.services import find_service

from tests.emulator import Emulator, pictures
from tests.emulator_raw import Plan, RawEmulator, Turn, read_pixels

KEY = "planted-9c41d7e0b2-key"
WIDTH, HEIGHT = 128, 128
POLICY = RetryPolicy(scale=0.004, connect=1, stall=1, read=1, read_sync=2, download=1)
DEADLINE = 2.0
PROMPTS = ("a fox", "an owl")
HTML = b"<html><title>502 Bad Gateway</title></html>"


def fail_item(code: str, **more: Any) -> Callable[..., Any]:
    """An error item beside nothing, inside HTTP 200."""
    return lambda exchange: {"errors": [{"code": code, "message": f"It says {code}.", **more}]}


def change(**fields: Any) -> Callable[..., Any]:
    return lambda exchange: exchange.answer | fields if isinstance(exchange.answer, dict) else exchange.answer


# (occasion, turn): what may happen to one request of the raw emulator.
RAW_FAULTS: dict[str, tuple[tuple[str, Turn], ...]] = {
    "runware": (
        ("runware.submit", Turn(status=503, body=HTML, kind="text/html")),
        ("runware.submit", Turn(status=503, work=False, body=HTML, kind="text/html")),
        ("runware.submit", Turn(status=429, work=False, headers={"Retry-After": "1"}, body={})),
        ("runware.submit", Turn(cut=0)),
        ("runware.submit", Turn(cut=0, work=False, reset=True)),
        ("runware.submit", Turn(cut=90)),
        ("runware.submit", Turn(body=b"null")),
        ("runware.submit", Turn(body=b"")),
        ("runware.submit", Turn(bom=True)),
        ("runware.submit", Turn(gzipped=True)),
        ("runware.submit", Turn(chunked=True)),
        ("runware.submit", Turn(status=201)),
        ("runware.submit", Turn(work=False, body=fail_item("rateLimitExceeded"))),
        ("runware.submit", Turn(body=fail_item("timeoutProvider"))),
        ("runware.reading", Turn(hang_up=10)),
        ("runware.poll", Turn(status=503, body=HTML, kind="text/html")),
        ("runware.poll", Turn(status=500, body={"errors": [{"code": "internalServerError"}]})),
        ("runware.poll", Turn(cut=0)),
        ("runware.poll", Turn(cut=120)),
        ("runware.poll", Turn(body=b"null")),
        ("runware.poll", Turn(body={"data": []})),
        ("runware.poll", Turn(body=fail_item("rateLimitExceeded", taskType="getResponse"))),
        ("runware.poll", Turn(body=fail_item("providerTimeout"))),
        ("runware.poll", Turn(body=fail_item("somethingStrange"))),
        ("runware.poll", Turn(gzipped=True)),
        ("runware.poll", Turn(bom=True, status=202)),
    ),
    "bfl": (
        ("bfl.submit", Turn(status=429, work=False, body={"detail": "Too many"})),
        ("bfl.submit", Turn(status=201)),
        ("bfl.submit", Turn(status=202, bom=True)),
        ("bfl.submit", Turn(gzipped=True)),
        ("bfl.submit", Turn(chunked=True)),
        ("bfl.submit", Turn(cut=0)),
        ("bfl.submit", Turn(status=503, body=HTML, kind="text/html")),
        ("bfl.submit", Turn(body=change(polling_url="https://evil.example/x"))),
        ("bfl.submit", Turn(body=change(polling_url=None, cost=None))),
        ("bfl.submit", Turn(status=422, work=False, body={"detail": [{"loc": ["body", "x"], "msg": "no"}]})),
        ("bfl.reading", Turn(hang_up=10)),
        ("bfl.poll", Turn(status=503, body=HTML, kind="text/html")),
        ("bfl.poll", Turn(status=404, body={"status": "Task not found"})),
        ("bfl.poll", Turn(body={"status": "Error", "result": None})),
        ("bfl.poll", Turn(body={"status": "Daydreaming"})),
        ("bfl.poll", Turn(body=b"null")),
        ("bfl.poll", Turn(cut=0)),
        ("bfl.poll", Turn(gzipped=True, bom=True)),
    ),
    "picture": (
        ("picture", Turn(status=503, body=HTML, kind="text/html")),
        ("picture", Turn(status=403, body=b"<Error>Expired</Error>", kind="application/xml")),
        ("picture", Turn(cut=300)),
        ("picture", Turn(stated=10**6)),
        ("picture", Turn(body=HTML, kind="image/png")),
        ("picture", Turn(body=b"", kind="image/png")),
        ("picture", Turn(gzipped=True)),
    ),
}
FIRST_FAULTS = {
    "runware": (
        "accept_then_503", "accept_then_html", "accept_then_drop", "accept_then_reset", "refuse_503",
        "refuse_429", "drop_before_accept", "refuse_402", "error_in_200", "poll_503", "poll_html",
        "poll_drop", "poll_empty", "poll_null", "duplicate_items", "poll_top_level_error",
    ),
    "bfl": (
        "refuse_429", "refuse_402", "accept_then_503", "accept_then_drop", "drop_before_accept",
        "foreign_polling_url", "no_polling_url", "poll_503", "poll_not_found", "poll_null",
        "unknown_status", "ready_without_sample",
    ),
    "picture": ("expired", "download_503", "download_drop", "html_as_image", "empty_image", "truncated_png"),
}  # fmt: skip


class FirstDouble:
    """Kleinod's own emulator, as this test needs it."""

    faults = FIRST_FAULTS

    def __init__(self) -> None:
        self._emulator = Emulator(0.01, keys={KEY})
        self._emulator.__enter__()
        self.url = self._emulator.url

    def close(self) -> None:
        self._emulator.__exit__()

    def order(self, fault: str) -> None:
        self._emulator.faults.order(fault)

    def calm(self) -> None:
        self._emulator.faults.clear()

    def plan(self, plan: Plan) -> None:
        self._emulator.book.seconds_between_items = 0.01 * plan.between

    def list_accepted(self) -> list[tuple[str, str]]:
        jobs = list(self._emulator.book.jobs.values())
        return [(job.service, job.request.get("positivePrompt") or job.request["prompt"]) for job in jobs]

    def has_failed(self, name: tuple[str, str]) -> bool:
        return False  # none of the faults above ends a job

    def draw(self, prompt: str, seed: int) -> np.ndarray:
        return pictures.draw_pattern(prompt, WIDTH, HEIGHT, seed)


class RawDouble:
    """The raw one."""

    faults = RAW_FAULTS

    def __init__(self) -> None:
        self._emulator = RawEmulator(KEY)
        self._emulator.__enter__()
        self.url = self._emulator.url

    def close(self) -> None:
        self._emulator.__exit__()

    def order(self, fault: tuple[str, Turn]) -> None:
        self._emulator.script(*fault)

    def calm(self) -> None:
        self._emulator._turns.clear()
        self._emulator.book.plans.clear()

    def plan(self, plan: Plan) -> None:
        self._emulator.plan(plan)

    def list_accepted(self) -> list[tuple[str, str]]:
        jobs = self._emulator.accepted
        return [(job.service, job.request.get("positivePrompt") or job.request["prompt"]) for job in jobs]

    def has_failed(self, name: tuple[str, str]) -> bool:
        named = zip(self.list_accepted(), self._emulator.accepted, strict=True)
        jobs = [job for own, job in named if own == name]
        return any(all(item.fate != "picture" for item in job.items) for job in jobs)

    def draw(self, prompt: str, seed: int) -> np.ndarray:
        pixels = np.frombuffer(read_pixels(prompt, seed, WIDTH, HEIGHT), np.uint8)
        return pixels.reshape(HEIGHT, WIDTH, 3)


class Money(RuleBasedStateMachine):
    """One user with two prompts at two services, and everything that can go wrong in between.

    A request is told by (service, prompt); the prompt names its `take`, so what was billed can be counted.
    """

    make_double: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="kleinod-money-"))
        self.double = self.make_double()
        self.before = dict(os.environ)
        for name in ("RUNWARE", "BFL"):
            os.environ[f"KLEINOD_{name}_URL"] = self.double.url
            os.environ[f"{name}_API_KEY"] = KEY
        self.engines: list[Engine] = []
        self.engine = self.open_engine()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.takes: Counter[tuple[str, str]] = Counter()
        self.closed: set[tuple[str, str]] = set()  # ended with a sentence that no result will come

    def open_engine(self) -> Engine:
        self.engines.append(Engine(self.folder / "__kleinod", policy=POLICY))
        return self.engines[-1]

    # --- what a user does -----------------------------------------------------------------------------------

    def make_request(self, service: str, prompt: str, wanted: int) -> tuple[tuple[str, str], JobRequest]:
        take = self.takes[service, prompt]
        text = f"{prompt}, take {take}"
        common = {"width": WIDTH, "height": HEIGHT, "seed": 5, "deadline": DEADLINE, "take": take}
        own = (
            {"positive_prompt": text, "number_results": wanted} if service == "runware" else {"prompt": text}
        )
        context = RunContext("1", "p", Limits(0.0, 0.0))
        return (service, text), find_service(service).make_request(context, common | own)

    def run(self, service: str, prompt: str, wanted: int = 1) -> None:
        """Queue it and wait."""
        name, request = self.make_request(service, prompt, wanted)
        if name not in self.asked or name in self.closed:
            self.asked[name] += 1
            self.closed.discard(name)
        try:
            result = self.engine.launch(lambda: request).result(30)
        except FutureTimeout:
            raise AssertionError("a job never came back") from None
        except RemoteError as error:
            self.judge(name, prompt, error)
            return
        self.engine.deliver(result)
        self.check_pictures(name[1], result)

    def judge(self, name: tuple[str, str], prompt: str, error: RemoteError) -> None:
        """A sentence: whole, without a class name, a key or a page of HTML, and true about the money."""
        text = str(error)
        title = {"runware": "Runware", "bfl": "BFL"}[name[0]]
        assert title in text or isinstance(error, (Abandoned, StillRunning)), text
        assert text[-1] in ".!" and len(text) > 30 and ".." not in text, text
        assert KEY not in text and "<" not in text, text
        assert not re.search(r"\b(NotSent|Unclear|Traceback|None|HTTPError|\w+Exception)\b", text), text
        billed = self.double.list_accepted().count(name)
        if re.search(r"[Nn]othing was (sent|billed)|not billed", text):
            assert billed < self.asked[name] or self.asked[name] == 0, f"{billed} billed, but: {text}"
        if isinstance(error, (Refused, Abandoned)):
            assert billed == self.asked[name] - 1, f"{billed} billed, {self.asked[name]} asked: {text}"
            self.asked[name] -= 1
            if not self.asked[name]:
                del self.asked[name]
            else:
                self.closed.add(name)
        elif isinstance(error, JobFailed):
            assert self.double.has_failed(name), f"the service still has the pictures, but: {text}"
            self.closed.add(name)
        elif isinstance(error, MaybeBilled):
            assert name[0] == "bfl", text
            assert "take" in text
            self.asked[name] = billed  # said so; the user's next step is a new take
            self.takes[name[0], prompt] += 1
            self.closed.add(name)
        else:
            assert isinstance(error, (StillRunning, Unsafe)), f"{type(error).__name__}: {text}"

    def check_pictures(self, prompt: str, result: Any) -> None:
        for image in result.images:
            if image.pixels is not None:
                expected = self.double.draw(prompt, image.seed).astype(np.float32) / 255
                assert np.array_equal(image.pixels, expected), "another picture than the one paid for"

    # --- rules ----------------------------------------------------------------------------------------------

    SERVICES = st.sampled_from(["runware", "bfl"])

    @initialize()
    def begin(self) -> None:
        pass

    @rule(service=SERVICES, prompt=st.sampled_from(PROMPTS))
    def ask(self, service: str, prompt: str) -> None:
        self.run(service, prompt)

    @rule(service=SERVICES, prompt=st.sampled_from(PROMPTS), data=st.data())
    def ask_in_trouble(self, service: str, prompt: str, data: Any) -> None:
        kinds = [*self.double.faults[service], *self.double.faults["picture"]]
        chosen = data.draw(st.lists(st.integers(0, len(kinds) - 1), min_size=1, max_size=4, unique=True))
        for index in chosen:
            self.double.order(kinds[index])
        self.run(service, prompt)

    @rule(
        prompt=st.sampled_from(PROMPTS),
        fates=st.lists(st.sampled_from(["picture", "picture", "failure"]), min_size=2, max_size=3),
        after=st.integers(0, 3),
        between=st.integers(0, 2),
        whispers=st.booleans(),
    )
    def ask_a_batch(self, prompt: str, fates: list[str], after: int, between: int, whispers: bool) -> None:
        self.double.plan(Plan(tuple(fates), after, between, whispers))
        self.run("runware", f"{prompt} and {len(fates)} more", len(fates))

    @rule(service=SERVICES, prompt=st.sampled_from(PROMPTS), pause=st.sampled_from([0.0, 0.005, 0.05]))
    def ask_and_interrupt(self, service: str, prompt: str, pause: float) -> None:
        name, request = self.make_request(service, prompt, 1)
        if name not in self.asked or name in self.closed:
            self.asked[name] += 1
            self.closed.discard(name)
        handle = self.engine.launch(lambda: request)
        time.sleep(pause)
        handle.leave()
        try:
            result = handle.result(30)
        except RemoteError as error:
            self.judge(name, prompt, error)
        else:
            self.check_pictures(name[1], result)

    @rule()
    def restart(self) -> None:
        self.engine = self.open_engine()

    @precondition(lambda self: self.engine.ledger.recent())
    @rule(index=st.integers(0, 9))
    def recover(self, index: int) -> None:
        jobs = self.engine.ledger.recent()
        job = jobs[index % len(jobs)]
        before = len(self.double.list_accepted())
        try:
            result = self.engine.recover(job.id, DEADLINE).result(30)
        except RemoteError as error:
            assert str(error)[-1] in ".!" and KEY not in str(error)
        else:
            self.engine.deliver(result)
        assert len(self.double.list_accepted()) == before, "Recover bought a job"

    def teardown(self) -> None:
        """The weather clears: what was paid for arrives, and the bill is what was asked for."""
        try:
            self.double.calm()
            self.engine = self.open_engine()
            for service, text in sorted(set(self.asked) - self.closed):
                if not self.asked[service, text]:
                    continue
                prompt, _, take = text.rpartition(", take ")
                wanted = int(prompt.split()[-2]) if prompt.endswith(" more") else 1
                common = {"width": WIDTH, "height": HEIGHT, "seed": 5, "deadline": 8.0, "take": int(take)}
                own = (
                    {"positive_prompt": text, "number_results": wanted}
                    if service == "runware"
                    else {"prompt": text}
                )
                context = RunContext("1", "p", Limits(0.0, 0.0))
                request = find_service(service).make_request(context, common | own)
                result = self.engine.launch(lambda request=request: request).result(30)
                assert any(image.pixels is not None for image in result.images), f"{text} never arrived"
                self.check_pictures(text, result)
            billed = Counter(self.double.list_accepted())
            assert billed == +self.asked, f"billed {billed}, asked for {+self.asked}"
            for file in (self.folder / "__kleinod").rglob("*"):
                assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
        finally:
            for engine in self.engines:
                engine.close()
            self.double.close()
            os.environ.clear()
            os.environ.update(self.before)
            shutil.rmtree(self.folder, ignore_errors=True)


class MoneyAgainstTheFirst(Money):
    make_double = FirstDouble


class MoneyAgainstTheRaw(Money):
    make_double = RawDouble


_PACE = settings(
    max_examples=int(os.environ.get("KLEINOD_MONEY_EXAMPLES", "10")),
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAgainstTheFirst = MoneyAgainstTheFirst.TestCase
TestAgainstTheRaw = MoneyAgainstTheRaw.TestCase
TestAgainstTheFirst.settings = TestAgainstTheRaw.settings = _PACE
