"""All workers as one executor: `submit, watch, cancel`, as the dispatcher knows them.

A run is a stream of events from the worker that got it; which one that is the transport decides. What the
dispatcher may send again is Unreachable: the worker, or the way to it, was lost. A picture under which
several workers were lost while they drew it is not sent to another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from kleinod_pure.service.executor import Cancelled, Executor, Progress, RunFailed, Unreachable

from .routing import name_set

logger = logging.getLogger("kleinod.cluster")
MOST_LOSSES = 3
_MOST_REMEMBERED = 4096


class Lost(Exception):
    """The worker died, or cannot be reached. Transports raise this and nothing else of their own."""


class Stream(Protocol):
    """Events of one run, each a dict with one of these keys: begun (the worker's name, once it draws),
    progress (0 to 1), picture (bytes, the end; seconds: since the worker had it), failed (words; told: for
    the client), cancelled (words), lost (words).
    """

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]: ...

    def cancel(self) -> None: ...


class Transport(Protocol):
    def open(
        self, ticket: str, wanted: str, graph: Mapping[str, Any], pictures: Mapping[str, Any]
    ) -> Stream: ...

    def close(self, ticket: str) -> None:
        """The run is over, however it ended."""
        ...

    def share(self, name: str, data: bytes) -> Any:
        """What stands for a picture on the way to a worker: the same for the same name."""
        ...


@dataclass
class _Run:
    stream: Stream
    wanted: str
    sent: float
    worker: str = ""
    is_cancelled: bool = False


@dataclass(frozen=True)
class Drawn:
    """Who drew what, for the log and the numbers. seconds: from here to here. on_the_way: those of
    them during which it was not with the worker.
    """

    ticket: str
    worker: str
    seconds: float
    on_the_way: float


@dataclass
class ClusterExecutor(Executor):
    """slots: pictures on their way to all workers together. drawn: told of every picture that came.
    patience: seconds without any event after which a run counts as lost; waiting for a worker does not count.
    """

    transport: Transport
    slots: int
    patience: float = 900.0
    drawn: Callable[[Drawn], None] = lambda drawn: None
    _runs: dict[str, _Run] = field(default_factory=dict)
    _losses: dict[str, int] = field(default_factory=dict)

    async def submit(self, ticket: str, graph: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        if self._losses.get(ticket, 0) >= MOST_LOSSES:
            del self._losses[ticket]
            raise RunFailed(
                f"{MOST_LOSSES} workers were lost while they made this picture; it is not given to another.",
                told=True,
            )
        shared = {name: self.transport.share(name, data) for name, data in pictures.items()}
        wanted = name_set(graph)
        sent = asyncio.get_running_loop().time()
        self._runs[ticket] = _Run(self.transport.open(ticket, wanted, graph, shared), wanted, sent)

    async def watch(self, ticket: str, progress: Progress) -> bytes:
        run = self._runs.get(ticket)
        if run is None:
            raise Unreachable("The run is not known any more.")
        events = run.stream.__aiter__()
        try:
            while True:
                event = await self._next(events, run)
                if "begun" in event:
                    run.worker = event["begun"]
                if "progress" in event:
                    progress(event["progress"])
                if "picture" in event:
                    seconds = asyncio.get_running_loop().time() - run.sent
                    self._losses.pop(ticket, None)
                    on_the_way = max(0.0, seconds - event.get("seconds", seconds))
                    self.drawn(Drawn(ticket, run.worker, seconds, on_the_way))
                    return event["picture"]
                if "failed" in event:
                    raise RunFailed(event["failed"], bool(event.get("told")))
                if "cancelled" in event:
                    raise Cancelled(event["cancelled"])
                if "lost" in event:
                    raise Lost(event["lost"])
        except Lost as error:
            if run.is_cancelled:
                raise Cancelled("The task was cancelled.") from None
            if run.worker:
                self._note_loss(ticket)
                logger.warning("Picture %s: worker %s was lost (%s).", ticket, run.worker, error)
            raise Unreachable(str(error)) from None
        finally:
            self._runs.pop(ticket, None)
            self.transport.close(ticket)

    async def _next(self, events: AsyncIterator[dict[str, Any]], run: _Run) -> dict[str, Any]:
        """The next event. Raises Lost at their end, and after `patience` once a worker draws it."""
        waiting = asyncio.ensure_future(events.__anext__())
        try:
            done, _ = await asyncio.wait({waiting}, timeout=self.patience if run.worker else None)
            if not done:
                run.stream.cancel()
                raise Lost(f"no word for {self.patience:g} s")
            return waiting.result()
        except (StopAsyncIteration, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not (waiting.done() and run.is_cancelled):
                raise
            raise Lost("the stream ended") from None
        finally:
            waiting.cancel()
            with suppress(Lost, StopAsyncIteration, asyncio.CancelledError):
                if waiting.done():
                    waiting.result()

    def _note_loss(self, ticket: str) -> None:
        self._losses[ticket] = self._losses.pop(ticket, 0) + 1
        while len(self._losses) > _MOST_REMEMBERED:
            del self._losses[next(iter(self._losses))]

    async def cancel(self, ticket: str) -> None:
        run = self._runs.get(ticket)
        if run is not None:
            run.is_cancelled = True
            run.stream.cancel()

    async def close(self) -> None:
        """What runs is left to the workers, which keep what they drew for the next front."""
        self._runs.clear()
