"""`run.py cluster` with the real Ray and two workers on the CPU: Runware's client, a split task, kill -9."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from tests.remote.vendors import run_client
from tools.launch.cluster import RAY, make_command, make_variables
from tools.launch.environment import ROOT, Environment
from tools.launch.server import find_free_port

pytestmark = pytest.mark.server
START_SECONDS = 240.0
PROMPT = "a panda on a yellow background"


@dataclass
class Cluster:
    process: subprocess.Popen[str]
    address: str
    key: str

    def ask(self, **task: Any) -> dict[str, Any]:
        body = json.dumps([task]).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(f"{self.address}/runware/v1", body, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def order(self, results: int, **more: Any) -> dict[str, Any]:
        return {
            "taskType": "imageInference", "taskUUID": str(uuid.uuid4()), "model": "runware:400@5",
            "positivePrompt": PROMPT, "width": 128, "height": 128, "steps": 12, "acceleration": "none",
            "seed": 3, "numberResults": results, "outputFormat": "PNG", **more,
        }  # fmt: skip

    def wait_for(self, task: str, count: int) -> list[dict[str, Any]]:
        """The results of a task, once there are so many."""
        while True:
            told = self.ask(taskType="getResponse", taskUUID=task)
            assert "errors" not in told, told
            data = [item for item in told["data"] if item["status"] == "success"]
            if len(data) >= count:
                return data
            time.sleep(0.1)

    def counts(self) -> dict[str, int]:
        """Pictures by worker."""
        request = urllib.request.Request(f"{self.address}/metrics", headers={"X-Key": self.key})
        with urllib.request.urlopen(request, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith("kleinod_worker_pictures_total{")]
        return {line.split('"')[1]: int(line.rsplit(" ", 1)[1]) for line in found}

    def find(self, replica: str) -> list[psutil.Process]:
        """Processes of Serve's replicas of that name, below our own Ray."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in children if f"ServeReplica:kleinod:{replica}" in " ".join(one.cmdline())]


@pytest.fixture(scope="module")
def cluster(
    comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory, artifacts: Path
) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("cluster")
    short = Path(tempfile.mkdtemp(prefix="kr", dir="/tmp"))  # sockets have short names
    port = find_free_port()
    given = ["--workers", "2", "--threads", "1", "--gpus-per-worker", "0", "--port", str(port)]
    given += ["--ray-port", str(find_free_port()), "--dashboard-port", "0", "--object-store-mb", "100"]
    given += ["--ray-folder", str(short), "--hang-seconds", "30"]
    RAY.parent.mkdir(exist_ok=True)
    with FileLock(RAY.with_suffix(".lock")):
        command = make_command(comfy_environment, data, given)
    log = artifacts / "cluster.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=make_variables(comfy_environment, data), stdout=sink, text=True,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield Cluster(process, f"http://127.0.0.1:{port}/kleinod/api", _wait_for_key(process, log))
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
            _, left = psutil.wait_procs(family, 20)
            assert left == [], "Ray and its workers end with the command"
        finally:
            for one in family:
                if one.is_running():
                    one.kill()
            if (short / "session_latest").exists():
                shutil.copytree(
                    short / "session_latest" / "logs", artifacts / "cluster-ray", dirs_exist_ok=True
                )
            shutil.rmtree(short, ignore_errors=True)


def _wait_for_key(process: subprocess.Popen[str], log: Path) -> str:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        said = log.read_text()
        if "Ctrl-C ends it" in said:
            (line,) = [line for line in said.splitlines() if line.startswith("  Key ")]
            return line.split()[1]
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def read_pictures(told: list[dict[str, Any]]) -> list[str]:
    found = []
    for item in told:
        with urllib.request.urlopen(item["imageURL"], timeout=60) as answer:
            found.append(hashlib.sha256(answer.read()).hexdigest())
    return found


def test_runware_sdk_by_rest_and_websocket(cluster: Cluster) -> None:
    found = run_client("runware-sdk", "runware_sdk.py", f"{cluster.address}/runware", cluster.key)
    assert set(found["images"]) == {"rest async", "rest sync", "websocket async", "websocket sync"}
    assert all(len(batch) == 2 for batch in found["images"].values())


def test_kills_lose_and_double_nothing(cluster: Cluster) -> None:
    """The same task three times: undisturbed, with a worker killed, with the front killed."""
    first = cluster.ask(**cluster.order(4))["data"]
    assert [item["seed"] for item in first] == [3, 4, 5, 6]
    pictures = read_pictures(first)
    assert len(set(pictures)) == 4
    assert len(cluster.counts()) == 2

    order = cluster.order(4, deliveryMethod="async")
    cluster.ask(**order)
    cluster.wait_for(order["taskUUID"], 1)
    victim = cluster.find("Worker")[0]
    comfyui = [one for one in victim.children(recursive=True) if "main.py" in " ".join(one.cmdline())]
    victim.kill()
    again = cluster.wait_for(order["taskUUID"], 4)
    assert [item["seed"] for item in again] == [3, 4, 5, 6] and read_pictures(again) == pictures
    assert len({item["imageUUID"] for item in again}) == 4
    _, left = psutil.wait_procs(comfyui, 15)
    assert comfyui and left == [], "a GPU is not held by the ComfyUI of a dead worker"

    order = cluster.order(4, deliveryMethod="async")
    cluster.ask(**order)
    os.kill(cluster.find("Front")[0].pid, signal.SIGKILL)
    again = cluster.wait_for(order["taskUUID"], 4)
    assert [item["seed"] for item in again] == [3, 4, 5, 6] and read_pictures(again) == pictures
