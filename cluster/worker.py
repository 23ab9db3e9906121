"""One GPU, one ComfyUI: what Serve runs once for each card.

It holds nothing that cannot be lost. A worker that lost its ComfyUI, or whose ComfyUI no longer answers, ends
itself; Serve starts another, and the front sends what it had elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import ray
from kleinod_pure.service.comfy_executor import ComfyExecutor
from kleinod_pure.service.executor import Cancelled, RunFailed, Unreachable
from kleinod_pure.service.graph import SUBFOLDER
from ray import serve
from ray.util import metrics

from tools.launch.environment import COMFYUI, VENV, Environment
from tools.launch.server import Server
from tools.launch.virtual_environment import environment_python

from .routing import MOST_HELD

logger = logging.getLogger("ray.serve")
PYTHON, FOLDER, PACKAGES, DATA = (
    "KLEINOD_CLUSTER_PYTHON", "KLEINOD_CLUSTER_COMFYUI", "KLEINOD_CLUSTER_PACKAGES", "KLEINOD_CLUSTER_DATA",
)  # fmt: skip
"""Variables of each machine's Ray: its ComfyUI's Python, its ComfyUI, its models."""
_GLANCE_SECONDS = 1.0
_KEEP_SECONDS = 120.0
_CACHED_NODES = 100
"""Of ComfyUI's cache: so many results of nodes, that the weights of some LoRA sets are among them."""
_MOST_REFERENCES = 256
_PROGRESS_SECONDS = 0.5


def find_environment() -> Environment:
    """The ComfyUI of this machine: as its Ray was told, else the one run.py sets up."""
    python, folder = os.environ.get(PYTHON), os.environ.get(FOLDER)
    packages = os.environ.get(PACKAGES)
    return Environment(
        Path(python) if python else environment_python(VENV),
        Path(folder) if folder else COMFYUI,
        own=not folder or Path(folder) == COMFYUI,
        packages=Path(packages) if packages else None,
    )


