"""A cache policy of somebody else: registered from outside, it runs through the real sampler, and nothing of
the pack had to change for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from kleinod.nodes.acceleration.nodes import KleinodAcceleration
from kleinod.nodes.acceleration.policies.policy import ModelFacts, Policy, RunFacts, Step, StepResult
from kleinod.nodes.acceleration.policies.registry import POLICIES
from kleinod.nodes.base.errors import InputError
from kleinod.nodes.base.fields import Field
from kleinod.nodes.base.values import Acceleration

from tests.model.acceleration_rig import BlockCounter, near, plain, relative_error, run, with_short_text
from tests.model.tiny_klein import load_tiny_model

STEPS = 12


class EveryNth(Policy):
    """Computes every n-th step and repeats its velocity in between: plain reuse at a fixed interval."""

    title = "every nth"
    fields = (Field("every_nth", 1, "Compute every n-th step only.", low=1, high=4, optional=True),)

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        super().__init__(settings, run)
        self._velocity: torch.Tensor | None = None
        self._sigma = 1.0

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        return settings.option("every_nth", 1) > 1

    @classmethod
    def check(cls, settings: Acceleration, model: ModelFacts, steps: int | None = None) -> None:
        if steps is not None and settings.option("every_nth", 1) > steps // 3:
            raise InputError(f"every_nth is more than a third of the {steps} steps. Lower it.")

    def begin_step(self, step: Step) -> bool:
        self._sigma = step.sigma
        due = step.index is None or step.index % self.settings.option("every_nth", 1) == 0
        return not due and self._velocity is not None

    def predict(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        assert self._velocity is not None
        return x - sigma * self._velocity

    def end_step(self, x: torch.Tensor, denoised: torch.Tensor) -> StepResult:
        self._velocity = (x - denoised) / self._sigma
        return StepResult(denoised)

    def notes(self) -> list[str]:
        return ["repeated as it was"]

    def forget(self) -> None:
        self._velocity = None


@pytest.fixture
def registered() -> Iterator[None]:
    POLICIES.append(EveryNth)
    yield
    POLICIES.remove(EveryNth)


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_tiny_model(double=1, single=2))


def test_it_runs_through_the_real_sampler(model: Any, registered: None) -> None:
    """Repeating the velocity under Euler is leaving those sigmas out, which the sampler can do itself."""
    settings = Acceleration("none", options=(("every_nth", 3),))
    sigmas = near(STEPS, width=0.02)
    counter = BlockCounter.watch(model)
    got, report = run(model, settings, sigmas)
    counter.close()
    assert report.pattern == "CRR" * 4 and report.method == "every nth"
    assert report.notes == ["repeated as it was"] and report.speed == pytest.approx(3)
    assert counter.total == 4 * 2 * 3, "four steps of two branches through three blocks"
    kept = sigmas[::3]
    fewer, full = plain(model, kept), plain(model, sigmas)
    assert relative_error(got, fewer) < 1e-3 < relative_error(got, full)


def test_its_check_speaks_before_anything_runs(model: Any, registered: None) -> None:
    from kleinod.nodes.acceleration.apply import watch_runs

    settings = Acceleration("none", options=(("every_nth", 4),))
    with pytest.raises(InputError, match="every_nth is more than a third of the 9 steps"):
        watch_runs(model, settings, near(9))


def test_its_dial_is_a_widget_and_its_words_are_said(registered: None) -> None:
    assert KleinodAcceleration.define_schema().inputs[-1].id == "every_nth"
    value, info = KleinodAcceleration.execute(acceleration="none", every_nth=3).args
    assert value.option("every_nth", 1) == 3
    assert "every nth" in info
    with pytest.raises(InputError, match="every_nth is 9"):
        KleinodAcceleration.execute(acceleration="none", every_nth=9)


def test_without_it_nothing_is_left(model: Any) -> None:
    assert [entry.id for entry in KleinodAcceleration.define_schema().inputs][-1] == "calibration"
