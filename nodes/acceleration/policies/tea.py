"""Tea: steps are reused until the changes of the first block's input have summed up.

TeaCache (arXiv 2411.19108), Runware's teaCache. What a change of the input means for the output says a fitted
curve, or a filter that looks past the noise (SeaCache's idea, arXiv 2602.18993).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...base.values import HIGHER_REUSES_MORE, Acceleration
from .. import signals
from .blocks import BlockCache, Memory, Pass
from .policy import RunFacts, ThresholdScale

# Change of block 0's modulated input -> change of the velocity, with no constant term. Fitted on klein base
# 4B with guidance by the mlx-teacache project (R^2 .106: a weak signal, see the help page).
KLEIN_CURVE = signals.Curve(
    (-1841.022165607874, 848.4417137572868, -131.3554469956159, 8.179509586828413, 0.0), limit=0.2
)
SPECTRAL = "spectral"


class Tea(BlockCache):
    title = "tea"
    scale = ThresholdScale(limit=1.0, power=1.5)

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        super().__init__(settings, run)
        fitted = settings.calibration
        self._curve = (
            signals.Curve(fitted.tea_coefficients, fitted.tea_limit)
            if fitted and fitted.tea_coefficients
            else KLEIN_CURVE
        )
        self._spectral = settings.tea_signal == SPECTRAL

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        return settings.tea_cache and cls.resolve(settings) > 0

    @classmethod
    def dial(cls, settings: Acceleration) -> tuple[str, float, str]:
        return "teaCacheDistance", settings.tea_cache_distance, HIGHER_REUSES_MORE

    @classmethod
    def changed(cls, settings: Acceleration) -> str:
        return "the changes since the last computed step sum up to less than"

    @classmethod
    def front_blocks(cls, settings: Acceleration) -> int:
        return 0

    def measure(self, memory: Memory, signal: Tensor, change: float) -> float:
        memory.distance += change if self._spectral else self._curve.at(change)
        memory.signal = signal
        return memory.distance

    def _enter(self, now: Pass, args: dict[str, Any]) -> None:
        (first, _), _ = args["vec"]
        image = args["img"][:, : now.tokens]
        now.signal = signals.modulated_input(image, first.scale, first.shift)
        if self._spectral:
            now.signal = signals.spectral_filter(now.signal, now.height, now.width, self._sigma)
        self._keep_front(now, args)
        self._decide(now)
