"""One sampling run: asks the policies before each call of the model, and lets them learn from what was
computed.

Knows tensors and numbers, never ComfyUI. It is made when a run starts and thrown away when it ends, whatever
the end.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base.sentences import Sentence, say
from ..base.values import Acceleration
from .clock import StepClock
from .extrapolation import MIN_SIGMA
from .policies.policy import MIN_STEPS, Policy, RunFacts, Step
from .policies.registry import list_wanted
from .report import COMPUTED, REUSED, RunReport, StepRecord


@dataclass
class _Unread:
    """Numbers of a computed step that still lie on the device. policy: whose error it is."""

    record: StepRecord
    finite: Tensor
    error: Tensor | None = None
    policy: Policy | None = None


class Controller:
    """The state of one run. Open every call of the model with `begin`; then `forecast` or `learn`; at last
    `finish`.
    """

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        self.run = run
        self.clock = StepClock(run.sigmas)
        wanted = list_wanted(settings)
        fitting = [policy for policy in wanted if policy.min_steps(settings) <= run.steps]
        self.policies: list[Policy] = [policy(settings, run) for policy in fitting]
        self._key: Hashable = None
        self._unread: _Unread | None = None
        self._record = StepRecord(None, 1.0)
        self._standing_in: Policy | None = None
        self._disabled = False
        thresholds = [policy.threshold for policy in self.policies if policy.threshold is not None]
        self.report = RunReport(
            method=" + ".join(policy.title for policy in self.policies) or say("no acceleration"),
            steps=run.steps,
            threshold=thresholds[0] if thresholds else None,
        )
        if len(fitting) < len(wanted):
            self.report.notes.append(
                say("%1 steps are too few to skip any (from %2 on)", run.steps, MIN_STEPS)
            )

    def disable(self, reason: Sentence, hold_exact: bool = True) -> None:
        """Compute everything from here on, and say why.

        hold_exact: False where nothing may be kept at all. What is exact goes on otherwise.
        """
        if not hold_exact:
            for policy in self.policies:
                policy.hold_nothing()
        if self._disabled or all(policy.is_exact for policy in self.policies):
            return
        self._disabled = True
        skipped = any(record.kind != COMPUTED for record in self.report.records)
        self.report.notes.append(
            say("%1: from call %2 on every step was computed", reason, len(self.report.records))
            if skipped
            else say("%1: every step was computed", reason)
        )
        self.forget()

    def forget(self) -> None:
        """Drop what earlier steps left: the next one has another picture, prompt or model behind it."""
        for policy in self.policies:
            policy.forget()

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
            parts.append(_largest_and_middle(unread.error))
        sigma, finite, *errors = torch.cat(parts).tolist()
        self._judge(unread, errors, bool(finite))
        return sigma

    def begin(self, sigma: float, key: Hashable) -> bool:
        """Open the step at `sigma`. True where a policy stands in for the network.

        key: whatever must stay the same for earlier steps to say anything about this one (shape, guidance,
        the conditions in force). A changed key forgets everything.
        """
        index = self.clock.locate(sigma)
        self._record = StepRecord(index, sigma)
        self.report.records.append(self._record)
        if self.clock.irregular:
            self.disable(say("this sampler calls the model more than once a step"))
        if key != self._key:
            if self._key is not None:
                self._record.note = say("conditions changed")
            self.forget()
            self._key = key
        if any(policy.breaks_path(index) for policy in self.policies):
            for policy in self.policies:
                policy.path_broken()
        step = Step(None if self._disabled or sigma <= MIN_SIGMA else index, sigma)
        self._standing_in = None
        for policy in self.policies:
            if policy.begin_step(step):
                self._standing_in = policy
                self._record.kind, self._record.work = REUSED, 0.0
                return True
        return False

    def forecast(self, x: Tensor) -> Tensor:
        """The denoised picture expected at the step just begun, in the dtype of `x`."""
        if self._standing_in is None:
            raise RuntimeError("no policy stands in for the network at this step")
        return self._standing_in.predict(x, self._record.sigma)

    def learn(self, x: Tensor, denoised: Tensor) -> Tensor:
        """Take in what the network said at the step just begun; returns what the solver shall be given."""
        record, given = self._record, denoised
        self._unread = _Unread(record, torch.isfinite(denoised).all())
        for policy in self.policies:
            result = policy.end_step(x, given)
            given = result.denoised
            record.work *= result.work
            if result.kind != COMPUTED:
                record.kind = result.kind
            if result.error is not None:
                self._unread.error, self._unread.policy = result.error, policy
        return given

    def finish(self) -> RunReport:
        """The report. Reads the last step's numbers and frees every tensor."""
        unread, self._unread = self._unread, None
        if unread is not None:
            errors = [] if unread.error is None else _largest_and_middle(unread.error).tolist()
            self._judge(unread, errors, bool(unread.finite))
        for policy in self.policies:
            if not self._disabled or policy.is_exact:
                self.report.notes.extend(policy.notes())
        self.forget()
        return self.report

    def _judge(self, unread: _Unread, errors: list[float], finite: bool) -> None:
        record = unread.record
        if not finite:
            record.note = say("not a finite number: forgotten")
            self.forget()
            return
        if not errors or unread.policy is None:
            return
        record.error, middle = errors
        unread.policy.judge(middle)


def _largest_and_middle(errors: Tensor) -> Tensor:
    """Of a batch `[B]`: the largest is reported, the middle one decides, so that one picture does not slow
    the others.
    """
    errors = errors.float().reshape(-1)
    return torch.stack([errors.max(), errors.median()])
