"""The time of day as it was when the service started, and what has passed since: nothing jumps when somebody
sets the machine's clock, so that no result is past its time too early and no webhook waits for yesterday.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Called, it gives seconds as `time.time` does. wall, steady: the clocks it is made of."""

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._steady = steady
        self._start = wall() - steady()

    def __call__(self) -> float:
        return self._start + self._steady()
