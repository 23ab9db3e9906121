"""An emulator and an engine that waits a fiftieth as long, for tests of money and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kleinod_pure.remote.bfl import BflRequest
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.flight import Order, Outcome
from kleinod_pure.remote.ledger import Claim
from kleinod_pure.remote.pace import Pace
from kleinod_pure.remote.runware import RunwareOptions, RunwareRequest

from tests.emulator import Emulator

CANARY = "canary-4f9d2c71ab-do-not-leak"
FAST = Pace(scale=0.02, connect=2, read=2, read_sync=4, download=2)


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
        made.append(Engine(tmp_path / "__kleinod", **{"pace": FAST} | more))
        return made[-1]

    yield make
    for engine in made:
        engine.ledger.close()


@pytest.fixture
def engine(emulator: Emulator, make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


@pytest.fixture
def runware_order(emulator: Emulator) -> Callable[..., Order]:
    def order(
        prompt: str = "a fox",
        deadline: float = 8.0,
        take: int = 0,
        profile: str = "default",
        price_check: str = "off",
        limits: tuple[float, float] = (0.0, 0.0),
        prompt_id: str = "p",
        output_type: str = "URL",
        **fields,
    ) -> Order:
        options = RunwareOptions(output_type=output_type)
        request = RunwareRequest(prompt, options=options, **{"width": 256, "height": 192} | fields)
        claim = Claim(
            "runware",
            emulator.url,
            "imageInference",
            request.to_task(),
            profile,
            take,
            request.number_results,
            request.estimate_usd(),
            "1",
            prompt_id,
            {},
            *limits,
        )
        return Order(claim, deadline_seconds=deadline, price_check=price_check)

    return order


@pytest.fixture
def bfl_order(emulator: Emulator) -> Callable[..., Order]:
    def order(
        prompt: str = "a fox", deadline: float = 8.0, take: int = 0, prompt_id: str = "p", **fields
    ) -> Order:
        request = BflRequest(prompt, **{"width": 256, "height": 192} | fields)
        claim = Claim(
            "bfl",
            emulator.url,
            request.endpoint,
            request.to_body(),
            "default",
            take,
            1,
            request.estimate_usd(),
            "2",
            prompt_id,
            {},
        )
        return Order(claim, deadline_seconds=deadline)

    return order


@pytest.fixture
def fly(engine: Engine) -> Callable[..., Outcome]:
    """Order, wait, return the outcome or raise its error."""

    def run(order: Order, by: Engine = engine) -> Outcome:
        ticket = by.launch(lambda: order)
        assert ticket.done.wait(30), "the flight never landed"
        return ticket.result()

    return run
