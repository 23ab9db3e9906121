"""Forecast: whole steps stand on what the network said before, at steps chosen before the run begins.

The one policy that fits any model: it works on the velocity after guidance (`extrapolation.py`), so it knows
nothing of branches, batches or blocks. Which steps are skipped is a budget
(`plan.py`); a picture that turns out hard to foresee gets more than its budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from ...base.acceleration import FittedTable
from ...base.errors import InputError
from ...base.flux2 import DEFAULT_GUIDANCE
from ...base.noise import list_native_sigmas, unshift_sigma
from ...base.sentences import Sentence, join, say
from ...base.values import Acceleration
from .. import presets
from ..clock import SURE_FROM
from ..extrapolation import VelocityForecast, inner, interpolate, per_sample, weigh_by_likeness
from ..fitted import FittedPath, find_mask
from ..linear_solver import Settlement
from ..plan import (
    Reach,
    budget_mask,
    list_strides,
    longest_drop,
    resolve_window,
    shorten_sigmas,
    step_weights,
)
from .policy import MIN_STEPS, ModelFacts, Policy, RunFacts, Step, StepResult

ONE_MEGAPIXEL = 4096
"""Tokens of the picture that the info text works its masks out for."""


@dataclass(frozen=True)
class Plan:
    """Per step, True where the forecast shall stand in for the network; the longest run; what to say.

    table: what chose the steps, and says how they are bridged unless plain runs taught it; None where the
    rule did.
    """

    reuse: tuple[bool, ...]
    cap: int
    notes: tuple[Sentence, ...] = ()
    table: FittedTable | None = None

    @property
    def mask(self) -> Sentence:
        """Where it comes from, for the report."""
        if self.table is None:
            return say("mask: rule")
        if not self.table.learned_from:
            return say("mask: fitted to this model (%1)", self.table.describe())
        runs = self.table.learned_from
        return say("mask: learned from %1 of your own uncached runs (%2)", runs, self.table.describe())

    @property
    def pattern(self) -> str:
        return "".join("R" if skipped else "C" for skipped in self.reuse)

    @property
    def computed(self) -> int:
        return self.reuse.count(False)


def make_plan(settings: Acceleration, run: RunFacts) -> Plan:
    """The plan of a run, by the widths of its own steps. Raises InputError where the window does not fit."""
    steps = run.steps
    window = resolve_window(settings, steps, (presets.HEAD, steps - presets.TAIL))
    # One computed velocity can be repeated; a solver nobody knows must first show that it calls the model
    # once a step. The last step has nothing to hand its error to.
    window = (max(window[0], presets.HEAD if run.regular else SURE_FROM), min(window[1], steps - 1))
    many = steps >= presets.MANY_STEPS
    cap = presets.MANY_STEPS_IN_A_ROW if many else presets.MAX_IN_A_ROW
    if settings.options_are_set:
        cap = settings.cache_max_consecutive_steps
    asked = presets.requested_speed(settings)
    budget = count_budget(settings, steps)
    fewest = presets.min_computed(run.guidance, steps)
    computed = max(budget, fewest)
    table = _choose_table(settings, run, computed)
    if table is not None:
        reuse = tuple(step not in table.computed for step in range(steps))
        return Plan(reuse, steps, tuple(_tell_limit(run, asked, budget, fewest, reuse)), table)
    weights = step_weights(run.sigmas, presets.width_power(steps, computed))
    strides = list_strides(run.sigmas, run.mu)
    lone = sum(1 for _ in takewhile(lambda stride: stride <= presets.LONE_STRIDE, strides[1:]))
    reuse = budget_mask(computed, window, cap, weights, strides, lone)
    notes = _tell_limit(run, asked, budget, fewest, reuse)
    if not notes and reuse.count(False) > budget:
        notes.append(
            say(
                "the window and cacheMaxConsecutiveSteps allow %1 instead of the %2 asked for",
                f"{steps / reuse.count(False):.2f}x",
                f"{asked:.2f}x",
            )
        )
    return Plan(reuse, cap, tuple(notes))


def _tell_limit(
    run: RunFacts, asked: float, budget: int, fewest: int, reuse: tuple[bool, ...]
) -> list[Sentence]:
    if budget >= fewest:
        return []
    return [
        say(
            "at guidance %1 a plan of fewer than %2 computed steps does not hold so the speed is %3 instead "
            "of %4",
            f"{run.guidance:g}",
            fewest,
            f"{run.steps / reuse.count(False):.2f}x",
            f"{asked:.2f}x",
        )
    ]


def _choose_table(settings: Acceleration, run: RunFacts, computed: int) -> FittedTable | None:
    """What was fitted to this model for such a run; None where there is nothing, or the user's own dials say
    something that no table knows of.

    A calibration picked by name counts on a model that cannot be told from others as well.
    """
    if settings.options_are_set or settings.guidance_interval > 1 or settings.guidance_end_percentage < 100:
        return None
    picked = settings.calibration
    tables = run.tables if picked is None else picked.tables
    known = [
        table
        for table in tables
        if table.model == run.fingerprint or (picked is not None and not run.fingerprint)
    ]
    return find_mask(known, run.sigmas, run.guidance, computed, run.solver)


def count_budget(settings: Acceleration, steps: int) -> int:
    """Steps that the speed asked for leaves of a run."""
    return math.floor(steps / presets.requested_speed(settings) + 1e-9)


def plan_usual_run(settings: Acceleration, steps: int, guidance: float = DEFAULT_GUIDANCE) -> Plan:
    """The plan of a run as most are: 1 megapixel, FLUX.2's own sigmas, a solver of one call a step."""
    sigmas = list_native_sigmas(steps, ONE_MEGAPIXEL)
    return make_plan(settings, RunFacts(sigmas, regular=True, guidance=guidance))


