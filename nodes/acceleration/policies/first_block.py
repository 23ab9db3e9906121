"""First block: a step is reused while the first block's output hardly changed.

Runware's fbCache: the idea of ParaAttention and Comfy-WaveSpeed.
"""

from __future__ import annotations

from ...base.values import Acceleration
from .blocks import BlockCache
from .policy import ThresholdScale


class FirstBlock(BlockCache):
    title = "first block"
    scale = ThresholdScale(limit=0.5, power=1.5)

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        return settings.fb_cache and cls.resolve(settings) > 0

    @classmethod
    def dial(cls, settings: Acceleration) -> tuple[str, float, str]:
        return "fbCacheThreshold", settings.fb_cache_threshold, settings.threshold_meaning

    @classmethod
    def changed(cls, settings: Acceleration) -> str:
        return "the first block's output changed by less than"
