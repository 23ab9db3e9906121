"""`run.py bench api`: what the API that answers costs, what it bears, and how soon it is back after kill -9.

The overhead is a request and the fetch of its picture against the same graph posted to ComfyUI directly, in
turn within one run. The crowd sends many jobs of klein-nano at once under several keys and counts what came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import types
import uuid
from pathlib import Path
from typing import Any

import aiohttp

from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT, inherit_environment
from tools.launch.server import Server

SIDE = 128
KEYS = 4
GOAL_MS = 25
GOAL_MB = 100


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench api")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--clients", type=int, default=200, help="connections at once")
    parser.add_argument("--jobs", type=int, default=1000, help="jobs of all of them together")
    options = parser.parse_args(argv)
    environment = inherit_environment(Path(os.environ["COMFYUI_PATH"]))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)

        def start() -> Server:
            server = Server(
                environment,
                base=base / "home",
                log=base / "log",
                device="cpu",
                variables={"KLEINOD_API": "1"},
            )
            server.start()
            return server

        server = start()
        try:
            keys = [make_key(server, f"bench {number}") for number in range(KEYS)]
            rows = measure_overhead(server, keys[0], options.repeats)
            rows += asyncio.run(measure_crowd(server, keys, options.clients, options.jobs))
            waiting = asyncio.run(send_open_jobs(server, keys[0], 8))
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            started = time.monotonic()
            again = start()
            rows.append(Row("kill -9 until it answers again", round(time.monotonic() - started, 1), "s"))
            try:
                delivered = asyncio.run(wait_for_jobs(again, keys[0], waiting))
                rows.append(
                    Row("jobs open at kill -9, delivered after it", delivered, goal=f"== {len(waiting)}")
                )
            finally:
                again.stop()
        finally:
            server.stop()
    return rows


def make_key(server: Server, name: str) -> str:
    import urllib.request

    request = urllib.request.Request(
        f"{server.url}/kleinod/api-settings/key",
        json.dumps({"name": name, "at_once": 100000}).encode(),
        {"Content-Type": "application/json", "X-Kleinod": "1"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["secret"]


def make_task(**more: Any) -> dict[str, Any]:
    return {
        "taskType": "imageInference", "taskUUID": str(uuid.uuid4()), "model": "runware:400@5",
        "positivePrompt": "a fox", "width": SIDE, "height": SIDE, "steps": 1, "acceleration": "none",
        "outputFormat": "PNG", **more,
    }  # fmt: skip


async def ask(session: aiohttp.ClientSession, server: Server, key: str, task: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post(f"{server.url}/kleinod/api/runware/v1", json=[task], headers=headers) as answer:
        return await answer.json()


def measure_overhead(server: Server, key: str, repeats: int) -> list[Row]:
    build_graph, Drawing, nano = _load_service()
    direct: list[float] = []
    through: list[float] = []
    worked = [0.0, 0.0]

    def draw_directly(seed: int) -> float:
        drawing = Drawing(
            "a fox", "", SIDE, SIDE, (SIDE, SIDE), 1, 3.5, seed, nano, level="none", stand_in=True
        )
        started = time.perf_counter()
        made = server.client.run(build_graph(drawing, str(seed)))
        server.client.fetch_image(made.images()[0])
        return (time.perf_counter() - started) * 1000

    async def draw_through(session: aiohttp.ClientSession, seed: int) -> float:
        started = time.perf_counter()
        told = await ask(session, server, key, make_task(seed=seed))
        async with session.get(told["data"][0]["imageURL"]) as answer:
            await answer.read()
        return (time.perf_counter() - started) * 1000

    async def measure() -> None:
        async with aiohttp.ClientSession() as session:
            for number in range(repeats + 2):
                marks = [read_processor_ms(server)]
                one = await asyncio.to_thread(draw_directly, 2 * number)
                marks.append(read_processor_ms(server))
                other = await draw_through(session, 2 * number + 1)
                marks.append(read_processor_ms(server))
                if number >= 2:
                    direct.append(one)
                    through.append(other)
                    worked[0] += marks[1] - marks[0]
                    worked[1] += marks[2] - marks[1]

    asyncio.run(measure())
    more = [after - before for before, after in zip(direct, through, strict=True)]
    return [
        row_of_samples("a graph posted directly", direct, "ms"),
        row_of_samples("the same through the API", through, "ms"),
        row_of_samples("overhead of a request", more, "ms", goal=f"< {GOAL_MS}"),
        # What a busy machine does not change: the server's own work.
        Row("processor time of a graph", round(worked[0] / repeats, 1), "ms"),
        Row("processor time that a request adds", round((worked[1] - worked[0]) / repeats, 1), "ms"),
    ]


async def measure_crowd(server: Server, keys: list[str], clients: int, jobs: int) -> list[Row]:
    """Every client sends one job after another and waits for each; half way the keys are compared."""
    numbers = iter(range(jobs))
    done: list[tuple[int, str]] = []
    bad = 0
    before = read_memory(server)

    async def work(session: aiohttp.ClientSession, client: int) -> None:
        nonlocal bad
        for _ in numbers:
            told = await ask(session, server, keys[client % KEYS], make_task())
            if "errors" in told:
                bad += 1
            done.extend((client % KEYS, item["imageUUID"]) for item in told.get("data", []))

    started = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await asyncio.gather(*(work(session, client) for client in range(clients)))
    seconds = time.monotonic() - started
    half = [key for key, _ in done[: len(done) // 2]]
    counts = [half.count(key) for key in range(KEYS)]
    return [
        Row(f"pictures of {jobs} jobs by {clients} clients", len(done), goal=f"== {jobs}"),
        Row("pictures that came twice", len(done) - len({name for _, name in done}), goal="== 0"),
        Row("jobs that were refused or failed", bad, goal="== 0"),
        Row("pictures a second", round(len(done) / seconds, 2)),
        Row(
            "growth of the server's memory", round(read_memory(server) - before, 1), "MB", goal=f"< {GOAL_MB}"
        ),
        Row(
            "keys half way: fewest / most pictures",
            round(min(counts) / max(1, max(counts)), 2),
            goal=">= 0.8",
        ),
    ]


async def send_open_jobs(server: Server, key: str, count: int) -> list[str]:
    """Ids of jobs that were accepted and are not done."""
    tasks = [make_task(deliveryMethod="async", steps=28) for _ in range(count)]
    async with aiohttp.ClientSession() as session:
        for task in tasks:
            told = await ask(session, server, key, task)
            assert told["data"][0]["taskUUID"] == task["taskUUID"]
    return [task["taskUUID"] for task in tasks]


async def wait_for_jobs(server: Server, key: str, tasks: list[str]) -> int:
    """How many of them gave exactly one picture."""
    found = 0
    async with aiohttp.ClientSession() as session:
        for task in tasks:
            while True:
                told = await ask(session, server, key, {"taskType": "getResponse", "taskUUID": task})
                states = [item["status"] for item in told.get("data", [])]
                if states != ["processing"]:
                    break
                await asyncio.sleep(0.2)
            found += states == ["success"]
    return found


def read_processor_ms(server: Server) -> float:
    """Milliseconds of processor time that the server has used since its start."""
    file = Path(f"/proc/{server.process.pid}/stat")
    if not file.exists():  # not Linux
        return float("nan")
    numbers = file.read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def read_memory(server: Server) -> float:
    """MB that the server's process holds."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():  # not Linux
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _load_service() -> tuple[Any, Any, str]:
    """The graph's maker without the rest of the pack."""
    package = types.ModuleType("kleinod_pure")
    package.__path__ = [str(ROOT / "nodes")]
    sys.modules.setdefault("kleinod_pure", package)
    from kleinod_pure.model.choices import NANO
    from kleinod_pure.service.drawing import Drawing
    from kleinod_pure.service.graph import build_graph

    return build_graph, Drawing, NANO
