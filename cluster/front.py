"""The front: the API's jobs and results, and the way to the workers. Serve runs one, on the head's machine.

It is the service of `nodes/service` with another door and another executor; whatever it was doing when it was
killed stands in its database, and the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from kleinod_pure.service.application import MESSAGES
from kleinod_pure.service.host import FIRST_KEY
from kleinod_pure.service.messages import Refusal
from kleinod_pure.service.service import Machine, Service
from kleinod_pure.service.settings import read_settings
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from .asgi import AsgiAdapter
from .executor import ClusterExecutor, Drawn, Lost, Stream
from .numbers import Journeys, describe_workers
from .roster import ROSTER
from .workers_book import WorkersBook

logger = logging.getLogger("kleinod.cluster")
_MOST_SHARED = 256


class ServeStream:
    """A worker's events as Serve streams them."""

    def __init__(self, response: Any) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        try:
            async for event in self._response:
                yield event
        except (ray.exceptions.RayError, RayServeException) as error:
            # The first line: the rest is a traceback of another machine.
            raise Lost(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from None

    def cancel(self) -> None:
        self._response.cancel()


class ServeTransport:
    """Runs go to whichever worker `router.HolderRouter` chooses; pictures go through Ray's object store,
    once each.
    """

    def __init__(self, workers: DeploymentHandle) -> None:
        self._draw = workers.options(stream=True).draw
        self._shared: OrderedDict[str, ray.ObjectRef] = OrderedDict()

    def open(self, ticket: str, wanted: str, graph: Mapping[str, Any], pictures: Mapping[str, Any]) -> Stream:
        return ServeStream(
            self._draw.remote(ticket=ticket, wanted=wanted, graph=dict(graph), pictures=dict(pictures))
        )

    def close(self, ticket: str) -> None:
        ROSTER.note_over(ticket)

    def share(self, name: str, data: bytes) -> Any:
        """Names are made of contents, so one copy serves every picture that is painted after it."""
        if name not in self._shared:
            self._shared[name] = ray.put(data)
        self._shared.move_to_end(name)
        while len(self._shared) > _MOST_SHARED:
            self._shared.popitem(last=False)
        return self._shared[name]


@serve.ingress()
class Front:
    """folder: of jobs, results and settings; only one front has it at a time. slots: pictures on their way to
    the workers. remote: whether other machines are answered. stand_in: whether klein-nano may draw where
    there are no weights.
    """

    async def __init__(
        self,
        workers: DeploymentHandle,
        folder: str,
        slots: int,
        remote: bool,
        stand_in: bool,
        patience: float,
    ) -> None:
        # The service's and the executor's words go where Serve keeps this replica's.
        pack = logging.getLogger("kleinod")
        pack.handlers, pack.propagate = logging.getLogger("ray.serve").handlers, False
        pack.setLevel(logging.INFO)
        stored = read_settings(Path(folder))
        settings = replace(
            stored, enabled=True, remote=stored.remote or remote, stand_in=stored.stand_in and stand_in
        )
        executor = ClusterExecutor(ServeTransport(workers), slots, patience, self._note_drawn)
        machine = Machine(
            lambda: _list_files("models"), lambda: _list_files("loras"), lambda: _list_files("detectors")
        )
        self._service = Service(Path(folder), settings, executor, machine, MESSAGES)
        self._workers = WorkersBook(self._service.book)
        self._service.name_worker = self._workers.find
        self._on_the_way = Journeys()
        self._adapter = AsgiAdapter(self._service, lambda: describe_workers(ROSTER.list(), self._on_the_way))
        self._again = await self._service.start()
        logger.info("The front is there; %d pictures of the time before are drawn now.", self._again)
        # Serve makes its router with the first call; from then on it hears of workers.
        self._hello = asyncio.ensure_future(_greet(workers))

    def __serve_build_asgi_app__(self) -> AsgiAdapter:
        return self._adapter

    def _note_drawn(self, drawn: Drawn) -> None:
        self._workers.note(drawn.ticket, drawn.worker)
        self._on_the_way.add(drawn.on_the_way)
        picture = self._service.book.find_picture(drawn.ticket)
        job = self._service.book.read_job(picture.job) if picture is not None else None
        logger.info(
            "Picture %s of task %s: drawn by %s in %.2f s.",
            drawn.ticket, job.task if job else "?", drawn.worker, drawn.seconds,
        )  # fmt: skip

    async def greet(self) -> dict[str, Any]:
        """What the console tells: the first key this once, and how much was waiting."""
        live = [key for key in self._service.keys.list() if not key.revoked]
        secret = "" if live else self.create_key(FIRST_KEY)
        return {"key": secret, "again": self._again, "workers": ROSTER.list()}

    def create_key(self, name: str) -> str:
        """The secret of a new key, this once. Where that name was used before, a number follows it."""
        names = {key.name for key in self._service.keys.list()}
        free = next(n for n in (name, *(f"{name} {i}" for i in range(2, 10000))) if n not in names)
        return self._service.keys.create(free)


async def _greet(workers: DeploymentHandle) -> None:
    with suppress(ray.exceptions.RayError, RayServeException):
        await workers.greet.remote()


def _list_files(kind: str) -> list[str]:
    """What every worker has: a picture may go to any of them. Raises Refusal before the first one answers."""
    lists = [told["files"][kind] for told in ROSTER.list() if (told.get("files") or {}).get(kind)]
    if not lists:
        raise Refusal(503, "serviceUnavailable", "No worker answers yet: try again in some seconds.")
    return [name for name in lists[0] if all(name in others for others in lists[1:])]
