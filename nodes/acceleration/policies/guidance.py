"""Guidance with half the work: the last difference of prompt and negative prompt stands in for a fresh one.

Classifier-free guidance computes two branches a step, v = u + g (c - u). The difference d = c - u changes
slowly, so on most steps only c is computed and u = c - d (the idea of FasterCache's CFG cache, arXiv
2410.19355); near the end it may be left out altogether (Adaptive Guidance, arXiv 2312.12487).
"""

from __future__ import annotations

from torch import Tensor

from ...base.errors import InputError
from ...base.sentences import Sentence, say
from ...base.values import Acceleration
from .. import presets
from ..clock import SURE_FROM
from ..extrapolation import LinearExtrapolation
from ..report import COMPUTED, HALF
from .policy import ModelFacts, Policy, RunFacts, Step, StepResult

FULL, DELTA, CUT = "full", "delta", "cut"
FIRST_STEP = 4
"""The first that may go without a branch of its own: before, the picture is still being laid out."""


class GuidanceReuse(Policy):
    """Decides per step which branches run and keeps the difference, as a velocity `[B, ...]`, on a line over
    sigma.
    """

    title = "guidance"
    inside_network = True

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        super().__init__(settings, run)
        self.mode = FULL
        self._end = max(SURE_FROM, -(-settings.guidance_end_percentage * run.steps // 100))
        self._line = LinearExtrapolation()
        self._since_full = 0
        self._halved = False
        self._sigma = 1.0
        self._ever_halved = False
        self._saw_both = False

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        return settings.guidance_interval > 1 or settings.guidance_end_percentage < 100

    @classmethod
    def check(cls, settings: Acceleration, model: ModelFacts, steps: int | None = None) -> None:
        if model.flux_kv_cache:
            raise InputError(
                say(
                    "Flux KV Cache keeps the references of both branches of guidance in one piece and "
                    "gives the prompt those of the negative prompt where only one branch runs. "
                    "Remove Flux KV Cache and use reference_cache, "
                    "or set guidance_interval to 1 and guidance_end_percentage to 100."
                )
            )

    @classmethod
    def describe(cls, settings: Acceleration, steps: tuple[int, ...]) -> list[tuple[str, str]]:
        parts = []
        if settings.guidance_interval > 1:
            every = presets.ordinal(settings.guidance_interval)
            parts.append(f"negative prompt on every {every} computed step")
        if settings.guidance_end_percentage < 100:
            parts.append(f"no guidance after {settings.guidance_end_percentage}% of the steps")
        return [("guidance", ", ".join(parts))]

    def begin_step(self, step: Step) -> bool:
        self._sigma = step.sigma
        self._halved = False
        self.mode = FULL
        if step.index is None:
            return False
        if step.index >= self._end:
            self.mode = CUT
        elif (
            step.index >= FIRST_STEP
            and len(self._line) >= 1
            and self._since_full + 1 < self.settings.guidance_interval
        ):
            self.mode = DELTA
        return False

    def breaks_path(self, index: int | None) -> bool:
        """Where guidance, so far in force, is left out from this step on."""
        return self._saw_both and index is not None and index >= self._end and self.mode != CUT

    @property
    def spares_branch(self) -> bool:
        return self.mode != FULL

    def in_parts(self, guided: bool) -> Sentence:
        return say("tiles or context windows run guidance in parts") if guided else Sentence("")

    def learn_branches(self, conditional: Tensor, unconditional: Tensor) -> None:
        """Keep the difference of two fresh denoised pictures `[B, ...]`."""
        self._saw_both = True
        difference = (unconditional.float() - conditional.float()) / self._sigma
        self._line.add(self._sigma, difference)
        self._since_full = 0

    def make_up_branch(self, conditional: Tensor) -> Tensor:
        self._halved = self._ever_halved = True
        if self.mode == CUT:
            return conditional.clone()
        self._since_full += 1
        return (conditional + self._sigma * self._line.at(self._sigma)).to(conditional.dtype)

    def end_step(self, x: Tensor, denoised: Tensor) -> StepResult:
        return StepResult(denoised, *((0.5, HALF) if self._halved else (1.0, COMPUTED)))

    def notes(self) -> list[Sentence]:
        if self._ever_halved:
            return []
        if not self._saw_both:
            return [
                say("no guidance was spared: that needs a guidance other than 1 and the plain CFG guider")
            ]
        return [say("no step was left to spare guidance on")]

    def forget(self) -> None:
        self._line = LinearExtrapolation()
        self._since_full = 0
        self.mode = FULL
