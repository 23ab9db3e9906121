"""Which step of the run a call of the model belongs to, read from its sigma alone."""

from __future__ import annotations

from collections.abc import Sequence

# A solver may shave a hair off a sigma (er_sde asks for .9999 instead of 1): still the same step.
TOLERANCE = 2e-4

# The first step at which every solver has shown whether it is irregular: heunpp2 asks for the sigmas 0, 1, 2
# and then 1 again. Nothing may be skipped earlier.
SURE_FROM = 3


class StepClock:
    """Finds the step of a sigma in the run's schedule, and notices solvers that call the model oddly.

    A solver that asks for a sigma twice, or for one between two entries (Heun, DPM-2, SDE midpoints, adaptive
    sizes), is `irregular` from that call on: its calls do not follow one smooth path, so no forecast may
    connect them.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._sigmas = [float(sigma) for sigma in sigmas][:-1]
        self._seen: set[int] = set()
        self.irregular = False

    @property
    def steps(self) -> int:
        return len(self._sigmas)

    def locate(self, sigma: float) -> int | None:
        """The step of `sigma`, or None where the call is off the schedule or a repetition."""
        if not self._sigmas:
            return None
        index = min(range(len(self._sigmas)), key=lambda i: abs(self._sigmas[i] - sigma))
        if abs(self._sigmas[index] - sigma) > self._tolerance(index) or index in self._seen:
            self.irregular = True
            return None
        self._seen.add(index)
        return index

    def _tolerance(self, index: int) -> float:
        here = self._sigmas[index]
        neighbours = self._sigmas[max(0, index - 1) : index] + self._sigmas[index + 1 : index + 2]
        nearest = min((abs(here - other) for other in neighbours), default=TOLERANCE * 4)
        return min(TOLERANCE, nearest / 4)
