"""`run.py bench cluster`: what more cards bring, what Serve costs, how soon a dead worker is made good.

Workers are CPU replicas of klein-nano with one thread each. Two against one is one request of many results,
with one worker and then with two: it says something only where two cores are free, so the load is told with
it. What Serve adds is measured against one ComfyUI's own API with a worker's very cache and threads, asked in
turn with it. The front's own work is measured as processor time, which another program's load changes little.

Writes cluster.json and cluster.md into --folder, tools/bench/results where none is named.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tools.bench.api import make_key
from tools.bench.report import Row, describe_machine, format_markdown, row_of_samples, write_json
from tools.launch.environment import Environment, inherit_environment
from tools.launch.server import Server
from tools.running_cluster import RunningCluster, make_task, run_cluster

GOAL_RATIO, GOAL_MS, GOAL_HITS = 1.8, 15, 90
LORA = "klein-nano style"
SETS = 4
RATIO, ADDED = "two workers against one", "what Serve adds to a job"
SPLIT = 20
LARGE = 8
BUSY = 20
"""Percent of all cores in use by others, from which on times say too little to be held against a goal."""
RESULTS = Path(__file__).with_name("results")


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench cluster")
    parser.add_argument("--results", type=int, default=SPLIT, help="of one request")
    parser.add_argument("--repeats", type=int, default=21, help="of a request against the direct API")
    parser.add_argument("--pictures", type=int, default=100, help="of four LoRA sets in random order")
    parser.add_argument("--clients", type=int, default=4, help="that send those at once")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="for cluster.json and cluster.md")
    options = parser.parse_args(argv)
    environment = inherit_environment(Path(os.environ["COMFYUI_PATH"]))
    started = time.monotonic()
    used = psutil.cpu_percent(3.0)
    is_free = used <= BUSY
    rows = [
        Row("processes that wanted a core before the start", round(psutil.getloadavg()[0], 1)),
        Row("of all cores, in use by others before the start", round(used, 1), "%"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with run_cluster(environment, base / "one", 1, base / "one.log") as one:
            alone = measure_split(one, options.results)
            overhead = measure_overhead(one, environment, base, options.repeats)
        with run_cluster(environment, base / "two", 2, base / "two.log") as two:
            both = measure_split(two, options.results)
            rows += compare_split(alone, both, options.results)
            rows += measure_front(two, options.results)
            rows += overhead
            rows += measure_routing(two, options.pictures, options.clients)
            rows += measure_recovery(two)
    rows.append(Row("processes that wanted a core at the end", round(psutil.getloadavg()[0], 1)))
    rows.append(Row("the whole bench", round((time.monotonic() - started) / 60, 1), "min"))
    if not is_free:
        rows = [replace(row, goal=None) if row.name in (RATIO, ADDED) else row for row in rows]
    write_json("cluster", rows, options.folder / "cluster.json")
    (options.folder / "cluster.md").write_text(write_page(rows, is_free), encoding="utf-8")
    return rows


def write_page(rows: Sequence[Row], is_free: bool) -> str:
    """Markdown: on what, whether nothing else ran there, the table."""
    machine = describe_machine()
    lines = [
        "# `run.py bench cluster`", "",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {machine['system']}; "
        "workers are klein-nano on the CPU, one thread each, 128x128.", "",
    ]  # fmt: skip
    if not is_free:
        lines += [
            f"**The machine was not free**: {rows[0].value:.0f} processes wanted one of its cores before the "
            f"bench began. *{RATIO}* and *{ADDED}* (goals: >= {GOAL_RATIO} x, < {GOAL_MS} ms) are not held "
            "against their goals then, all times are those of a busy machine, and processor times are larger "
            "than on a free one.", "",
        ]  # fmt: skip
    return "\n".join(lines) + "\n" + format_markdown(rows)


def measure_split(cluster: RunningCluster, results: int) -> tuple[float, list[int], dict[str, float]]:
    """(seconds of a request of so many results, their seeds, pictures by worker)"""
    cluster.ask(make_task(numberResults=2 * max(1, len(cluster.find("Worker")))))  # reads the weights
    time.sleep(2)  # a worker's numbers come every second
    before = cluster.read_numbers("pictures_total")
    started = time.monotonic()
    # As many steps as a request has that names none: with fewer the front's work is no small part of it.
    told = cluster.ask(make_task(numberResults=results, seed=100, steps=28))
    seconds = time.monotonic() - started
    time.sleep(2)
    after = cluster.read_numbers("pictures_total")
    drawn = {worker: count - before.get(worker, 0) for worker, count in after.items()}
    return seconds, [item["seed"] for item in told["data"]], drawn


def compare_split(alone: Any, both: Any, results: int) -> list[Row]:
    seeds = list(range(100, 100 + results))
    return [
        Row(f"{results} results with one worker", round(alone[0], 2), "s"),
        Row(f"{results} results with two workers", round(both[0], 2), "s"),
        Row(RATIO, round(alone[0] / both[0], 2), "x", goal=f">= {GOAL_RATIO}"),
        Row(f"of {results} results, drawn by the worker that drew fewer", min(both[2].values())),
        Row("results in order with their seeds", sum(map(int.__eq__, both[1], seeds)), goal=f"== {results}"),
    ]


def measure_front(cluster: RunningCluster, results: int) -> list[Row]:
    """Processor time of the front and of Serve's proxy for each request of one result, fetched."""
    processes = [*cluster.find("Front"), *cluster.find_processes("ProxyActor")]

    def spent() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in processes)

    before = spent()
    for seed in range(results):
        fetch(cluster.ask(make_task(steps=1, seed=seed))["data"][0]["imageURL"])
    one = (spent() - before) / results * 1000

    def measure(count: int, **more: Any) -> float:
        before = spent()
        for item in cluster.ask(make_task(steps=1, numberResults=count, **more))["data"]:
            fetch(item["imageURL"])
        return (spent() - before) / count * 1000

    many = measure(results, outputFormat="JPG")
    large = measure(LARGE, outputFormat="JPG", width=512, height=512)
    return [
        Row("processor time of front and proxy, a job of one picture", round(one, 1), "ms", n=results),
        Row("the same for each picture of a large job, as JPEG", round(many, 1), "ms", n=results),
        Row("the same for 512x512, a quarter of a megapixel", round(large, 1), "ms", n=LARGE),
    ]


def fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read()


def measure_overhead(
    cluster: RunningCluster, environment: Environment, base: Path, repeats: int
) -> list[Row]:
    """The same small request to the cluster and to one ComfyUI's own API, in turn."""
    direct: list[float] = []
    through: list[float] = []
    variables = {"KLEINOD_API": "1", "OMP_NUM_THREADS": "1"}
    with Server(
        environment, base=base / "api", log=base / "api.log", device="cpu", variables=variables,
        arguments=("--cache-lru", "100"),  # as a worker's
    ) as server:  # fmt: skip
        server.start()
        key = make_key(server, "bench")
        other = RunningCluster(cluster.process, f"{server.url}/kleinod/api", key)

        def time_both(seed: int) -> None:
            for times, place in ((direct, other), (through, cluster)):
                started = time.perf_counter()
                fetch(place.ask(make_task(steps=1, seed=seed))["data"][0]["imageURL"])
                times.append((time.perf_counter() - started) * 1000)

        for seed in range(2):  # reads the weights
            time_both(seed)
        direct.clear()
        through.clear()
        places = (other, cluster)
        journey, drawn = read_way(cluster), [read_drawing(place) for place in places]
        for seed in range(repeats):
            time_both(2 + seed)
        way = 1000 * (read_way(cluster) - journey) / repeats
        alone, beside = (
            1000 * (read_drawing(place) - before) / repeats
            for place, before in zip(places, drawn, strict=True)
        )
        health = [measure_health(place, repeats) for place in places]
    more = [after - before for before, after in zip(direct, through, strict=True)]
    return [
        row_of_samples("a request to one ComfyUI's API", direct, "ms"),
        row_of_samples("the same to the cluster", through, "ms"),
        row_of_samples(ADDED, more, "ms", goal=f"< {GOAL_MS}"),
        Row(
            "of it: ComfyUI beside Serve's processes instead of alone",
            round(beside - way - alone, 1),
            "ms",
            n=repeats,
        ),
        Row("of it: way to a worker and back", round(way, 1), "ms", n=repeats),
        Row("of it: way to the front, fastest of /health", round(health[1] - health[0], 1), "ms", n=repeats),
    ]


