"""How long a run took, and how long one of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds. `step`: mean between two steps, without the model's loading before the first."""

    step: float = 0.0
    sampling: float = 0.0
    decoding: float = 0.0


class Clock:
    """Times one run. A step lasts from one callback to the next of the same result: neither loading nor the
    decoding between two results is in it."""

    def __init__(self) -> None:
        self._began = self._previous = time.perf_counter()
        self._steps: list[float] = []
        self._decoding = 0.0

    def tick(self, step: int) -> None:
        now = time.perf_counter()
        if step > 0:
            self._steps.append(now - self._previous)
        self._previous = now

    @contextmanager
    def decoding(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._decoding += time.perf_counter() - began

    def read(self) -> Timing:
        """A run of single steps has no step without loading: then the whole sampling counts."""
        sampling = time.perf_counter() - self._began - self._decoding
        step = sum(self._steps) / len(self._steps) if self._steps else sampling
        return Timing(step, sampling, self._decoding)
