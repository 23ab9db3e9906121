"""`run.py bench startup`: what the pack adds to a ComfyUI that starts.

Import time is taken in fresh processes in which ComfyUI has loaded all of its own nodes first, as it does
before it turns to custom nodes. `/object_info` is the page's first request, asked in turn of a server with
the pack and of one without it: first with empty model folders, then with full ones.

Goals are judged by processor time. The clock's time is shown beside it: on a machine that does nothing else
the two agree, on a busy one the clock mostly measures the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

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
clock, processor = time.perf_counter(), time.process_time()
pack = load_pack(Path(sys.argv[1]))
asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
print("RESULT", time.process_time() - processor, time.perf_counter() - clock, len(set(sys.modules) - before))
"""
# One sample is a burst of requests, because the system counts a process's time in steps of 10 ms.
_BURST = 10
# What fills the folders of a collector: names as they come, in subfolders.
_FULL = {"loras": 2000, "diffusion_models": 200, "text_encoders": 50, "vae": 50}
_PER_SUBFOLDER = 50


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench startup")
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args(argv).repeats
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with tempfile.TemporaryDirectory(prefix="kleinod-") as bytecode:
        measure_import(comfyui, bytecode)  # compiles, as the very first start does
        processor, clock, modules = zip(
            *(measure_import(comfyui, bytecode) for _ in range(repeats)), strict=True
        )
    environment = Environment(Path(sys.executable), comfyui, own=False, packages=inherit_packages())
    return [
        row_of_samples("import of the pack on top of ComfyUI", processor, "s", "<= 0.3"),
        row_of_samples("  by the clock", clock, "s"),
        Row("  modules it adds", modules[0]),
        *measure_object_info(environment, repeats),
        Row("browser scripts and styles together", measure_scripts() / 1000, "kB", goal="<= 120"),
    ]


def measure_import(comfyui: Path, bytecode: str) -> tuple[float, float, int]:
    """Processor seconds, clock seconds and number of new modules of one import, in a process of its own that
    keeps its byte code in a folder.
    """
    command = [sys.executable, "-c", _IMPORT, str(ROOT), str(comfyui)]
    variables = dict(os.environ, PYTHONPYCACHEPREFIX=bytecode)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    words = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
    return float(words[1]), float(words[2]), int(words[3])


def measure_object_info(environment: Environment, repeats: int) -> list[Row]:
    """Rows about `GET /object_info` without and with the pack: both servers up, asked in turn."""
    log = RUNTIME / "logs"
    with (
        Server(environment, pack=None, log=log / "bench-without.log", device="cpu") as bare,
        Server(environment, pack=ROOT, log=log / "bench-with.log", device="cpu") as ours,
    ):
        bare.start()
        ours.start()
        rows = _compare(bare, ours, repeats, "empty model folders")
        for server in (bare, ours):
            fill_model_folders(server.base / "models")
        return rows + _compare(bare, ours, repeats, f"{sum(_FULL.values())} model files")


def _compare(bare: Server, ours: Server, repeats: int, folders: str) -> list[Row]:
    for server in (bare, ours):
        time_object_info(server)  # lists the folders and fills ComfyUI's caches
    samples = [(time_object_info(bare), time_object_info(ours)) for _ in range(repeats)]
    without, with_pack = zip(*samples, strict=True)
    added = [(more[0] - less[0], more[1] - less[1]) for less, more in zip(without, with_pack, strict=True)]
    return [
        row_of_samples(f"/object_info added by the pack, {folders}", [s for s, _ in added], "ms", "<= 20"),
        row_of_samples("  by the clock", [s for _, s in added], "ms"),
        row_of_samples("  without the pack", [s for s, _ in without], "ms"),
        row_of_samples("  with the pack", [s for s, _ in with_pack], "ms"),
    ]


def time_object_info(server: Server) -> tuple[float, float]:
    """Milliseconds of the server's processor time and of the clock for one request, the mean of a burst."""
    process = psutil.Process(server.process.pid)
    before, clock = process.cpu_times(), time.perf_counter()
    for _ in range(_BURST):
        server.client.get("/object_info")
    clock, after = time.perf_counter() - clock, process.cpu_times()
    processor = after.user + after.system - before.user - before.system
    return round(processor * 1000 / _BURST, 3), clock * 1000 / _BURST


def fill_model_folders(models: Path) -> None:
    """Empty files under names of models, enough for a collector's folders."""
    for folder, count in _FULL.items():
        for number in range(count):
            place = models / folder / f"shelf {number // _PER_SUBFOLDER}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{folder}_{number:04d}.safetensors").touch()


def measure_scripts() -> int:
    """Bytes of every script and style sheet the page loads from the pack."""
    return sum(file.stat().st_size for file in (ROOT / "js").rglob("*") if file.suffix in (".js", ".css"))
