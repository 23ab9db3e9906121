"""`run.py bench remote`: what the remote nodes add to the time of the service, against the emulator.

The baseline is the least any client can do: the same submit and the same download with bare `requests`,
measured in turn with the node in one run. The emulator runs in a process of its own, so its drawing is in
both sides alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT
from tools.launch.pack import enable_comfyui, load_pack

KEY = "bench-key-of-the-emulator"
JOB_SECONDS = 0.1


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench remote")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--jobs", type=int, default=24, help="jobs of the parallel part")
    options = parser.parse_args(argv)
    enable_comfyui(Path(os.environ["COMFYUI_PATH"]), ("--cpu",))
    load_pack(ROOT)
    import folder_paths

    with start_emulator() as url, tempfile.TemporaryDirectory() as folder:
        folder_paths.set_user_directory(folder)
        os.environ.update(KLEINOD_RUNWARE_URL=url, RUNWARE_API_KEY=KEY, KLEINOD_BFL_URL=url, BFL_API_KEY=KEY)
        bench = Bench(url)
        return [
            *bench.overhead(options.repeats),
            *bench.parallel(max(5, options.repeats // 2), options.jobs),
            *bench.memory(5),
        ]


@contextmanager
def start_emulator():
    """The address of an emulator in its own process."""
    command = [sys.executable, "-m", "tests.emulator", "--seconds", str(JOB_SECONDS)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.stdin.close()
        process.wait(10)


class Bench:
    """All measurements on one engine; every job is a new request, or it would come from disk."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._number = 0

    def overhead(self, repeats: int) -> list[Row]:
        """Milliseconds a job takes longer through the node than through bare `requests`."""
        self.node(1024)
        self.bare(1024)
        rows = []
        for side in (512, 1024):
            bare, node = [], []
            for _ in range(repeats):
                bare.append(self.timed(lambda side=side: self.bare(side)))
                node.append(self.timed(lambda side=side: self.node(side)))
            added = [1000 * (ours - least) for ours, least in zip(node, bare, strict=True)]
            rows += [
                row_of_samples(f"bare requests, {side}x{side}", [1000 * s for s in bare], "ms"),
                row_of_samples(f"Klein Runware, {side}x{side}", [1000 * s for s in node], "ms"),
                row_of_samples(f"added by the node, {side}x{side}", added, "ms", "<= 60"),
            ]
        polled = [1000 * self.timed(lambda: self.node(512, "async")) for _ in range(5)]
        rows.append(
            row_of_samples("Klein Runware polling at the documented pace (1 s), 512x512", polled, "ms")
        )
        return rows

    def parallel(self, repeats: int, jobs: int) -> list[Row]:
        """How many times faster `jobs` nodes are at once than one after another."""
        from kleinod.nodes.remote.limits import write_limits
        from kleinod.nodes.remote.session import find_engine, find_folder

        write_limits(find_folder(), {"concurrency": 24, "day_usd": 0})
        find_engine().forget_limits()
        ratios, together = [], []
        for _ in range(repeats):
            one_by_one = self.timed(lambda: [self.node(256) for _ in range(jobs)])
            together.append(self.timed(lambda: asyncio.run(self.all_at_once(jobs))))
            ratios.append(one_by_one / together[-1])
        return [
            row_of_samples(f"{jobs} jobs at once against one by one", ratios, "x"),
            row_of_samples(f"{jobs} jobs at once", together, "s"),
        ]

    def memory(self, repeats: int) -> list[Row]:
        """Peak of resident memory above the size of the pictures themselves, for a batch of 8 at
        1024x1024.
        """
        import psutil

        process, extra = psutil.Process(), []
        self.node(1024, count=8)
        for _ in range(repeats):
            before, peak, done = process.memory_info().rss, [0], threading.Event()

            def watch(peak: list[int] = peak, done: threading.Event = done) -> None:
                while not done.wait(0.002):
                    peak[0] = max(peak[0], process.memory_info().rss)

            watcher = threading.Thread(target=watch)
            watcher.start()
            images = self.node(1024, count=8)
            done.set()
            watcher.join()
            size = sum(image.numel() * 4 for image in images)
            extra.append((peak[0] - before) / size)
            del images
        return [row_of_samples("peak memory of a batch of 8, in sizes of its tensor", extra, "x")]

    def node(self, side: int, delivery: str = "sync", count: int = 1) -> list:
        return asyncio.run(self.execute(side, delivery, count))

    async def execute(self, side: int, delivery: str = "sync", count: int = 1) -> list:
        from kleinod.nodes.remote.nodes import KleinodRunware

        self._number += 1
        clone = KleinodRunware.PREPARE_CLASS_CLONE({"hidden_inputs": {}})
        result = await clone.execute(
            f"picture {self._number}", "", side, side, 28, 3.5, self._number, count, delivery_method=delivery
        )
        return result.args[0]

    async def all_at_once(self, jobs: int) -> None:
        await asyncio.gather(*(self.execute(256) for _ in range(jobs)))

    def bare(self, side: int) -> bytes:
        import requests

        self._number += 1
        task = {
            "taskType": "imageInference",
            "taskUUID": str(uuid.uuid4()),
            "model": "runware:400@5",
            "width": side,
            "height": side,
            "positivePrompt": f"picture {self._number}",
            "outputFormat": "PNG",
        }
        with requests.Session() as session:
            headers = {"Authorization": f"Bearer {KEY}"}
            answer = session.post(self.url + "/v1", json=[task], headers=headers, timeout=60).json()
            return session.get(answer["data"][0]["imageURL"], timeout=60).content

    @staticmethod
    def timed(work) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
