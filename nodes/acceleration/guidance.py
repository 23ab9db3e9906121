"""Guidance with half the work: the last difference of prompt and negative prompt stands in for a fresh one.

Classifier-free guidance computes two branches a step, v = u + g (c - u). The difference d = c - u changes
slowly, so on most steps only c is computed and u = c - d (the idea of FasterCache's CFG cache, arXiv
2410.19355); near the end it may be left out altogether (Adaptive Guidance, arXiv 2312.12487).
"""

from __future__ import annotations

from torch import Tensor

from ..base.values import Acceleration
from . import presets
from .clock import SURE_FROM
from .forecast import Line

FULL, DELTA, CUT = "full", "delta", "cut"


class GuidanceReuse:
    """Decides per step which branches run and keeps the difference, as a velocity `[B, ...]`, on a line over
    sigma.
    """

    def __init__(self, interval: int, end: int, head: int, steps: int) -> None:
        self.interval = interval
        self.end = end
        self.head = head
        self.steps = steps
        self.mode = FULL
        self._line = Line()
        self._since_full = 0
        self._halved = False
        self._sigma = 1.0
        self.ever_halved = False
        self._saw_both = False

    @classmethod
    def wanted(cls, acceleration: Acceleration, steps: int) -> GuidanceReuse | None:
        """None where the settings leave guidance alone."""
        interval, end = acceleration.guidance_interval, acceleration.guidance_end_percentage
        if interval == 1 and end == 100:
            return None
        return cls(interval, max(SURE_FROM, -(-end * steps // 100)), max(SURE_FROM, presets.HEAD), steps)

    def begin_step(self, index: int | None, sigma: float) -> None:
        self._sigma = sigma
        self._halved = False
        self.mode = FULL
        if index is None:
            return
        if index >= self.end:
            self.mode = CUT
        elif index >= self.head and len(self._line) >= 1 and self._since_full + 1 < self.interval:
            self.mode = DELTA

    def cuts(self, index: int | None) -> bool:
        """True where guidance, so far in force, is left out from this step on: the velocity will jump."""
        return self._saw_both and index is not None and index >= self.end and self.mode != CUT

    def learn(self, conditional: Tensor, unconditional: Tensor) -> None:
        """Keep the difference of two fresh denoised pictures `[B, ...]`."""
        self._saw_both = True
        difference = (unconditional.float() - conditional.float()) / self._sigma
        self._line.add(self._sigma, difference)
        self._since_full = 0

    def unconditional(self, conditional: Tensor) -> Tensor:
        """The missing branch's denoised picture, from the fresh one of the prompt."""
        self._halved = self.ever_halved = True
        if self.mode == CUT:
            return conditional.clone()
        self._since_full += 1
        return (conditional + self._sigma * self._line.at(self._sigma)).to(conditional.dtype)

    def end_step(self) -> float:
        """Share of the branches that ran in this step."""
        return 0.5 if self._halved else 1.0

    def notes(self) -> list[str]:
        if self.ever_halved:
            return []
        if not self._saw_both:
            return ["no guidance was spared: that needs a guidance other than 1 and the plain CFG guider"]
        return ["no step was left to spare guidance on"]

    def forget(self) -> None:
        self._line = Line()
        self._since_full = 0
        self.mode = FULL
