"""A service with an executor that paints at once, so that requests are tested without any model."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kleinod_pure.service.application import MESSAGES, answer
from kleinod_pure.service.executor import Executor, RunFailed
from kleinod_pure.service.messages import Answer, Request
from kleinod_pure.service.service import Machine, Service
from kleinod_pure.service.settings import ApiSettings
from PIL import Image

BASE = "http://127.0.0.1:8188/kleinod/api"
NANO = "klein-nano (built in)"
FILES = (
    NANO, "flux-2-klein-4b.safetensors", "flux-2-klein-base-4b.safetensors", "flux-2-klein-9b.safetensors",
    "flux-2-klein-base-9b-fp8.safetensors", "flux-2-klein-9b-kv.safetensors", "sd_xl_base.safetensors",
)  # fmt: skip
LORAS = ("style.safetensors", "people/civitai-123@456.safetensors")
DETECTORS = ("bbox/face_yolov8m.pt", "klein-nano faces (built in)")


def make_png(size: tuple[int, int] = (64, 64), colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


class Painter(Executor):
    """Paints one colour, taken from the seed, in so many seconds. hold: what `watch` waits for. fails: by
    ticket's order, what is raised instead.
    """

    slots = 2

    def __init__(self) -> None:
        self.graphs: list[dict[str, Any]] = []
        self.pictures: list[dict[str, bytes]] = []
        self.order: list[str] = []
        self.cancelled: list[str] = []
        self.hold: asyncio.Event | None = None
        self.seconds = 0.0
        self.fails: list[Exception] = []
        self._sizes: dict[str, tuple[tuple[int, int], int]] = {}

    async def submit(self, ticket: str, graph: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        if self.fails and isinstance(self.fails[0], RunFailed) and str(self.fails[0]) == "refused":
            raise self.fails.pop(0)
        inputs = graph.get("sampler", {"inputs": {"width": 64, "height": 64, "seed": 1}})["inputs"]
        self.graphs.append(dict(graph))
        self.pictures.append(dict(pictures))
        self.order.append(ticket)
        self._sizes[ticket] = (inputs["width"], inputs["height"]), inputs["seed"]

    async def watch(self, ticket: str, progress: Callable[[float], None]) -> bytes:
        progress(0.5)
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise self.fails.pop(0)
        size, seed = self._sizes[ticket]
        return make_png(size, (seed % 251, seed // 251 % 251, 7))

    async def cancel(self, ticket: str) -> None:
        self.cancelled.append(ticket)

    async def close(self) -> None:
        return None


class Stage:
    """A running service, its painter and a key."""

    def __init__(self, service: Service, painter: Painter, key: str) -> None:
        self.service, self.painter, self.key = service, painter, key

    async def ask(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """(status, parsed answer)"""
        told = await self.answer(method, path, body, key, **headers)
        return told.status, json.loads(told.body) if told.content_type == "application/json" else told.body

    async def answer(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> Answer:
        secret = self.key if key is None else key
        path, _, query = path.partition("?")
        pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
        given = {"authorization": f"Bearer {secret}", "x-key": secret} if secret else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await answer(self.service, Request(method, path, given, pairs, data, BASE))

    async def run(self, **fields: Any) -> tuple[int, Any]:
        """One imageInference."""
        return await self.ask("POST", "/runware/v1", [make_task(**fields)])

    async def fetch(self, address: str) -> Image.Image:
        assert address.startswith(f"{BASE}/results/")
        told = await self.answer("GET", address.removeprefix(BASE), key="")
        assert told.status == 200
        return Image.open(io.BytesIO(told.body))


def make_task(**fields: Any) -> dict[str, Any]:
    task = {
        "taskType": "imageInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "runware:400@5",
        "positivePrompt": "a fox",
        "width": 256,
        "height": 192,
    }
    return {name: value for name, value in (task | fields).items() if value is not ...}


@asynccontextmanager
async def run_service(
    folder: Path,
    files: tuple[str, ...] = FILES,
    painter: Painter | None = None,
    clock: Callable[[], float] | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    painter = painter or Painter()
    machine = Machine(lambda: list(files), lambda: list(LORAS), lambda: list(DETECTORS))
    service = Service(folder, ApiSettings(enabled=True, **settings), painter, machine, MESSAGES, clock)
    names = {key.name for key in service.keys.list()}
    key = service.keys.create(f"test {len(names)}")
    await service.start()
    try:
        yield Stage(service, painter, key)
    finally:
        await service.close()