@dataclass
class _Run:
    """A picture being drawn, or just drawn. weights: nodes of its graph that read them. cached: nodes whose
    results ComfyUI had. outcome: the last event of its stream.
    """

    wanted: str
    weights: frozenset[str]
    started: float = field(default_factory=time.monotonic)
    is_begun: bool = False
    progress: float = 0.0
    outcome: dict[str, Any] | None = None
    ended: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    watchers: int = 0
    cached: frozenset[str] = frozenset()

    def tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Worker:
    """device: as `tools.launch.server` takes it. threads: of the CPU, 0 for ComfyUI's own choice.
    hang_seconds: without an answer of ComfyUI; silent_seconds: of a run without progress.
    """

    def __init__(
        self, device: str, threads: int = 0, hang_seconds: float = 60.0, silent_seconds: float = 900.0
    ) -> None:
        self._hang, self._silent = hang_seconds, silent_seconds
        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "") if device != "cpu" else ""
        context = serve.get_replica_context()
        self.name = (
            f"{socket.gethostname()}/{f'gpu{cards}' if cards else 'cpu'}/{context.replica_id.unique_id}"
        )
        environment = find_environment()
        variables = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        # Where Ray keeps this cluster's logs and sockets, so that what a killed worker leaves goes with them.
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        own = f"comfyui-{context.replica_id.unique_id}"
        self._server = Server(
            environment,
            base=session / own,
            device=device,
            log=session / "logs" / f"{own}.log",
            arguments=("--cache-lru", str(_CACHED_NODES), *_share_models()),
            variables=variables,
            leashed=True,
        )
        self._server.start()
        self._comfy = ComfyExecutor(self._server.url, self._discard, heard=self._hear)
        self._runs: dict[str, _Run] = {}
        self._references: OrderedDict[str, None] = OrderedDict()
        self._bringing = asyncio.Lock()
        self._held: list[str] = []
        self._counts = {"pictures": 0, "seconds": 0.0, "hits": 0, "misses": 0, "in_place": 0, "references": 0}
        self._answered = self._heard = time.monotonic()
        self._files: dict[str, list[str]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._pictures = metrics.Counter(
            "kleinod_worker_pictures", "Pictures by outcome.", ("worker", "outcome")
        )
        self._seconds = metrics.Histogram(
            "kleinod_worker_seconds", "Seconds of a picture.", [0.5, 1, 2, 5, 10, 20, 60, 300], ("worker",)
        )
        self._queue = metrics.Gauge("kleinod_worker_queue", "Pictures waiting or drawn here.", ("worker",))
        self._hits = metrics.Counter(
            "kleinod_worker_model_cache",
            "Pictures whose weights were read before, and not.",
            ("worker", "found"),
        )
        for metric in (self._pictures, self._seconds, self._queue, self._hits):
            metric.set_default_tags({"worker": self.name})
        logger.info("Worker %s: ComfyUI answers on %s.", self.name, self._server.url)

    # --- What Serve asks

    async def check_health(self) -> None:
        """ComfyUI's own answer, not older than its deadline. Raises where there is none."""
        self._watch()
        if time.monotonic() - self._answered > self._hang:
            raise RuntimeError(f"ComfyUI has not answered for {self._hang:g} s.")

    def record_routing_stats(self) -> dict[str, Any]:
        """What the router and the front's /metrics know of this worker."""
        return {
            "name": self.name,
            "held": list(self._held),
            "tickets": list(self._runs),
            "files": self._files,
            "queue": self._count_open(),
            **self._counts,
        }

    def _count_open(self) -> int:
        return sum(run.outcome is None for run in self._runs.values())

    async def greet(self) -> str:
        return self.name

    # --- Drawing

    async def draw(
        self, *, ticket: str, wanted: str, graph: Mapping[str, Any], pictures: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of `executor.Stream`. The same ticket again joins the run that there is; a caller that
        cancels ends it, one that dies does not.
        """
        self._watch()
        self._forget()
        if not self._count_open():
            self._heard = time.monotonic()
        run = self._runs.get(ticket)
        if run is None or (run.outcome is not None and "picture" not in run.outcome):
            run = self._runs[ticket] = _Run(wanted, frozenset({"loader", "loras"} & set(graph)))
            run.task = asyncio.get_running_loop().create_task(self._draw(run, ticket, graph, pictures))
        run.watchers += 1
        try:
            told, is_begun = 0.0, False
            while run.outcome is None:
                news = run.news
                if run.is_begun and not is_begun:
                    is_begun = True
                    yield {"begun": self.name}
                if run.progress > told:
                    told = run.progress
                    yield {"progress": told}
                    await asyncio.sleep(0)
                await news.wait()
            # A front that came back for a picture that is there hears who drew it, too.
            yield {"begun": self.name, **run.outcome} if "picture" in run.outcome else run.outcome
        except (asyncio.CancelledError, GeneratorExit):
            if run.outcome is None and run.watchers == 1:
                asyncio.get_running_loop().create_task(self._comfy.cancel(ticket))
            raise
        finally:
            run.watchers -= 1

    async def _draw(
        self, run: _Run, ticket: str, graph: Mapping[str, Any], pictures: Mapping[str, Any]
    ) -> None:
        said = 0.0

        def note(share: float) -> None:
            nonlocal said
            run.progress = share
            self._heard = time.monotonic()
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                run.tell()

        self._queue.set(self._count_open())
        try:
            async with self._bringing:  # two pictures that begin together need a reference once
                files = await self._bring(pictures)
                await self._comfy.submit(ticket, graph, files)
                for name in pictures:
                    self._keep_reference(name)
            picture = await self._comfy.watch(ticket, note)
            outcome: dict[str, Any] = {"picture": picture, "seconds": time.monotonic() - run.started}
        except Cancelled as error:
            outcome = {"cancelled": str(error)}
        except RunFailed as error:
            outcome = {"failed": str(error), "told": error.told}
        except (Unreachable, ray.exceptions.RayError) as error:
            outcome = {"lost": str(error)}
        except Exception as error:
            logger.exception("Picture %s failed.", ticket)
            outcome = {"lost": type(error).__name__}
        self._end(run, ticket, outcome)

    def _end(self, run: _Run, ticket: str, outcome: dict[str, Any]) -> None:
        run.ended = self._heard = time.monotonic()
        seconds = run.ended - run.started
        kind = "drawn" if "picture" in outcome else next(iter(outcome))
        self._pictures.inc(tags={"outcome": kind})
        if kind == "drawn":
            in_place = bool(self._held) and self._held[-1] == run.wanted
            found = run.weights <= run.cached
            self._counts["pictures"] += 1
            self._counts["seconds"] = round(self._counts["seconds"] + seconds, 3)
            self._counts["hits" if found else "misses"] += 1
            self._counts["in_place"] += in_place
            self._hits.inc(tags={"found": str(found).lower()})
            self._seconds.observe(seconds)
            if run.wanted in self._held:
                self._held.remove(run.wanted)
            self._held = [*self._held, run.wanted][-MOST_HELD:]
        logger.info("Picture %s: %s by %s in %.2f s.", ticket, kind, self.name, seconds)
        run.outcome = outcome
        run.tell()
        self._queue.set(self._count_open())

    def _forget(self) -> None:
        """Results are kept for a front that comes back, for a while."""
        now = time.monotonic()
        for ticket, run in list(self._runs.items()):
            if run.outcome is not None and now - run.ended > _KEEP_SECONDS and not run.watchers:
                del self._runs[ticket]

    async def _bring(self, pictures: Mapping[str, Any]) -> dict[str, bytes]:
        """The bytes of those references that this ComfyUI does not have yet."""
        missing = {name: held for name, held in pictures.items() if name not in self._references}
        found = {
            name: await held if isinstance(held, ray.ObjectRef) else held for name, held in missing.items()
        }
        self._counts["references"] += len(found)
        return found

    def _keep_reference(self, name: str) -> None:
        self._references[name] = None
        self._references.move_to_end(name)
        while len(self._references) > _MOST_REFERENCES:
            old, _ = self._references.popitem(last=False)
            file = old.removeprefix(f"{SUBFOLDER}/").removesuffix(" [temp]")
            self._drop({"filename": file, "subfolder": SUBFOLDER})

    def _discard(self, entry: Mapping[str, Any]) -> None:
        if entry.get("type") == "temp" and entry.get("subfolder") != SUBFOLDER:
            self._drop(entry)

    def _drop(self, entry: Mapping[str, Any]) -> None:
        folder = (self._server.base / "temp").resolve()
        file = (folder / str(entry.get("subfolder", "")) / str(entry.get("filename", ""))).resolve()
        if folder in file.parents:
            with suppress(OSError):
                file.unlink()

    def _hear(self, ticket: str, kind: str, data: Mapping[str, Any]) -> None:
        run = self._runs.get(ticket)
        if run is not None and kind == "execution_cached":
            run.cached = frozenset(data.get("nodes") or ())
        if run is not None and kind in ("execution_start", "execution_cached"):
            self._heard = time.monotonic()
            run.is_begun = True
            run.tell()

    # --- Its ComfyUI

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._look_after())

    async def _look_after(self) -> None:
        """Ask ComfyUI whether it is there, for ever; end this worker where it is not."""
        timeout = aiohttp.ClientTimeout(total=max(1.0, self._hang / 2))
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                if self._server.process is None or self._server.process.poll() is not None:
                    self._leave("ComfyUI has ended")
                try:
                    async with session.get(f"{self._server.url}/system_stats") as answer:
                        await answer.read()
                        self._answered = time.monotonic()
                    if not self._files:
                        self._files = await _list_files(session, self._server.url)
                except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
                    pass
                now = time.monotonic()
                if now - self._answered > self._hang:
                    self._leave(f"ComfyUI has not answered for {self._hang:g} s")
                if self._count_open() and now - self._heard > self._silent:
                    self._leave(f"nothing was heard of a picture for {self._silent:g} s")
                await asyncio.sleep(_GLANCE_SECONDS)

    def _leave(self, words: str) -> None:
        """End at once: those who wait for this worker hear of it from Ray."""
        logger.error("Worker %s ends: %s.", self.name, words)
        self._server.stop(firmly=True)
        os._exit(1)

    def __del__(self) -> None:
        server = getattr(self, "_server", None)
        if server is not None:
            server.stop()


async def _list_files(session: aiohttp.ClientSession, address: str) -> dict[str, list[str]]:
    """What the nodes of this ComfyUI offer: models, loras, detectors."""
    found = {}
    for name, node, field_name in (
        ("models", "KleinodLoader", "diffusion_model"),
        ("loras", "KleinodLoraStack", "lora"),
        ("detectors", "KleinodFaceRefiner", "detector"),
    ):
        async with session.get(f"{address}/object_info/{node}") as answer:
            inputs = (await answer.json())[node]["input"]
        kind, options = {**inputs.get("required", {}), **inputs.get("optional", {})}[field_name]
        found[name] = [str(one) for one in (kind if isinstance(kind, list) else options["options"])]
    return found


def _share_models() -> tuple[str, ...]:
    """Arguments that let ComfyUI see the models of this machine's data folder."""
    folder = os.environ.get(DATA)
    file = Path(folder) / "cluster" / "models.yaml" if folder else None
    return ("--extra-model-paths-config", str(file)) if file is not None and file.is_file() else ()
