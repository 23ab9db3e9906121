"""Runs pip with a readable progress line, a log, and sentences for the ways it usually fails."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path

from . import LaunchError
from .console import Progress

_NO_NETWORK = (
    "Failed to establish a new connection",
    "NewConnectionError",
    "NameResolutionError",
    "Name or service not known",
    "Temporary failure in name resolution",
    "getaddrinfo failed",
    "Network is unreachable",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Connection refused",
    "Connection aborted",
    "No route to host",
)
_DISK_FULL = ("No space left on device", "Errno 28", "not enough space on the disk")


def run_pip(python: Path, arguments: list[str], step: Progress, runtime: Path) -> None:
    """Run `python -m pip ...`, showing the package in work; LaunchError says why it failed.

    The output goes to `<runtime>/logs/setup.log`; pip unpacks under `<runtime>/tmp`, on the disk whose room
    was checked, since many machines keep a small `/tmp`.
    """
    log = runtime / "logs" / "setup.log"
    scratch = runtime / "tmp"
    log.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left
    scratch.mkdir(parents=True)
    command = [str(python), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "--retries", "2"]
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as record:
        record.write("$ " + " ".join(command) + "\n")
        process = subprocess.Popen(
            command,
            env=_pip_environment(scratch),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        try:
            for line in _read_lines(process, step):
                lines.append(line)
                record.write(line + "\n")
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
            shutil.rmtree(scratch, ignore_errors=True)
    if process.returncode:
        raise LaunchError(_explain(lines, step.title, log))


def _pip_environment(scratch: Path) -> dict[str, str]:
    environment = dict(os.environ, TMPDIR=str(scratch), TEMP=str(scratch), TMP=str(scratch))
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)  # each would send the packages elsewhere
    return environment


def _read_lines(process: subprocess.Popen[str], step: Progress):
    """Yield pip's lines as they come and keep the clock on the progress line running in between."""
    arrived: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            arrived.put(line.rstrip())
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    doing = "asking the package registry"
    while True:
        try:
            line = arrived.get(timeout=0.5)
        except queue.Empty:
            step.update(doing)
            continue
        if line is None:
            return
        doing = _describe(line) or doing
        step.update(doing)
        yield line


def _describe(line: str) -> str:
    """What a line of pip's means to a reader; empty for the many that mean nothing."""
    words = line.split()
    if words[:1] == ["Collecting"]:
        return f"looking for {words[1]}"
    if words[:1] == ["Downloading"]:
        file, *size = words[1:]
        return " ".join(["downloading", "-".join(file.split("-")[:2]), *size])
    if words[:1] == ["Building"]:
        return "building"
    if words[:3] == ["Installing", "collected", "packages:"]:
        return f"installing {len(words) - 3} packages"
    return ""


def _explain(lines: list[str], title: str, log: Path) -> str:
    text = "\n".join(lines)
    if any(sign in text for sign in _DISK_FULL):
        return f"{title}: the disk is full. Make room where {log.parents[1]} lies, then start run.py again."
    if any(sign in text for sign in _NO_NETWORK):
        return (
            f"{title}: the package registry cannot be reached. The first run needs the network (later "
            "ones do not): check the connection or the proxy pip is set up with, then start run.py again; it "
            "goes on where it stopped."
        )
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-5:]
    return f"{title}: pip failed. " + "\n".join(errors[:5]) + f"\nThe whole output: {log}"