def read_way(cluster: RunningCluster) -> float:
    """Seconds of all ways between the front and the workers."""
    return read_number(cluster, "kleinod_way_seconds_sum")


def read_drawing(place: RunningCluster) -> float:
    """Seconds from a picture's leaving its front until it is back, of all pictures."""
    return read_number(place, "kleinod_api_drawing_seconds_total")


def read_number(place: RunningCluster, name: str) -> float:
    return next(float(line.split()[1]) for line in place.read_metrics() if line.startswith(name))


def measure_health(cluster: RunningCluster, repeats: int) -> float:
    """Milliseconds of the fastest answer that draws nothing."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        fetch(f"{cluster.address}/health")
        times.append((time.perf_counter() - started) * 1000)
    return min(times)


def measure_routing(cluster: RunningCluster, pictures: int, clients: int) -> list[Row]:
    """Pictures of four LoRA sets in random order, by clients at once; ComfyUI says what it had read."""
    draw = random.Random(5)
    waiting = [draw.randrange(SETS) for _ in range(pictures)]
    numbers = {name: read_total(cluster, name) for name in ("model_hits_total", "model_misses_total")}
    placed = read_total(cluster, "model_in_place_total")

    def send() -> None:
        while waiting:
            chosen = waiting.pop()
            weight = 0.2 * (chosen + 1)
            cluster.ask(make_task(steps=2, lora=[{"model": LORA, "weight": round(weight, 1)}]))

    run_threads(send, clients)
    time.sleep(2)
    hits = read_total(cluster, "model_hits_total") - numbers["model_hits_total"]
    misses = read_total(cluster, "model_misses_total") - numbers["model_misses_total"]
    placed = read_total(cluster, "model_in_place_total") - placed
    rate = 100 * hits / max(1, hits + misses)
    return [
        Row(f"{SETS} LoRA sets in random order: weights were read before", round(rate, 1), "%",
            n=int(hits + misses), goal=f">= {GOAL_HITS}"),
        Row("and the picture before had the very set", round(100 * placed / max(1, hits + misses), 1), "%",
            n=int(hits + misses)),
    ]  # fmt: skip


def read_total(cluster: RunningCluster, name: str) -> float:
    return sum(cluster.read_numbers(name).values())


def run_threads(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure_recovery(cluster: RunningCluster) -> list[Row]:
    """A worker is killed under a task of six pictures."""
    started = time.monotonic()
    cluster.ask(make_task(numberResults=6, steps=28))
    undisturbed = time.monotonic() - started
    known = set(cluster.read_numbers("pictures_total"))
    task = make_task(numberResults=6, steps=28, deliveryMethod="async")
    cluster.ask(task)
    cluster.wait_for(task["taskUUID"], 1)
    cluster.find("Worker")[0].kill()
    killed = time.monotonic()
    told = cluster.wait_for(task["taskUUID"], 6)
    delivered = time.monotonic() - killed
    while set(cluster.read_numbers("pictures_total")) <= known:
        time.sleep(0.2)
    whole = time.monotonic() - killed
    return [
        Row("six results, undisturbed", round(undisturbed, 1), "s"),
        Row("kill -9 of a worker until all six are delivered", round(delivered, 1), "s"),
        Row("kill -9 until another worker is in its place", round(whole, 1), "s"),
        Row("results delivered after it", len({item["imageUUID"] for item in told}), goal="== 6"),
    ]
