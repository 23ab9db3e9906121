"""How long to wait for what, how often to try again, and how many jobs may run at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from .errors import StillRunning


@dataclass(frozen=True)
class Pace:
    """Times in seconds. `scale` shrinks every wait alike (tests run at a hundredth)."""

    scale: float = 1.0
    backoff_first: float = 0.5
    backoff_most: float = 20.0
    retry_after_most: float = 120.0
    tries: int = 5
    connect: float = 10.0
    read: float = 60.0
    read_sync: float = 180.0
    download: float = 120.0
    polls: tuple[tuple[str, float, float, float], ...] = (("runware", 1.0, 1.5, 8.0), ("bfl", 0.5, 1.3, 5.0))

    def backoff(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """Full jitter: anything from 0 to the doubled and capped base."""
        return draw() * min(self.backoff_most, self.backoff_first * 2**attempt) * self.scale

    def retry(self, attempt: int, retry_after: str | None, now: Callable[[], float] = time.time) -> float:
        """The wait before the next try; a Retry-After header (seconds or a date) counts as the least."""
        asked = read_retry_after(retry_after, now())
        return max(self.backoff(attempt), min(asked, self.retry_after_most) * self.scale)

    def poll(self, service: str, count: int) -> float:
        """The wait before poll number `count` (from 0): growing, then steady."""
        first, factor, most = next(entry[1:] for entry in self.polls if entry[0] == service)
        return min(most, first * factor ** min(count, 30)) * self.scale


def read_retry_after(value: str | None, now: float) -> float:
    """Seconds asked for by a Retry-After header in either form; 0 for none or nonsense."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError):
        return 0.0


class Patience:
    """The time left for a whole job."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    def wait(self, seconds: float) -> None:
        """Sleep; StillRunning when the deadline comes first."""
        time.sleep(min(seconds, self.left))
        if self.left <= 0:
            raise StillRunning("The deadline passed")


class Gate:
    """How many jobs of one account may be under way at once. Halved by a 429, regained one by one."""

    def __init__(self, limit: int = 4, most: int = 24) -> None:
        self._limit = max(1, min(limit, most))
        self._ceiling = self._limit
        self._busy = 0
        self._good = 0
        self._change = threading.Condition()

    @property
    def limit(self) -> int:
        return self._limit

    def enter(self, is_wanted: Callable[[], bool], patience: Patience) -> bool:
        """Take a place. False if nobody wants it any more."""
        with self._change:
            while self._busy >= self._limit:
                if not is_wanted():
                    return False
                if patience.left <= 0:
                    raise StillRunning("The deadline passed in the queue.")
                self._change.wait(0.1)
            self._busy += 1
            return True

    def leave(self, good: bool = True) -> None:
        with self._change:
            self._busy -= 1
            self._good += good
            if self._good >= 4 and self._limit < self._ceiling:
                self._limit, self._good = self._limit + 1, 0
            self._change.notify_all()

    def slow_down(self) -> None:
        with self._change:
            self._limit, self._good = max(1, self._limit // 2), 0
