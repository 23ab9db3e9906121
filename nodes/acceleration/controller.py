"""One sampling run: decides before each call of the model what may be skipped, and learns from what was
computed.

Knows tensors and numbers, never ComfyUI. It is made when a run starts and thrown away when it ends, whatever
the end.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base.values import Acceleration
from . import presets
from .blocks import BlockCache
from .clock import StepClock
from .forecast import LEAST_SIGMA, VelocityForecast
from .guidance import GuidanceReuse
from .plan import make_plan
from .reference_keys import ReferenceKeys
from .report import COMPUTED, HALF, REUSED, RunReport, StepRecord


@dataclass(frozen=True)
class Facts:
    """What the run is, beyond its settings.

    euler: the solver moves x by (next sigma - sigma) * velocity, so the error of past forecasts can be
    settled. settle: False switches that off (to measure what it is worth).
    """

    sigmas: tuple[float, ...]
    euler: bool = False
    double_blocks: int = 0
    single_blocks: int = 0
    settle: bool = True


@dataclass
class _Unread:
    """Numbers of a computed step that still lie on the device."""

    record: StepRecord
    error: Tensor | None
    finite: Tensor


class Controller:
    """The state of one run. Open every call of the model with `begin`; then `forecast` or `learn`; at last
    `finish`.
    """

    def __init__(self, acceleration: Acceleration, facts: Facts) -> None:
        self.facts = facts
        self.clock = StepClock(facts.sigmas)
        self.plan = make_plan(acceleration, self.clock.steps)
        self.cap = self.plan.cap
        self._error_limit = acceleration.forecast_error_limit
        self._forecast = VelocityForecast()
        self._key: Hashable = None
        self._in_a_row = 0
        self._unread: _Unread | None = None
        self._record: StepRecord | None = None
        self._disabled = self.clock.steps < presets.FEWEST_STEPS
        self.blocks = BlockCache.wanted(acceleration, self.plan, facts.double_blocks, facts.single_blocks)
        self.guidance = None if self._disabled else GuidanceReuse.wanted(acceleration, self.clock.steps)
        # Exact reuse of references approximates nothing: it serves distilled models of 4 steps as well.
        self.references = ReferenceKeys.wanted(acceleration, facts.double_blocks + facts.single_blocks)
        if self._disabled and self.references is not None and not self.references.exact:
            self.references = None
        self.report = RunReport(
            method=self._method_name(),
            steps=self.clock.steps,
            notes=list(self.plan.notes),
            threshold=self.blocks.threshold if self.blocks else None,
        )

    def _method_name(self) -> str:
        names = [self.plan.method.replace("_", " ")] if not self.plan.idle else []
        names += ["guidance"] * (self.guidance is not None) + ["references"] * (self.references is not None)
        return " + ".join(names) or "no acceleration"

    def disable(self, reason: str, hold_references: bool = True) -> None:
        """Compute everything from here on, and say why.

        hold_references: False where nothing may be kept at all. Exact references are no approximation, and
        stay otherwise.
        """
        if self.references is not None and not hold_references and self.references.holds:
            self.references.stop_holding()
        if self._disabled:
            return
        self._disabled = True
        skipped = any(record.kind != COMPUTED for record in self.report.records)
        since = f"from call {len(self.report.records)} on every step" if skipped else "every step"
        self.report.notes.append(f"{reason}: {since} was computed")
        self.forget()

    def forget(self) -> None:
        """Drop what earlier steps left: the next one has another picture, prompt or model behind it."""
        self._forecast.forget()
        self._in_a_row = 0
        for store in (self.blocks, self.guidance, self.references):
            if store is not None:
                store.forget()

    def read_sigma(self, timestep: Tensor) -> float:
        """The sigma of a call, fetched together with the last step's numbers: one wait for the device a
        step.
        """
        first = timestep.flatten()[:1].float()
        unread, self._unread = self._unread, None
        if unread is None:
            return float(first)
        parts = [first, unread.finite.float()[None]]
        if unread.error is not None:
            parts.append(unread.error.float()[None])
        sigma, finite, *error = torch.cat(parts).tolist()
        self._judge(unread.record, error[0] if error else None, bool(finite))
        return sigma

    def begin(self, sigma: float, key: Hashable) -> bool:
        """Open the step at `sigma`. True where the forecast stands in for the network.

        key: whatever must stay the same for earlier steps to say anything about this one (shape, guidance,
        the conditions in force). A changed key forgets everything.
        """
        index = self.clock.locate(sigma)
        self._record = StepRecord(index, sigma)
        self.report.records.append(self._record)
        if self.clock.irregular:
            self.disable("this sampler calls the model more than once a step")
        if key != self._key:
            if self._key is not None:
                self._record.note = "conditions changed"
            self.forget()
            self._key = key
        if self.guidance is not None and self.guidance.cuts(index):
            # From guided to unguided the velocity jumps: no line leads from one to the other.
            self._forecast.forget()
        allowed = index is not None and not self._disabled and sigma > LEAST_SIGMA
        if allowed and self._skips(index):
            self._record.kind, self._record.work = REUSED, 0.0
            self._in_a_row += 1
            return True
        for store in (self.blocks, self.guidance, self.references):
            if store is not None:
                store.begin_step(index if allowed else None, sigma)
        return False

    def _skips(self, index: int) -> bool:
        planned = bool(self.plan.reuse) and self.plan.reuse[index]
        return planned and self._forecast.known >= 2 and self._in_a_row < self.cap

    def forecast(self, x: Tensor) -> Tensor:
        """The denoised picture expected at the step just begun, in the dtype of `x`."""
        record = self._record
        velocity = self._forecast.predict(x.float(), record.sigma)
        if self._settles:
            self._forecast.remember_skip(record.sigma, self._width(record.step), velocity)
        return (x - record.sigma * velocity).to(x.dtype)

    def learn(self, x: Tensor, denoised: Tensor) -> Tensor:
        """Take in what the network said at the step just begun; returns what the solver shall be given."""
        record = self._record
        self._in_a_row = 0
        error = self._close_stores(record)
        forecasts = self.plan.method == "forecast" and record.step is not None and not self._disabled
        if not forecasts or record.sigma <= LEAST_SIGMA:
            self._unread = _Unread(record, error, torch.isfinite(denoised).all())
            return denoised
        sigma = record.sigma
        velocity = (x.float() - denoised.float()) / sigma
        shift = self._forecast.settle(sigma, velocity) if self._settles else None
        errors = self._forecast.observe(x.float(), sigma, velocity)
        self._unread = _Unread(
            record, None if errors is None else errors.max(), torch.isfinite(velocity).all()
        )
        if shift is None or self._width(record.step) == 0:
            return denoised
        # The solver will move x by width * (x - denoised) / sigma: hide the shift in there.
        return (denoised - (sigma / self._width(record.step)) * shift).to(denoised.dtype)

    def _close_stores(self, record: StepRecord) -> Tensor | None:
        """Let the stores say what they saved in this step. Returns the error of the block cache's own
        forecast.
        """
        error = None
        if self.guidance is not None:
            record.work *= self.guidance.end_step()
            if record.work < 1:
                record.kind = HALF
        if self.references is not None:
            record.work *= self.references.end_step()
        if self.blocks is not None:
            reused = self.blocks.reused
            share, error = self.blocks.end_step()
            record.work *= share
            if reused:
                record.kind = REUSED
        return error

    def finish(self) -> RunReport:
        """The report. Reads the last step's numbers and frees every tensor."""
        unread, self._unread = self._unread, None
        if unread is not None:
            self._judge(
                unread.record, None if unread.error is None else float(unread.error), bool(unread.finite)
            )
        for store in () if self._disabled else (self.blocks, self.guidance):
            if store is not None:
                self.report.notes.extend(store.notes())
        if self.references is not None:
            self.report.notes.extend(self.references.notes())
        self.forget()
        return self.report

    def _judge(self, record: StepRecord, error: float | None, finite: bool) -> None:
        if not finite:
            record.note = "not a finite number: forgotten"
            self.forget()
            return
        record.error = error
        if self.plan.method != "forecast" or error is None or error <= self._error_limit or self.cap == 0:
            return
        if any(earlier.kind == REUSED for earlier in self.report.records):
            self.cap //= 2
            self.report.notes.append(
                f"the forecast was off by {100 * error:.0f}% at step {record.step + 1}: from there on at "
                f"most {self.cap} steps skipped in a row"
            )

    @property
    def _settles(self) -> bool:
        return self.facts.euler and self.facts.settle

    def _width(self, index: int) -> float:
        return self.facts.sigmas[index + 1] - self.facts.sigmas[index]
