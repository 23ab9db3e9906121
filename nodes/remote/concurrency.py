"""How many jobs run at once: of one account, and of one request across the processes of this computer."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..base.sentences import say
from .errors import Abandoned, StillRunning
from .retry import Deadline

MAX_CONCURRENT = 24
_STALE_SECONDS = 86400.0


class ConcurrencyLimit:
    """Jobs of one account that may be under way at once. Halved by a 429, regained one by one."""

    def __init__(self, limit: int = 4) -> None:
        self._limit = self._ceiling = max(1, min(limit, MAX_CONCURRENT))
        self._busy = 0
        self._good = 0
        self._change = threading.Condition()

    @property
    def limit(self) -> int:
        return self._limit

    def enter(self, is_wanted: Callable[[], bool], deadline: Deadline) -> bool:
        """Take a place. False if nobody wants it any more; StillRunning when the deadline comes first."""
        with self._change:
            while self._busy >= self._limit:
                if not is_wanted():
                    return False
                if deadline.left <= 0:
                    raise StillRunning(say("The deadline passed in the queue."))
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


class RequestLocks:
    """One lock a request: whoever holds it sends and fetches, the others find what it wrote down.

    The operating system lets go of a lock when its process dies, however it dies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def hold(self, name: str, is_wanted: Callable[[], bool], deadline: Deadline) -> Iterator[None]:
        """Wait for the lock. Abandoned if nobody wants it any more, StillRunning at the deadline."""
        lock = self._make(name)
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                if not is_wanted():
                    raise Abandoned(
                        say("Interrupted while another ComfyUI was at work on the same job.")
                    ) from None
                deadline.wait(0.1)
        try:
            yield
        finally:
            lock.release()

    def is_free(self, name: str) -> bool:
        """Whether nobody works on the request right now."""
        lock = self._make(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

    def clear(self) -> None:
        """Remove the files of locks that nobody has used for a day."""
        for file in self.folder.glob("*.lock"):
            try:
                if time.time() - file.stat().st_mtime > _STALE_SECONDS and self.is_free(file.stem):
                    file.unlink(missing_ok=True)
            except OSError:
                continue  # another process cleared it first

    def _make(self, name: str) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self.folder / f"{name}.lock", thread_local=False)


def name_lock(request_hash: str, take: int) -> str:
    """A short name for the lock of a request."""
    return hashlib.sha256(f"{request_hash}|{take}".encode()).hexdigest()[:32]