EXAMPLE_STEPS = 28


class Forecast(Policy):
    title = "forecast"

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        super().__init__(settings, run)
        self._plan = make_plan(settings, run)
        self._cap = self._plan.cap
        self._weights, self._strides = step_weights(run.sigmas), list_strides(run.sigmas, run.mu)
        # Of the skipped steps in a row, foreseen as the plan foresees it; and the error found for such harm.
        self._harm = self._harm_before = 0.0
        self._reach = Reach()
        self._rate = 0.0
        self._spared = 0
        self._velocity = VelocityForecast(presets.ROUGH_SIGMA if run.rough else math.inf)
        table = self._plan.table
        self._fitted = FittedPath(table) if table and not table.learned_from else None
        # Velocities that a forecast must know: one repeated is good enough at the very start only.
        self._needed = 2
        self._skipped: list[tuple[int, float, Tensor]] = []
        self._settlement = Settlement(run.solver) if run.solver else None
        self._step = Step(None, 1.0)
        self._in_a_row = 0

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        return settings.method == "forecast" and presets.requested_speed(settings) > 1

    @classmethod
    def check(cls, settings: Acceleration, model: ModelFacts, steps: int | None = None) -> None:
        if steps is not None:
            plan_usual_run(settings, steps)

    @classmethod
    def take_fewer_steps(cls, settings: Acceleration, run: RunFacts) -> int:
        """For solvers whose noise is one path through all sigmas (DPM++ 2M SDE), on sigmas that fall evenly,
        where the plan does not know the model's own time.

        Noise added in every step is what no earlier step foretells, and a plain run of as few steps follows
        the same path: it comes nearer (klein-nano) as long as none of its steps is long, as FLUX.2's own last
        ones are. On a Klein the plan puts its computed steps where that run has its long ones, and skipping
        comes nearer by far. Where noise is drawn anew in each step, that run would be another picture. A
        window or a limit of the user's is followed all the same.
        """
        if run.mu is not None or not (run.noise_path and run.regular):
            return 0
        if settings.options_are_set or run.steps < MIN_STEPS:
            return 0
        count = count_budget(settings, run.steps)
        short = longest_drop(shorten_sigmas(run.sigmas, count)) <= presets.SHORT_DROP
        return count if short and count < run.steps else 0

    @classmethod
    def describe(cls, settings: Acceleration, steps: tuple[int, ...]) -> list[tuple[str, str]]:
        asked = "speed" if settings.speed else f"acceleration {settings.acceleration}"
        speed = f"{presets.requested_speed(settings):.2f}x"
        method = join(", ", [say("forecast"), say("%1 fewer computed steps (%2)", speed, asked)])
        lines: list[tuple[str, str]] = [(say("method"), method)]
        for count in steps:
            try:
                plan = plan_usual_run(settings, count)
                counted = join(", ", [Sentence(plan.pattern), say("%1 computed", plan.computed)])
                words = join("; ", [counted, *plan.notes])
            except InputError as error:
                words = Sentence(str(error))
            lines.append((say("%1 steps", count), words))
        speeds = [
            say(
                "%1 at guidance %2",
                f"{EXAMPLE_STEPS / presets.min_computed(level, EXAMPLE_STEPS):.2f}x",
                f"{level:g}",
            )
            for level in (1.0, 4.0, 6.0, 7.0, 10.0)
        ]
        words = join(", ", [say("%1 steps", EXAMPLE_STEPS), *speeds])
        lines.append((say("at most"), words))
        words = say("a picture whose forecasts miss by much computes more steps than that")
        lines.append((say("guard"), words))
        if not settings.options_are_set:
            counts = [say("%1 in the place of %2", count_budget(settings, count), count) for count in steps]
            words = say(
                "on models other than FLUX.2 DPM++ 2M SDE with Beta or Exponential or Karras sigmas takes "
                "fewer steps and skips none: %1",
                join(", ", counts),
            )
            lines.append((say("SDE solvers"), words))
        return lines

    def begin_step(self, step: Step) -> bool:
        self._step = step
        planned = step.index is not None and self._plan.reuse[step.index]
        if self._fitted is not None:
            self._in_a_row = self._in_a_row + 1 if planned and self._fitted.mean is not None else 0
            return self._in_a_row > 0
        skips = planned and self._velocity.known >= self._needed
        skips = skips and self._in_a_row < self._cap
        if skips and step.index is not None:
            reach = self._reach.to(self._strides[step.index])
            harm = self._harm + self._weights[step.index] * reach.error
            if harm * self._rate > self._limit(step.sigma):
                self._spared += 1
                skips = False
            else:
                self._harm, self._reach = harm, reach
        if not skips:
            self._harm_before, self._harm, self._reach = self._harm, 0.0, Reach()
        self._in_a_row = self._in_a_row + 1 if skips else 0
        return skips

    def _limit(self, sigma: float) -> float:
        if self.run.solver is None:
            # Noise that a solver adds is in the error, and most of it early on: no measure of the picture.
            return self.settings.forecast_error_limit
        run = self.run
        return presets.error_limit(self.settings, sigma, self._plan.computed, run.steps, run.guidance)

    def path_broken(self) -> None:
        self._forget_path()

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        if self._fitted is not None and self._fitted.mean is not None:
            return (x - sigma * self._fitted.mean).to(x.dtype)
        velocity = self._velocity.predict(x.float(), sigma)
        if self._settlement is not None and self._step.index is not None:
            self._skipped.append((self._step.index, sigma, velocity))
        return (x - sigma * velocity).to(x.dtype)

    def end_step(self, x: Tensor, denoised: Tensor) -> StepResult:
        index, sigma = self._step.index, self._step.sigma
        if index is None:
            return StepResult(denoised)
        velocity = (x.float() - denoised.float()) / sigma
        if index == 0 and self.run.regular:
            self._needed = 1
        if self._fitted is not None:
            # Up to the next call the solver goes along one straight line, whatever it calls the model for.
            return StepResult((x.float() - sigma * self._fitted.add(index, velocity)).to(denoised.dtype))
        addition = self._settle(index, sigma, velocity)
        errors = self._velocity.observe(x.float(), sigma, velocity)
        if addition is not None:
            denoised = (denoised + addition).to(denoised.dtype)
        return StepResult(denoised, error=errors)

    def _settle(self, index: int, sigma: float, velocity: Tensor) -> Tensor | None:
        """What makes up for the steps skipped since the last computed one, now that the truth is known.

        The last two computed velocities and the fresh one say what the skipped ones should have been. It
        costs no evaluation and removes the leading error of skipping. Early in the run, where it is decided
        what a picture becomes, it is held to a share of the velocity: what is added all at once, and much of
        it, turns one picture into another now and then.
        """
        skipped, self._skipped = self._skipped, []
        if self._settlement is None or not self._velocity.points:
            return None
        points = [*self._velocity.points, (sigma, velocity)]
        errors = [(step, level, self._look_back(points, level) - used) for step, level, used in skipped]
        if errors and sigma > presets.DECIDED_SIGMA:
            share = self._settled_share([error for _, _, error in errors], velocity)
            errors = [(step, level, share * error) for step, level, error in errors]
        return self._settlement.settle(errors, index, velocity)

    def _look_back(self, points: list[tuple[float, Tensor]], sigma: float) -> Tensor:
        """The velocity at `sigma`, between the last two of `points`, the newest of which is just computed.

        By how alike a Klein's velocities are, as far as that is known to hold; else a parabola.
        """
        mu = self.run.mu
        if mu is None:
            return interpolate(points, sigma)
        times = [unshift_sigma(level, mu) for level, _ in points]
        if times[-2] - times[-1] > presets.ALIKE_WITHIN:
            return interpolate(points, sigma)
        weights = weigh_by_likeness(times, unshift_sigma(sigma, mu))
        parts = (weight * velocity for weight, (_, velocity) in zip(weights, points, strict=True))
        return sum(parts, torch.zeros_like(points[-1][1]))

    def _settled_share(self, errors: list[Tensor], velocity: Tensor) -> Tensor:
        """How much of errors `[B, ...]` found early is made up for: 0..1 per sample, to multiply them."""
        largest = torch.stack([inner(error, error) for error in errors]).amax(0).sqrt()
        allowed = presets.SETTLED_PER_GUIDANCE * self.run.guidance * inner(velocity, velocity).sqrt()
        return per_sample((allowed / largest.clamp_min(1e-20)).clamp_max(1.0), velocity)

    def judge(self, error: float) -> None:
        """Harm foreseen and error found give a rate, by which the gaps to come are judged before they are
        taken.
        """
        if self._harm_before > 0:
            self._rate = error / self._harm_before

    def notes(self) -> list[Sentence]:
        notes = [*self._plan.notes, self._plan.mask]
        if self._spared == 1:
            notes.append(say("1 step more was computed than planned: reusing it would have gone wrong"))
        elif self._spared:
            notes.append(
                say(
                    "%1 steps more were computed than planned: reusing them would have gone wrong",
                    self._spared,
                )
            )
        return notes

    def forget(self) -> None:
        self._forget_path()
        self._in_a_row = 0

    def _forget_path(self) -> None:
        self._velocity.forget()
        self._needed = 2
        if self._fitted is not None:
            self._fitted.forget()
        self._skipped = []
        if self._settlement is not None:
            self._settlement.forget()
