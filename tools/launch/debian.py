"""Packages of Debian and Ubuntu: installed as root, or unpacked into a folder by anybody."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from .console import Progress


def can_install() -> bool:
    """Whether this process may install packages: root, on a system that has apt."""
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def can_unpack() -> bool:
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def install(packages: list[str], step: Progress, log: Path) -> bool:
    """`apt-get install` of packages; False, with the reason in `log`, where it fails."""
    step.update("reading Debian's package lists")
    if not _run(["apt-get", "update", "-q"], log):
        return False
    step.update("installing " + ", ".join(packages))
    return _run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], log)


def unpack(packages: list[str], folder: Path, step: Progress, log: Path) -> bool:
    """Fetch packages with all that this machine lacks for them and unpack them under `folder`/root.

    Needs no right that a reader does not have and changes nothing outside `folder`: apt works with lists and
    archives of its own there, and looks into the machine's state only to see what is installed already.
    """
    lists, archives, root = folder / "lists", folder / "archives", folder / "root"
    for place in (lists / "partial", archives / "partial", root):
        place.mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-q", "-y"]
    for option in (
        f"Dir::State::lists={lists}",
        f"Dir::Cache::archives={archives}",
        f"Dir::Cache::pkgcache={folder / 'packages.bin'}",
        f"Dir::Cache::srcpkgcache={folder / 'sources.bin'}",
        "Debug::NoLocking=true",
        "APT::Sandbox::User=",
    ):
        apt += ["-o", option]
    step.update("reading Debian's package lists")
    if not _run([*apt, "update"], log):
        return False
    step.update("fetching " + ", ".join(packages))
    if not _run([*apt, "install", "--no-install-recommends", "--download-only", *packages], log):
        return False
    for archive in sorted(archives.glob("*.deb")):
        step.update(f"unpacking {archive.name.partition('_')[0]}")
        if not _run(["dpkg-deb", "-x", str(archive), str(root)], log):
            return False
    for place in (lists, archives):
        shutil.rmtree(place, ignore_errors=True)
    return True


def write_launcher(
    script: Path, program: Path, root: Path, variables: dict[str, str], arguments: str = ""
) -> None:
    """A script that starts an unpacked program with the libraries unpacked beside it."""
    triplet = f"{platform.machine()}-linux-gnu"
    places = (f"usr/lib/{triplet}", f"lib/{triplet}", f"usr/lib/{triplet}/pulseaudio")
    variables = {"LD_LIBRARY_PATH": ":".join(f"{root}/{place}" for place in places), **variables}
    exports = " ".join(f'{name}="{value}"' for name, value in variables.items())
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\nexport {exports}\nexec "{program}" {arguments} "$@"\n', encoding="utf-8")
    script.chmod(0o755)


def _run(command: list[str], log: Path) -> bool:
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
    with log.open("a", encoding="utf-8") as record:
        record.write("$ " + " ".join(command) + "\n")
        record.flush()
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=record, stderr=subprocess.STDOUT
        )
    return done.returncode == 0
