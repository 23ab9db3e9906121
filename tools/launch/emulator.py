"""Runs the emulator of Runware and BFL beside ComfyUI, so that the remote workflows need no key and no
money.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from . import LaunchError
from .environment import ROOT, Environment

# The emulator takes any key; this one says whose it is.
_KEY = "emulator-key-not-a-secret"


@contextmanager
def run_emulator(environment: Environment, painter: str = "nano") -> Iterator[dict[str, str]]:
    """Start the emulator; yields the variables that make ComfyUI's remote nodes use it. Ends it
    afterwards.
    """
    command = [str(environment.python), "-m", "tests.emulator", "--painter", painter]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(os.environ, COMFYUI_PATH=str(environment.comfyui), HF_HUB_OFFLINE="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=os.name != "nt",  # Ctrl-C reaches run.py alone, which then closes the pipe
    )
    try:
        line = process.stdout.readline()
        if not line:
            raise LaunchError("The emulator of the remote services did not start: python -m tests.emulator")
        url = json.loads(line)["url"]
        yield {
            "KLEINOD_RUNWARE_URL": url,
            "KLEINOD_BFL_URL": url,
            "RUNWARE_API_KEY": _KEY,
            "BFL_API_KEY": _KEY,
            # In the template of an own server it stands for that, too.
            "RUNWARE_API_KEY_WORKSTATION": _KEY,
        }
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
