"""How long to wait for what, how often to try again, and how long a job may take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from ..base.sentences import say
from .errors import StillRunning


@dataclass(frozen=True)
class PollPace:
    """Seconds between polls: `first`, then `factor` times as long each time, up to `longest`."""

    first: float = 1.0
    factor: float = 1.5
    longest: float = 8.0


@dataclass(frozen=True)
class RetryPolicy:
    """Times in seconds. `scale` shrinks every wait alike (tests run at a hundredth).

    connect: until a connection stands. stall: until the next piece of a request has left; the whole of it may
    take as long as it takes. read, read_sync: until an answer has come. download: of one picture.
    """

    scale: float = 1.0
    backoff_first: float = 0.5
    backoff_longest: float = 20.0
    retry_after_longest: float = 120.0
    tries: int = 5
    connect: float = 10.0
    stall: float = 30.0
    read: float = 60.0
    read_sync: float = 180.0
    download: float = 120.0

    def backoff(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """Full jitter: anything from 0 to the doubled and capped base."""
        return draw() * min(self.backoff_longest, self.backoff_first * 2**attempt) * self.scale

    def retry(self, attempt: int, retry_after: str | None, now: Callable[[], float] = time.time) -> float:
        """The wait before the next try; a Retry-After header (seconds or a date) counts as the least."""
        asked = read_retry_after(retry_after, now())
        return max(self.backoff(attempt), min(asked, self.retry_after_longest) * self.scale)

    def poll(self, pace: PollPace, count: int) -> float:
        """The wait before poll number `count` (from 0): growing, then steady."""
        return min(pace.longest, pace.first * pace.factor ** min(count, 30)) * self.scale


def read_retry_after(value: str | None, now: float) -> float:
    """Seconds asked for by a Retry-After header in either form; 0 for none or nonsense."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
        return max(0.0, seconds) if seconds == seconds else 0.0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return 0.0


class Deadline:
    """The moment a whole job must be done by. It moves when somebody with more time joins."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, 0 when it is over."""
        return max(0.0, self._ends - time.monotonic())

    def extend(self, seconds: float) -> None:
        """Not before `seconds` from now."""
        self._ends = max(self._ends, time.monotonic() + seconds)

    def wait(self, seconds: float) -> None:
        """Sleep; StillRunning when the deadline comes first."""
        ends = time.monotonic() + seconds
        while True:
            if self.left <= 0:
                raise StillRunning(say("The deadline passed."))
            pause = min(ends - time.monotonic(), self.left)
            if pause <= 0:
                return
            time.sleep(pause)
