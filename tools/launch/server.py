"""Starts the real ComfyUI with this pack in it, in a process group of its own, and ends only that group."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import IO

from . import LaunchError
from .client import ComfyClient
from .environment import COMFYUI, ROOT, Environment, has_gpu_driver

_START_SECONDS = 300.0  # a first start on a slow disk compiles thousands of files
_STOP_SECONDS = 15.0
_DICE = random.SystemRandom()  # two workers of the tests must not get the same
LEASH = Path(__file__).with_name("leash.py")


class Server:
    """One ComfyUI: `with Server(environment) as server: server.start(); server.client.run(prompt)`.

    `base`: ComfyUI's base directory (models, input, output, user); None makes a temporary one that goes with
    the server. `output`: where pictures go instead of `<base>/output`. `log`: a file for ComfyUI's words, or
    None to let them through to the terminal. `pack`: the folder to put into custom_nodes as `pack_name`, or
    None for a ComfyUI without it. `device`: auto, cpu or gpu. `arguments`, `variables`: more for main.py and
    its environment. `leashed`: it ends with this process, however that ends.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        base: Path | None = None,
        output: Path | None = None,
        port: int | None = None,
        log: Path | None = None,
        pack: Path | None = ROOT,
        pack_name: str = "kleinod",
        device: str = "auto",
        arguments: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
        leashed: bool = False,
    ) -> None:
        self.environment = environment
        self._temporary = base is None
        self.base = base or Path(tempfile.mkdtemp(prefix="kleinod-"))
        self.port = port or find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = ComfyClient(self.url)
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._output = output
        self._pack = pack
        self._pack_name = pack_name
        self._device = device
        self._arguments = arguments
        self._variables = variables or {}
        self._leashed = leashed

    def start(self, on_wait: Callable[[float], None] = lambda seconds: None) -> None:
        """Start ComfyUI and return once it answers; LaunchError with the end of its log if it does not."""
        if self.process is not None:
            raise RuntimeError("This server runs already.")
        if ROOT in (self.base, *self.base.parents):
            raise LaunchError(
                f"ComfyUI's base directory {self.base} lies inside the pack; choose one outside {ROOT}."
            )
        place_pack(self._pack, self.base / "custom_nodes" / self._pack_name)
        command = [str(self.environment.python), str(self.environment.comfyui / "main.py")]
        command += ["--base-directory", str(self.base), "--port", str(self.port), "--disable-auto-launch"]
        command += ["--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        command += choose_device_arguments(self.environment, self._device)
        if self._output is not None:
            self._output.mkdir(parents=True, exist_ok=True)
            command += ["--output-directory", str(self._output)]
        if self.environment.comfyui != COMFYUI:
            command += ["--extra-model-paths-config", str(self._share_models())]
        if self._leashed:
            leash = [
                str(self.environment.python),
                str(LEASH),
                str(self.base) if self._temporary else "",
                "--",
            ]
            command = [*leash, *command]
        sink = None if self.log is None else self._open_log()
        self.process = subprocess.Popen(
            [*command, *self._arguments],
            cwd=self.base,
            env=server_variables(self.environment.packages) | self._variables,
            stdin=subprocess.PIPE if self._leashed else subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT if sink else None,
            **_own_process_group(),
        )
        if sink:
            sink.close()
        started = time.monotonic()
        while not self._answers():
            seconds = time.monotonic() - started
            if self.process.poll() is not None:
                raise LaunchError(
                    f"ComfyUI ended while starting (exit code {self.process.returncode}).{self._tail()}"
                )
            if seconds > _START_SECONDS:
                self.stop()
                raise LaunchError(f"ComfyUI did not answer within {_START_SECONDS:.0f} s.{self._tail()}")
            on_wait(seconds)
            time.sleep(0.2)

    def stop(self, firmly: bool = False) -> None:
        """End the server's process group: politely, then firmly, or firmly at once. Safe to call twice."""
        process, self.process = self.process, None
        if process is not None:
            for hard in (True,) if firmly else (False, True):
                _end_group(process, hard)
                try:
                    process.wait(_STOP_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)  # does not follow the link to the pack

    def wait(self) -> int:
        """Stay until the server ends by itself; its exit code."""
        return self.process.wait()

    def read_log(self) -> str:
        return "" if self.log is None else self.log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        """Whether ours does: another program may have taken the port in the meantime."""
        try:
            argv = self.client.get_json("/system_stats", timeout=5)["system"]["argv"]
        except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError, LookupError, TypeError):
            return False
        return str(self.base) in argv

    def _open_log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return self.log.open("wb")

    def _tail(self) -> str:
        lines = self.read_log().splitlines()[-25:]
        return "\n".join(["", *lines, f"The whole log: {self.log}"]) if lines else ""

    def _share_models(self) -> Path:
        """Write the file that lets ComfyUI see the models of the reader's own checkout."""
        file = self.base / "extra_model_paths.yaml"
        file.write_text(describe_models(self.environment.comfyui / "models"), encoding="utf-8")
        return file


