"""What `run.py cluster` starts in Ray's environment: a head, Serve on it, and the application; until Ctrl-C.

`--join ADDRESS` makes this machine one more of a cluster instead. `--new-key NAME` makes a key of the API of
the cluster that runs here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kleinod_pure.base.errors import InputError
from kleinod_pure.remote.folder import make_private_folder
from kleinod_pure.service.book import Book
from kleinod_pure.service.host import list_addresses

from tools.launch import LaunchError
from tools.launch.console import Progress, format_seconds
from tools.launch.server import LEASH

LOOPBACK = ("127.0.0.1", "localhost")
_START_SECONDS = 120.0
_DRAIN_SECONDS = 10


def main(arguments: list[str]) -> int:
    options = read_arguments(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.new_key:
            print(_visit(options, "new-key", options.new_key)["key"])
            return 0
        return _join(options) if options.join else _serve(options)
    except LaunchError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py cluster", allow_abbrev=False)

    def add(place: Any, name: str, words: str, **more: Any) -> None:
        place.add_argument(name, help=words, **more)

    add(
        parser, "--workers", "as many as there are GPUs, 2 on the CPU; N-M: as the queue asks for",
        default="", metavar="N or N-M",
    )  # fmt: skip
    add(parser, "--gpus-per-worker", "1, or 0 where there is no GPU; 0.5 puts two on one", type=float)
    add(parser, "--threads", "CPU threads of a worker", type=int, default=0)
    add(parser, "--host", "0.0.0.0 answers other machines, too", default="127.0.0.1")
    add(parser, "--port", "default 8188", type=int, default=8188)
    add(parser, "--no-stand-in", "refuse requests where there are no Klein weights", action="store_true")
    add(parser, "--data", "models, jobs and results", type=Path, required=True)
    add(parser, "--gpus", argparse.SUPPRESS, type=int, required=True)
    add(parser, "--new-key", "make a key of the cluster that runs here", default="", metavar="NAME")
    ray = parser.add_argument_group("Ray")
    add(ray, "--join", "add this machine to that cluster", default="", metavar="HOST:PORT")
    add(ray, "--ray-host", "this machine's address for the others; 127.0.0.1: there are none", default="")
    add(ray, "--ray-port", "default 6379", type=int, default=6379)
    add(ray, "--dashboard-port", "default 8265; 0 for none", type=int, default=8265)
    add(ray, "--metrics-port", "of this machine's numbers for Prometheus; 0 for any", type=int, default=0)
    add(ray, "--cpus", "workers on the CPU that this machine takes; 0: one a core", type=int, default=0)
    add(ray, "--object-store-mb", "memory for pictures on their way", type=int, default=0)
    add(ray, "--ray-folder", "where Ray keeps logs and sockets: a short path", default="")
    add(ray, "--hang-seconds", "a worker silent for so long is replaced", type=float, default=60.0)
    options = parser.parse_args(arguments)
    if not options.join:
        options.ray_host = options.ray_host or LOOPBACK[0]
    return options


def read_workers(text: str, gpus: int) -> tuple[int, int]:
    """(fewest, most) of "N" or "N-M"; by the number of GPUs where nothing was said. Raises LaunchError."""
    if not text:
        count = gpus or 2
        return count, count
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    few, many = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= few <= many <= 1000:
        raise LaunchError(f"--workers is {text!r}, but must be a number such as 4, or bounds such as 1-8.")
    return few, many


def _serve(options: argparse.Namespace) -> int:
    few, many = read_workers(options.workers, options.gpus)
    check_folder(find_folder(options.data))
    each = options.gpus_per_worker
    if each is None:
        each = 1.0 if options.gpus else 0.0
    more = ["--head", f"--port={options.ray_port}"]
    if options.dashboard_port:
        more += ["--dashboard-host=127.0.0.1", f"--dashboard-port={options.dashboard_port}"]
    else:
        more.append("--include-dashboard=false")
    if not each and not options.cpus:
        # A worker on the CPU takes one of Ray's CPUs; where no machine can join, this one takes them all.
        cpus = os.cpu_count() or 1
        options.cpus = max(cpus, many) if options.ray_host in LOOPBACK else cpus
    node = _start_node(more, options, drain=0)
    try:
        with Progress("Ray") as step:
            _wait_for_head(node, options, step)
            step.finish(
                f"answers on {options.ray_host}:{options.ray_port} after {format_seconds(step.seconds)}"
            )
        print(describe_join(options), end="", flush=True)  # the workers may be waiting for those machines
        with Progress("Workers") as step:
            step.update(f"starting {few} ComfyUIs")
            given = {
                "host": options.host, "port": options.port, "folder": str(find_folder(options.data)),
                "workers": few, "most_workers": many, "gpus_per_worker": each, "threads": options.threads,
                "remote": options.host not in LOOPBACK, "stand_in": not options.no_stand_in,
                "hang_seconds": options.hang_seconds,
            }  # fmt: skip
            told = _visit(options, "deploy", given, node, step)
            step.finish(f"{few} ready after {format_seconds(step.seconds)}")
        print(announce(told, options), flush=True)
        return node.wait()
    finally:
        _stop_node(node)


def find_folder(data: Path) -> Path:
    """Jobs, keys and settings: the very folder of `run.py api`, so that a studio that outgrows one card keeps
    them.
    """
    return data / "user" / "__kleinod" / "service"


def check_folder(folder: Path) -> None:
    """Before minutes are spent on starting. Raises LaunchError where another front has the jobs."""
    try:
        Book(make_private_folder(folder)).close()
    except InputError:
        raise LaunchError(
            f"The jobs in {folder} are in use: another run.py cluster, run.py api or ComfyUI answers. "
            "Stop that one first, or give this one a folder of its own with --data."
        ) from None


def announce(told: dict[str, Any], options: argparse.Namespace) -> str:
    """told: what `Front.greet` says."""
    address = f"http://{'127.0.0.1' if options.host in ('0.0.0.0', '::') else options.host}:{options.port}"
    addresses = list_addresses(address)
    key = told["key"] or "YOUR-KEY"
    lines = ["", "Kleinod answers API requests:", *(f"  {name:<8} {at}" for name, at in addresses.items())]
    lines += [
        f"  Key      {told['key']}   (shown this once)" if told["key"]
        else "  Key      one that was made before; another: python3 run.py cluster --new-key NAME",
        f"  curl {addresses['OpenAI']}/images/generations -H 'Authorization: Bearer {key}' "
        "-H 'Content-Type: application/json' "
        """-d '{"prompt": "a panda on a yellow background", "size": "512x512", "response_format": "url"}'""",
    ]  # fmt: skip
    if options.dashboard_port:
        lines.append(f"  Ray      http://127.0.0.1:{options.dashboard_port} shows workers, logs and numbers")
    if told["again"]:
        lines.append(f"  {told['again']} pictures of the time before are drawn now.")
    lines.append("Ctrl-C ends it; what was accepted goes on with the next start.")
    return "\n".join(lines)


def describe_join(options: argparse.Namespace) -> str:
    """How another machine joins, a line; "" where Ray was given no address for others."""
    if options.ray_host in LOOPBACK:
        return ""
    return (
        f"On each further machine: RAY_AUTH_TOKEN={os.environ.get('RAY_AUTH_TOKEN', '')} python3 run.py "
        f"cluster --join {options.ray_host}:{options.ray_port}\n"
    )


def check_head(address: str) -> None:
    """Before Ray tries for minutes. Raises LaunchError where nothing answers."""
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"\S+:\d{1,5}", address) or not 0 < int(port) < 65536:
        raise LaunchError(f"--join is {address!r}, but must be an address and a port: 10.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 10).close()
    except OSError as error:
        raise LaunchError(
            f"Nothing answers at {address} ({error.strerror or error}): run.py cluster must run there, with "
            f"--ray-host {host}, and a firewall between the two must let Ray's ports through."
        ) from None


def _join(options: argparse.Namespace) -> int:
    check_head(options.join)
    node = _start_node([f"--address={options.join}"], options, drain=_DRAIN_SECONDS)
    try:
        with Progress("Ray") as step:
            while not _says_started(options):
                if node.poll() is not None or step.seconds > _START_SECONDS:
                    raise LaunchError(
                        f"This machine could not join {options.join}: {_log(options)} says why. Is that the "
                        "line that the first machine printed, with its RAY_AUTH_TOKEN, and do the two reach "
                        "each other?"
                    )
                step.update("joining")
                time.sleep(0.2)
            step.finish(f"joined after {format_seconds(step.seconds)}")
        print(f"This machine belongs to the cluster of {options.join} until Ctrl-C.", flush=True)
        code = node.wait()
        raise LaunchError(f"This machine is out of the cluster ({code}); {_log(options)} says why.")
    finally:
        _stop_node(node)


# --- This machine's part of Ray


def _log(options: argparse.Namespace) -> Path:
    return options.data / "cluster" / "ray.log"


def _start_node(more: list[str], options: argparse.Namespace, drain: int) -> subprocess.Popen[bytes]:
    """`ray start`, on a leash and in a process group of its own: Ctrl-C reaches this process alone."""
    command = [sys.executable, str(LEASH), "", "--", sys.executable, "-m", "ray.scripts.scripts"]
    command += ["start", "--block", "--disable-usage-stats", *more]
    # Any port: with Ray's own 52365 no second Ray starts on a machine.
    command.append("--dashboard-agent-listen-port=0")
    if options.ray_host:
        command.append(f"--node-ip-address={options.ray_host}")
    if options.object_store_mb:
        command.append(f"--object-store-memory={options.object_store_mb << 20}")
    if options.ray_folder:
        command.append(f"--temp-dir={options.ray_folder}")
    if options.metrics_port:
        command.append(f"--metrics-export-port={options.metrics_port}")
    if options.cpus:
        command.append(f"--num-cpus={options.cpus}")
    log = _log(options)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        return subprocess.Popen(
            command,
            env=os.environ | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(drain)},
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop_node(node: subprocess.Popen[bytes]) -> None:
    """Ray's own end, which takes all its processes along."""
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGTERM)
        try:
            node.wait(_DRAIN_SECONDS + 15)
        except subprocess.TimeoutExpired:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def _wait_for_head(node: subprocess.Popen[bytes], options: argparse.Namespace, step: Progress) -> None:
    while step.seconds < _START_SECONDS and node.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((options.ray_host, options.ray_port)) == 0 and _says_started(options):
                return
        step.update("starting")
        time.sleep(0.2)
    raise LaunchError(f"Ray did not start: {_log(options)} says why. Another Ray may have its ports.")


