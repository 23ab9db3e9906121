"""A `run.py cluster` on the CPU for a test or a benchmark: started, asked, killed in parts, ended whole."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from tools.launch.cluster import RAY, make_command, make_variables
from tools.launch.environment import ROOT, Environment
from tools.launch.server import find_free_port

_START_SECONDS = 300.0
_STOP_SECONDS = 60.0
STORE_MB = 100


@dataclass
class RunningCluster:
    """address: of the API. key: the first."""

    process: subprocess.Popen[str]
    address: str
    key: str

    def ask(self, *tasks: dict[str, Any], timeout: float = 300.0) -> dict[str, Any]:
        body = json.dumps(tasks).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(f"{self.address}/runware/v1", body, headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read())

    def wait_for(self, task: str, count: int) -> list[dict[str, Any]]:
        """The results of a task, once there are so many."""
        while True:
            told = self.ask({"taskType": "getResponse", "taskUUID": task})
            if "errors" in told:
                raise RuntimeError(json.dumps(told))
            data = [item for item in told["data"] if item["status"] == "success"]
            if len(data) >= count:
                return data
            time.sleep(0.1)

    def read_metrics(self) -> list[str]:
        """Lines of /metrics."""
        request = urllib.request.Request(f"{self.address}/metrics", headers={"X-Key": self.key})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode().splitlines()

    def read_numbers(self, name: str) -> dict[str, float]:
        """A number of /metrics by worker."""
        found = [line for line in self.read_metrics() if line.startswith(f"kleinod_worker_{name}{{")]
        return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in found}

    def find(self, replica: str) -> list[psutil.Process]:
        """Processes of Serve's replicas of that name, of this cluster alone."""
        return self.find_processes(f"ServeReplica:kleinod:{replica}")

    def find_processes(self, word: str) -> list[psutil.Process]:
        found = []
        for one in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if word in " ".join(one.cmdline()):
                    found.append(one)
            except psutil.Error:  # it has just ended
                continue
        return found


def make_task(**more: Any) -> dict[str, Any]:
    return {
        "taskType": "imageInference", "taskUUID": str(uuid.uuid4()), "model": "runware:400@5",
        "positivePrompt": "a panda on a yellow background", "width": 128, "height": 128, "steps": 12,
        "acceleration": "none", "seed": 3, "outputFormat": "PNG", **more,
    }  # fmt: skip


@contextmanager
def run_cluster(
    environment: Environment, data: Path, workers: int, log: Path, keep: Path | None = None
) -> Iterator[RunningCluster]:
    """Workers of one thread each, on free ports. log: of the command. keep: where Ray's own logs are left.

    Raises RuntimeError where it does not start, and where something of it outlives it.
    """
    ray = Path(tempfile.mkdtemp(prefix="kr"))  # a short path: Ray's sockets lie below it
    port = find_free_port()
    given = ["--workers", str(workers), "--threads", "1", "--gpus-per-worker", "0", "--port", str(port)]
    given += ["--ray-port", str(find_free_port()), "--dashboard-port", "0", "--ray-folder", str(ray)]
    given += ["--object-store-mb", str(STORE_MB), "--hang-seconds", "30"]
    RAY.parent.mkdir(exist_ok=True)
    with FileLock(RAY.with_suffix(".lock")):
        command = make_command(environment, data, given)
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=make_variables(environment, data), stdout=sink, text=True,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield RunningCluster(process, f"http://127.0.0.1:{port}/kleinod/api", _wait_for_key(process, log))
    finally:
        _stop(process)
        logs = ray / "session_latest" / "logs"
        if keep is not None and logs.exists():
            shutil.copytree(logs, keep, dirs_exist_ok=True)
        shutil.rmtree(ray, ignore_errors=True)


def _wait_for_key(process: subprocess.Popen[str], log: Path) -> str:
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        said = log.read_text()
        if "Ctrl-C ends it" in said:
            return next(line.split()[1] for line in said.splitlines() if line.startswith("  Key "))
        time.sleep(0.2)
    raise RuntimeError(f"The cluster did not start:\n{log.read_text()}")


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
        _, left = psutil.wait_procs(family, _STOP_SECONDS)
        if left:
            raise RuntimeError(f"These outlived the cluster: {[' '.join(one.cmdline()) for one in left]}")
    finally:
        for one in family:
            if one.is_running():
                one.kill()
