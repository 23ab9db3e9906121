"""Who runs a graph: three verbs, so that a ComfyUI, many of them or a cluster can stand behind the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Progress = Callable[[float], None]


class Unreachable(Exception):
    """Nobody is there, or the run was lost with whoever had it: it may be sent again."""


class Cancelled(Exception):
    """Somebody at the page took it out of the queue or interrupted it."""


class RunFailed(Exception):
    """The graph was refused or a node failed; sent again, it would fail again.

    told: whether the text is written for the person who asked.
    """

    def __init__(self, words: str, told: bool = False) -> None:
        super().__init__(words)
        self.told = told


class Executor(Protocol):
    """slots: runs that may be submitted at once, so that none is idle and others get their turn."""

    slots: int

    async def submit(self, ticket: str, graph: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        """Queue a graph under the id `ticket`, a UUID. pictures: files by their names in the graph's Load
        Image nodes, as `graph.name_picture` spells them. Raises RunFailed, Unreachable.
        """
        ...

    async def watch(self, ticket: str, progress: Progress) -> bytes:
        """Wait for the run and give the file of its one picture. `progress` gets shares from 0 to 1. Raises
        RunFailed, Cancelled, Unreachable.
        """
        ...

    async def cancel(self, ticket: str) -> None:
        """Take a run out of the queue, or interrupt it; none of that id is no error."""
        ...

    async def close(self) -> None: ...
