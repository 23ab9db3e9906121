"""An emulator and an engine that waits a fiftieth as long, for tests of money and faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kleinod_pure.remote import job_request
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.job_request import JobHandle, JobRequest, JobResult, RunContext
from kleinod_pure.remote.limits import Limits
from kleinod_pure.remote.retry import Deadline, RetryPolicy
from kleinod_pure.remote.services import find_service
from kleinod_pure.remote.services.runware import RunwareOptions

from tests.emulator import Emulator

CANARY = "canary-4f9d2c71ab-do-not-leak"
FAST = RetryPolicy(scale=0.02, connect=2, stall=2, read=2, read_sync=4, download=2)
SMALL = {"width": 256, "height": 192}


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.005)


class HeldDeadline(Deadline):
    """Over when the test says so: on a busy machine no number of seconds is sure to be enough for a job to be
    accepted and too few for it to end.
    """

    over = False

    @property
    def left(self) -> float:
        return 0.0 if self.over else 3600.0


@pytest.fixture
def miss_deadline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobHandle]:
    """miss_deadline(engine, request, when): launch it, let its deadline pass once it is accepted and `when()`
    holds; the handle, which then ends by itself.
    """
    monkeypatch.setattr(job_request, "Deadline", HeldDeadline)

    def launch(engine: Engine, request: JobRequest, when: Callable[[], object] = lambda: True) -> JobHandle:
        patient = replace(request, deadline_seconds=3600.0)
        handle = engine.launch(lambda: patient)
        wait_until(lambda: handle.done() or handle.reach == job_request.WITH_SERVICE)
        wait_until(lambda: handle.done() or when())
        assert not handle.done(), "it ended before its deadline"
        handle.job.deadline.over = True
        return handle

    return launch


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(keys={CANARY}) as running:
        for name in ("RUNWARE", "BFL"):
            monkeypatch.setenv(f"KLEINOD_{name}_URL", running.url)
            monkeypatch.setenv(f"{name}_API_KEY", CANARY)
        yield running


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Engines on one and the same folder: a second one stands for ComfyUI after a restart."""
    made: list[Engine] = []

    def make(**more) -> Engine:
        made.append(Engine(tmp_path / "__kleinod", **{"policy": FAST} | more))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(emulator: Emulator, make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


@pytest.fixture
def runware_request(emulator: Emulator) -> Callable[..., JobRequest]:
    def request(
        prompt: str = "a fox",
        limits: tuple[float, float] = (0.0, 0.0),
        prompt_id: str = "p",
        output_type: str = "URL",
        profile: str = "default",
        price_check: str = "off",
        **inputs,
    ) -> JobRequest:
        options = RunwareOptions(output_type=output_type, profile=profile, price_check=price_check)
        context = RunContext("1", prompt_id, Limits(*limits))
        given = {"positive_prompt": prompt, "options": options, "deadline": 60.0} | SMALL | inputs
        return find_service("runware").make_request(context, given)

    return request


@pytest.fixture
def bfl_request(emulator: Emulator) -> Callable[..., JobRequest]:
    def request(prompt: str = "a fox", prompt_id: str = "p", **inputs) -> JobRequest:
        context = RunContext("2", prompt_id, Limits(0.0, 0.0))
        return find_service("bfl").make_request(
            context, {"prompt": prompt, "deadline": 60.0} | SMALL | inputs
        )

    return request


@pytest.fixture
def fetch(engine: Engine) -> Callable[..., JobResult]:
    """Ask, wait, return what came or raise its error; what came counts as delivered, as a node's would."""

    def run(request: JobRequest, by: Engine = engine) -> JobResult:
        result = by.launch(lambda: request).result(90)
        by.deliver(result)
        return result

    return run