def describe_models(models: Path) -> str:
    """The YAML that lets a ComfyUI see the model folders below `models`."""
    folders = sorted(folder.name for folder in models.iterdir() if folder.is_dir()) if models.is_dir() else []
    quoted = str(models.parent).replace("'", "''")  # YAML's one escape between single quotes
    lines = ["reader:", f"  base_path: '{quoted}'"]
    lines += [f"  {name}: {models.name}/{name}" for name in folders if name != "configs"]
    return "\n".join(lines) + "\n"


def find_free_port() -> int:
    """A port nobody has, and none of those that systems lend to connections: of these, one more may be taken
    before the server has started.
    """
    while True:
        port = _DICE.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def place_pack(pack: Path | None, place: Path) -> None:
    """Put the pack into custom_nodes at `place`: a link, or a copy where links need a privilege (Windows)."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    if pack is None:
        return
    try:
        place.symlink_to(pack, target_is_directory=True)
    except OSError:
        unneeded = shutil.ignore_patterns(".git", ".runtime", "output", "tests", "__pycache__")
        shutil.copytree(pack, place, ignore=unneeded)


def choose_device_arguments(environment: Environment, device: str) -> list[str]:
    """`--cpu` unless a GPU that PyTorch can use is there (`auto`), or as asked (`cpu`, `gpu`)."""
    if device == "auto":
        device = "gpu" if _has_usable_gpu(environment.python) else "cpu"
    return ["--cpu"] if device == "cpu" else []


def _has_usable_gpu(python: Path) -> bool:
    # Importing torch takes seconds, so it is only asked where a driver is installed.
    if not has_gpu_driver():
        return False
    check = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([str(python), "-c", check], capture_output=True).returncode == 0


def server_variables(packages: Path | None = None) -> dict[str, str]:
    """The environment of a ComfyUI process: no foreign packages, no look-ups on a model hub, sane threads.

    `packages`: `Environment.packages`; what is started from here finds it as KLEINOD_PACKAGES.
    """
    variables = dict(os.environ, HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1")
    for name in ("PYTHONPATH", "PYTHONHOME", "COMFYUI_PATH", "KLEINOD_PACKAGES"):
        variables.pop(name, None)
    if packages is not None:
        variables |= {"PYTHONPATH": str(packages), "KLEINOD_PACKAGES": str(packages)}
    # A thread per core starves as soon as anything else runs: ten times slower, measured on two busy cores.
    variables.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
    return variables


def _own_process_group() -> dict:
    # Ctrl-C on the terminal must reach run.py alone, which then ends the server in order.
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _end_group(process: subprocess.Popen[bytes], firmly: bool) -> None:
    try:
        if os.name == "nt":
            process.kill() if firmly else process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            # Not SIGINT: a process started from a background job inherits it as ignored.
            # The group's id is the id of the process that leads it.
            os.killpg(process.pid, signal.SIGKILL if firmly else signal.SIGTERM)
    except ProcessLookupError:
        pass
