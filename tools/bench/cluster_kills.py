"""`run.py bench cluster_kills`: kill -9 at random moments while a hundred clients wait for pictures.

Two workers draw klein-nano on the CPU. Workers and their ComfyUIs are killed at random moments, and once the
front; each client sends its task, asks for its results, and sends or asks again where nothing answers, as any
client does. Counted is what each got: every picture once, with its seed, the very picture that this seed gave
before the first kill; and what the address of their webhooks was told.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from tools.bench.cluster import LORA, fetch
from tools.bench.report import Row
from tools.launch.environment import inherit_environment
from tools.running_cluster import RunningCluster, find_below, make_task, run_cluster

SEEDS = 10
# Two sets of weights, so that routing has a choice.
SETS: dict[str, dict[str, Any]] = {"plain": {}, "style": {"lora": [{"model": LORA, "weight": 0.6}]}}
_PATIENCE = 600.0


@dataclass
class Hook:
    """Where webhooks go: what came, by the id in the header and by picture."""

    place: str = ""
    ids: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)


@contextmanager
def run_hook() -> Iterator[Hook]:
    hook, mutex = Hook(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            items = told.get("data", []) + told.get("errors", [])
            with mutex:
                hook.ids[str(self.headers["webhook-id"])] += 1
                hook.pictures.update(str(item.get("imageUUID") or item.get("taskUUID")) for item in items)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.place = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Client:
    """One task of some pictures, and what came of it."""

    task: dict[str, Any]
    kind: str
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def run(self, cluster: RunningCluster, ends: float) -> None:
        self._insist(lambda: self._note(cluster.ask(self.task, timeout=60)), ends)
        poll = {"taskType": "getResponse", "taskUUID": self.task["taskUUID"]}
        while len(self.results) + len(self.errors) < self.task["numberResults"] and time.monotonic() < ends:
            self._insist(lambda: self._note(cluster.ask(poll, timeout=60)), ends)
            time.sleep(0.5)
        for item in self.results:
            address = item["imageURL"]
            self._insist(lambda one=address: self.pictures.append(hash_picture(one)), ends)

    def _note(self, told: dict[str, Any]) -> None:
        self.results = [item for item in told.get("data", []) if item.get("status") == "success"]
        self.errors = [str(item.get("code")) for item in told.get("errors", [])]

    def _insist(self, work: Any, ends: float) -> None:
        while time.monotonic() < ends:
            with suppress(OSError, http.client.HTTPException, ValueError):
                work()
                return
            time.sleep(0.5)


def hash_picture(address: str) -> str:
    return hashlib.sha256(fetch(address)).hexdigest()


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench cluster_kills")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--results", type=int, default=2, help="of each client's task")
    parser.add_argument("--kills", type=int, default=5, help="of workers and their ComfyUIs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(argv)
    environment = inherit_environment(Path(os.environ["COMFYUI_PATH"]))
    rows = [Row("processes that wanted a core before the start", round(psutil.getloadavg()[0], 1))]
    with tempfile.TemporaryDirectory() as folder, run_hook() as hook:
        base = Path(folder)
        with run_cluster(environment, base / "data", 2, base / "log", hosts=[hook.place]) as cluster:
            rows += measure(cluster, hook, options)
    rows.append(Row("processes that wanted a core at the end", round(psutil.getloadavg()[0], 1)))
    return rows


def measure(cluster: RunningCluster, hook: Hook, options: argparse.Namespace) -> list[Row]:
    shape = {"steps": 4}
    known = {}
    for kind, more in SETS.items():
        count = SEEDS + options.results
        for item in cluster.ask(make_task(numberResults=count, seed=0, **shape, **more))["data"]:
            known[kind, item["seed"]] = hash_picture(item["imageURL"])
    draw = random.Random(options.seed)
    clients = []
    for _ in range(options.clients):
        kind = draw.choice(list(SETS))
        task = make_task(
            numberResults=options.results, seed=draw.randrange(SEEDS), deliveryMethod="async",
            webhookURL=f"http://{hook.place}/hook", **shape, **SETS[kind],
        )  # fmt: skip
        clients.append(Client(task, kind))
    started = time.monotonic()
    ends = started + _PATIENCE
    threads = [threading.Thread(target=one.run, args=(cluster, ends)) for one in clients]
    for thread in threads:
        thread.start()
    killed = kill_at_random(cluster, threads, draw, options.kills)
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    time.sleep(5)  # webhooks of the last pictures
    return count_up(clients, hook, known, killed, seconds)


def kill_at_random(
    cluster: RunningCluster, threads: list[threading.Thread], draw: random.Random, kills: int
) -> Counter[str]:
    """Workers and ComfyUIs, and in the middle of them the front, as long as somebody waits."""
    order = [draw.choice(["worker", "ComfyUI"]) for _ in range(kills)]
    order.insert(kills // 2, "front")
    killed: Counter[str] = Counter()
    for kind in order:
        time.sleep(draw.uniform(2, 12))
        if not any(thread.is_alive() for thread in threads):
            break
        if kind == "ComfyUI":
            # Below the workers alone: a part of Ray itself is a main.py, too.
            victims = [one for worker in cluster.find("Worker") for one in find_below(worker, "main.py")]
        else:
            victims = cluster.find(kind.capitalize())
        if victims:
            with suppress(psutil.Error):
                draw.choice(victims).kill()
                killed[kind] += 1
    return killed


def count_up(
    clients: list[Client], hook: Hook, known: dict[tuple[str, int], str], killed: Counter[str], seconds: float
) -> list[Row]:
    wanted = sum(client.task["numberResults"] for client in clients)
    delivered = [item["imageUUID"] for client in clients for item in client.results]
    in_order = sum(
        [item["seed"] for item in client.results]
        == [client.task["seed"] + number for number in range(client.task["numberResults"])]
        for client in clients
    )
    same = sum(
        picture == known[client.kind, item["seed"]]
        for client in clients
        for item, picture in zip(client.results, client.pictures, strict=False)
    )
    again = sum(count - 1 for count in hook.ids.values())
    return [
        Row("clients, each with a task", len(clients)),
        *(Row(f"kill -9 of a {kind}", killed[kind]) for kind in ("worker", "ComfyUI", "front")),
        Row("seconds until every client had its pictures", round(seconds, 1), "s"),
        Row("pictures delivered", len(delivered), goal=f"== {wanted}"),
        Row("of them different", len(set(delivered)), goal=f"== {wanted}"),
        Row("errors that clients were told", sum(len(client.errors) for client in clients), goal="== 0"),
        Row("tasks whose results came in order with their seeds", in_order, goal=f"== {len(clients)}"),
        Row("pictures as that seed gave before the first kill", same, goal=f"== {wanted}"),
        Row("pictures that a webhook told of", len(hook.pictures), goal=f"== {wanted}"),
        Row("webhooks sent again", again, goal="== 0"),
        Row("of them without the id of the first", sum(hook.pictures.values()) - len(hook.pictures) - again,
            goal="== 0"),
    ]  # fmt: skip
