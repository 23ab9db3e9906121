"""Dual block: some blocks at both ends always run; what the others added is carried on along its trend.

Runware's dbCache: DBCache of vipshop/cache-dit, with its interval of forced steps.
"""

from __future__ import annotations

from ...base.values import Acceleration
from .blocks import BlockCache
from .policy import ThresholdScale


class DualBlock(BlockCache):
    title = "dual block"
    scale = ThresholdScale(limit=0.5, power=1.5)
    extrapolates = True

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        return settings.db_cache and cls.resolve(settings) > 0

    @classmethod
    def dial(cls, settings: Acceleration) -> tuple[str, float, str]:
        return "dbCacheThreshold", settings.db_cache_threshold, settings.threshold_meaning

    @classmethod
    def changed(cls, settings: Acceleration) -> str:
        return f"the output of the first {settings.front_blocks} block(s) changed by less than"

    @classmethod
    def front_blocks(cls, settings: Acceleration) -> int:
        return settings.front_blocks

    @classmethod
    def back_blocks(cls, settings: Acceleration) -> int:
        return settings.back_blocks

    @classmethod
    def cap(cls, settings: Acceleration) -> int:
        return min(settings.cache_max_consecutive_steps, settings.db_cache_skip_interval)
