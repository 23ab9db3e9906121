"""When a row with a stage acts: the high stage before the boundary of a run, the low one after it.

FLUX.2 is one transformer, not a pair of experts for noisy and clean pictures, so "high" and "low" are shares
of the run: composition forms early, detail late.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.sentences import Sentence, say
from ..base.values import BOTH_STAGES, HIGH_STAGE, SIGMA, StageBoundary

# Where nobody says what the run's steps are (a network called outside of a sampler).
USUAL_SIGMA = 0.9
# A sigma that went through float16 or bfloat16 tables still counts as the one it stands for.
_HAIR = 1e-4


def edge_of(boundary: StageBoundary, sigmas: Sequence[float]) -> float:
    """The sigma that parts the stages of a run with these sigmas (steps + 1): high at or above it.

    By share of steps it lies half way between the last high step and the first low one, so that solvers
    which look between steps stay on the side their step is on.
    """
    if boundary.unit == SIGMA:
        return boundary.at - _HAIR
    steps = len(sigmas) - 1
    if steps < 1:
        return USUAL_SIGMA
    first_low = round(boundary.at * steps)
    if first_low <= 0:
        return float("inf")
    if first_low >= steps:
        return float("-inf")
    return (float(sigmas[first_low - 1]) + float(sigmas[first_low])) / 2


def is_active(stage: str, boundary: StageBoundary, sigma: float, sigmas: Sequence[float]) -> bool:
    """Whether a row of `stage` acts at `sigma` of the run."""
    return stage == BOTH_STAGES or (stage == HIGH_STAGE) == (sigma >= edge_of(boundary, sigmas))


def describe_boundary(boundary: StageBoundary) -> Sentence:
    if boundary.unit == SIGMA:
        return say("from sigma %1 up", f"{boundary.at:g}")
    return say("in the first %1 of the steps", f"{100 * boundary.at:g}%")
