"""A `run.py cluster` on the CPU for a test or a benchmark: started, asked, killed in parts, ended whole."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
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
    """address: of the API. key: the first. joined: the command of a second machine. exporters: addresses of
    Ray's numbers, one a machine.
    """

    process: subprocess.Popen[str]
    address: str
    key: str
    joined: subprocess.Popen[str] | None = None
    exporters: tuple[str, ...] = ()

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
        roots = [psutil.Process(command.pid) for command in self._commands()]
        return [one for root in roots for one in find_below(root, word)]

    def find_joined(self) -> list[psutil.Process]:
        """All processes of the second machine."""
        return [] if self.joined is None else psutil.Process(self.joined.pid).children(recursive=True)

    def _commands(self) -> list[subprocess.Popen[str]]:
        return [one for one in (self.process, self.joined) if one is not None and one.poll() is None]


def find_below(process: psutil.Process, word: str) -> list[psutil.Process]:
    """Processes that it started, and those that these did, with this word in their command."""
    found = []
    for one in process.children(recursive=True):
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
    environment: Environment,
    data: Path,
    workers: int,
    log: Path,
    keep: Path | None = None,
    joined: bool = False,
    hosts: Sequence[str] = (),
) -> Iterator[RunningCluster]:
    """Workers of one thread each, on free ports. log: of the command. keep: where Ray's own logs are left.
    joined: the last worker is on a second machine, which is this one under another Ray. hosts: of this
    machine that requests may name, as "127.0.0.1:9000".

    Raises RuntimeError where it does not start, and where something of it outlives it.
    """
    folders = [Path(tempfile.mkdtemp(prefix="kr")) for _ in range(1 + joined)]  # short: for Ray's sockets
    port, ray_port = find_free_port(), find_free_port()
    numbers = [find_free_port() for _ in folders]
    head = ["--workers", str(workers), "--threads", "1", "--gpus-per-worker", "0", "--port", str(port)]
    head += ["--ray-port", str(ray_port), "--dashboard-port", "0", "--hang-seconds", "30"]
    head += ["--cpus", str(workers - 1)] if joined else []
    if hosts:
        service = data / "user" / "__kleinod" / "service"
        service.mkdir(parents=True)
        (service / "api.json").write_text(json.dumps({"reachable": list(hosts)}))
    token = secrets.token_hex(32)  # what the first machine prints for the others
    commands: list[subprocess.Popen[str]] = []

    def start(given: list[str], data: Path, log: Path) -> None:
        here = len(commands)
        more = ["--object-store-mb", str(STORE_MB), "--ray-folder", str(folders[here])]
        more += ["--metrics-port", str(numbers[here])]
        RAY.parent.mkdir(exist_ok=True)
        with FileLock(RAY.with_suffix(".lock")):
            command = make_command(environment, data, [*given, *more])
        with log.open("w") as sink:
            process = subprocess.Popen(
                command, cwd=ROOT, env=make_variables(environment, data) | {"RAY_AUTH_TOKEN": token},
                stdout=sink, text=True, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        commands.append(process)

    try:
        start(head, data, log)
        if joined:
            _wait_for(commands[0], log, "Ray: answers")
            second = data.with_name(f"{data.name}-joined")
            more = ["--join", f"127.0.0.1:{ray_port}", "--ray-host", "127.0.0.1", "--cpus", "1"]
            start(more, second, log.with_suffix(".joined.log"))
            _wait_for(commands[1], log.with_suffix(".joined.log"), "belongs to")
        said = _wait_for(commands[0], log, "Ctrl-C ends it")
        key = next(line.split()[1] for line in said.splitlines() if line.startswith("  Key "))
        address = f"http://127.0.0.1:{port}/kleinod/api"
        exporters = tuple(f"http://127.0.0.1:{number}/metrics" for number in numbers)
        yield RunningCluster(commands[0], address, key, commands[1] if joined else None, exporters)
    finally:
        try:
            _stop(commands)
        finally:
            for folder in folders:
                logs = folder / "session_latest" / "logs"
                if keep is not None and logs.exists():
                    shutil.copytree(logs, keep, dirs_exist_ok=True)
                shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: subprocess.Popen[str], log: Path, words: str) -> str:
    """All that the command has said, once these words are among it."""
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        said = log.read_text()
        if words in said:
            return said
        time.sleep(0.2)
    raise RuntimeError(f"The cluster did not start:\n{log.read_text()}")


def _stop(commands: list[subprocess.Popen[str]]) -> None:
    """The last that was started ends first."""
    running = [one for one in reversed(commands) if one.poll() is None]
    family = [child for one in running for child in psutil.Process(one.pid).children(recursive=True)]
    try:
        for one in running:
            one.send_signal(signal.SIGTERM)
            one.wait(_STOP_SECONDS)
        _, left = psutil.wait_procs(family, _STOP_SECONDS)
        if left:
            raise RuntimeError(f"These outlived the cluster: {[' '.join(one.cmdline()) for one in left]}")
    finally:
        for one in family:
            if one.is_running():
                one.kill()
