"""`run.py bench startup`: what the pack adds to a ComfyUI that starts.

Import time is taken in fresh processes in which ComfyUI has loaded all of its own nodes first, as it does
before it turns to custom nodes. `/object_info` is the page's first request, asked in turn of a server with
the pack and of one without it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT, RUNTIME, Environment, inherit_packages
from tools.launch.server import Server

_IMPORT = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tools.launch.pack import enable_comfyui, load_pack
enable_comfyui(Path(sys.argv[2]))
import nodes
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
before = set(sys.modules)
started = time.perf_counter()
pack = load_pack(Path(sys.argv[1]))
asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
print("RESULT", time.perf_counter() - started, len(set(sys.modules) - before))
"""


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench startup")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args(argv).repeats
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with tempfile.TemporaryDirectory(prefix="kleinod-") as bytecode:
        measure_import(comfyui, bytecode)  # compiles, as the very first start does
        imports = [measure_import(comfyui, bytecode) for _ in range(repeats)]
    environment = Environment(Path(sys.executable), comfyui, own=False, packages=inherit_packages())
    without, with_pack = measure_object_info(environment, max(repeats, 15))
    added = [ours - bare for ours, bare in zip(with_pack, without, strict=True)]
    return [
        row_of_samples(
            "import of the pack on top of ComfyUI", [seconds for seconds, _ in imports], "s", "<= 0.3"
        ),
        Row("modules the import adds", imports[0][1]),
        row_of_samples("/object_info without the pack", without, "ms"),
        row_of_samples("/object_info with the pack", with_pack, "ms"),
        row_of_samples("/object_info added by the pack", added, "ms", "<= 20"),
        Row("browser scripts together", measure_scripts() / 1000, "kB", goal="<= 120"),
    ]


def measure_import(comfyui: Path, bytecode: str) -> tuple[float, int]:
    """Seconds and number of new modules, in a process of its own that keeps its byte code in a folder."""
    command = [sys.executable, "-c", _IMPORT, str(ROOT), str(comfyui)]
    variables = dict(os.environ, PYTHONPYCACHEPREFIX=bytecode)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    words = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
    return float(words[1]), int(words[2])


def measure_object_info(environment: Environment, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds of `GET /object_info` without and with the pack: both servers up, asked in turn."""
    log = RUNTIME / "logs"
    with (
        Server(environment, pack=None, log=log / "bench-without.log", device="cpu") as bare,
        Server(environment, pack=ROOT, log=log / "bench-with.log", device="cpu") as ours,
    ):
        bare.start()
        ours.start()
        samples = [(time_object_info(bare), time_object_info(ours)) for _ in range(repeats + 2)]
    without, with_pack = zip(*samples[2:], strict=True)  # the first two warm both servers up
    return list(without), list(with_pack)


def time_object_info(server: Server) -> float:
    started = time.perf_counter()
    server.client.get("/object_info")
    return (time.perf_counter() - started) * 1000


def measure_scripts() -> int:
    """Bytes of every script the page loads from the pack."""
    return sum(file.stat().st_size for file in (ROOT / "js").rglob("*.js"))