def _says_started(options: argparse.Namespace) -> bool:
    return "Ray runtime started" in _log(options).read_text(encoding="utf-8", errors="replace")


def _visit(
    options: argparse.Namespace,
    what: str,
    given: Any,
    node: subprocess.Popen[bytes] | None = None,
    step: Progress | None = None,
) -> dict[str, Any]:
    """What a `cluster.deploy` prints. Raises LaunchError with the end of its words."""
    command = [sys.executable, "-m", "cluster.deploy", f"{options.ray_host}:{options.ray_port}"]
    log = options.data / "cluster" / f"{what}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        child = subprocess.Popen(
            [*command, what, json.dumps(given)], stdout=subprocess.PIPE, stderr=sink, start_new_session=True
        )
    try:
        while child.poll() is None:
            if node is not None and node.poll() is not None:
                raise LaunchError(f"Ray has ended: {_log(options)} says why.")
            if step is not None:
                step.update("starting")
            time.sleep(0.2)
    finally:
        if child.poll() is None:
            child.kill()
    said = child.stdout.read().decode().strip() if child.stdout else ""
    if child.returncode:
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
        raise LaunchError(
            "\n".join([*words, f"The cluster could not do this ({what}). All its words: {log}"])
        )
    return json.loads(said.splitlines()[-1])


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
