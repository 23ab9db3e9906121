"""Work beside the answering: a loop that sleeps until it is woken, and the tasks that it started."""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

logger = logging.getLogger("kleinod.api")
WRITE_PAUSE = 2.0
Result = TypeVar("Result")


class Background:
    """Ended whole by `close`: the loop and every task. A subclass says in `_run` what the loop does."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        self._woken.set()

    async def close(self) -> None:
        tasks = [task for task in (self._loop, *self._tasks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        raise NotImplementedError

    async def _write(self, work: Callable[[], Result]) -> Result:
        """The result of `work` on the job book, tried until it can be written: a full disk loses nothing that
        was accepted, and repeats nothing that was sent.
        """
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                logger.error("The jobs of the API cannot be written (%s); trying again.", error)
                await asyncio.sleep(WRITE_PAUSE)

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task under a name; the loop is woken when it ends, and a bug in it is told to the log."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[name] = task
        task.add_done_callback(functools.partial(self._end, name))

    def _end(self, name: str, done: asyncio.Task[None]) -> None:
        self._tasks.pop(name, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.error("%s of the API failed.", type(self).__name__, exc_info=error)
        self.wake()
