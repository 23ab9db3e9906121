"""`run.py` as a reader types it, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tools.launch.environment import Environment
from tools.launch.server import find_free_port
from tools.launch.workflows import ORDER

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(comfy_environment: Environment) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), "--comfyui", str(comfy_environment.comfyui)]


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=5).close()
    except OSError:
        return False
    return True


def test_run_makes_the_pictures_it_prints(command: list[str]) -> None:
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ORDER:
        assert re.search(rf"^{re.escape(name)}: done in [\d.]+ s", done.stdout, re.M), done.stdout
    paths = [ROOT / line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(paths) >= len(ORDER)
    for path in paths:
        assert path.is_relative_to(ROOT / "output")
        with Image.open(path) as picture:
            picture.verify()


def test_an_unknown_command_is_answered_with_the_list(command: list[str]) -> None:
    done = subprocess.run([*command, "tset"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "run.py serve" in done.stdout and "tset" in done.stderr


def test_a_folder_that_is_no_comfyui_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "--comfyui", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a ComfyUI of somebody else's and must survive."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "main.py"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_serve_ends_its_server_and_no_other(
    command: list[str], number: int, tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    port = find_free_port()
    arguments = ["serve", "--port", str(port), "--data", str(tmp_path / "data"), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # A shell that runs the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 180
        while not answers(port):
            assert process.poll() is None, process.stdout.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.3)
        os.kill(process.pid, number)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert not answers(port), "the server outlived run.py"
    assert bystander.poll() is None
    assert (tmp_path / "data" / "custom_nodes" / "kleinod" / "run.py").is_file()
