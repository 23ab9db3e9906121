"""Where the virtual environment gets its pip from, and what of PyTorch is left out without a card."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.launch import LaunchError, virtual_environment
from tools.launch.environment import GPU_ONLY, drop_requirements
from tools.launch.virtual_environment import environment_python, make_environment

METADATA = """\
Metadata-Version: 2.4
Name: torch
Requires-Dist: filelock
Requires-Dist: cuda-toolkit[cublas,cusolver,cusparse,nvrtc]==13.0.2; platform_system == "Linux"
Requires-Dist: cuda-bindings<14,>=13.0.3; platform_system == "Linux"
Requires-Dist: nvidia-cudnn-cu13==9.19.0.56; platform_system == "Linux"
Requires-Dist: triton==3.6.0; platform_system == "Linux"
Requires-Dist: optree>=0.13.0; extra == "optree"

About triton==3.6.0
"""

# A Python that has the modules named in a file beside it, makes environments and installs pip into them.
_PYTHON = """#!/bin/sh
here=$(/usr/bin/dirname "$0")
case "$*" in
  *"-c import sys, pip"*) test -e "$here/has-pip";;
  *"-c import "*) for word in $(echo "$2" | /bin/sed 's/import//; s/,//g'); do
      /bin/grep -qx "$word" {modules} || exit 1; done;;
  *"-m venv"*) for last; do :; done; /bin/mkdir -p "$last/bin"; /bin/cp "$0" "$last/bin/python"
      case "$*" in *--without-pip*) ;; *) /usr/bin/touch "$last/bin/has-pip";; esac;;
  *"-m pip --python"*) test -n "$PYTHONPATH" || /bin/grep -qx pip {modules} || exit 1
      echo "pip from $PYTHONPATH" >> {log}; /usr/bin/touch "$(/usr/bin/dirname "$4")/has-pip";;
esac
"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.modules, self.log = folder, folder / "modules", folder / "log"
        self.bin, self.runtime, self.venv = folder / "bin", folder / "runtime", folder / "runtime" / "venv"
        self.bin.mkdir()
        self.log.touch()
        self.python = self.add("python3", _PYTHON.format(modules=self.modules, log=self.log))

    def add(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)
        return path

    def has(self, *modules: str) -> None:
        self.modules.write_text("".join(f"{module}\n" for module in modules))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    if os.name == "nt":
        pytest.skip("stand-ins are shell scripts")
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.delenv("PYTHONPATH", raising=False)  # newer packages of ComfyUI come by it, as by --comfyui
    monkeypatch.setattr(virtual_environment.sys, "executable", str(made.python))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return made


def test_a_whole_python_makes_its_own(machine: Machine) -> None:
    machine.has("venv", "ensurepip")
    assert make_environment(machine.venv, machine.runtime) == environment_python(machine.venv)
    assert machine.log.read_text() == ""


def test_a_pip_that_is_there_installs_itself(machine: Machine) -> None:
    machine.has("venv", "pip")
    make_environment(machine.venv, machine.runtime)
    assert machine.log.read_text() == "pip from \n"


def test_anybody_on_debian_unpacks_pip(machine: Machine) -> None:
    machine.has("venv")
    place = machine.runtime / "pip"
    fetch = f'case "$*" in *--download-only*) : > {place}/archives/pip_1_all.deb;; esac'
    machine.add("apt-get", f"#!/bin/sh\n{fetch}\n")
    wheels = '"$3/usr/share/python-wheels"'
    machine.add(
        "dpkg-deb", f"#!/bin/sh\n/bin/mkdir -p {wheels} && : > {wheels}/pip-23.0.1-py3-none-any.whl\n"
    )
    make_environment(machine.venv, machine.runtime)
    wheel = place / "root/usr/share/python-wheels/pip-23.0.1-py3-none-any.whl"
    assert machine.log.read_text() == f"pip from {wheel}\n"


def test_root_on_debian_installs_what_python_lacks(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has("venv")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    bring = f'case "$1" in install) printf "venv\\nensurepip\\n" > {machine.modules};; esac'
    machine.add("apt-get", f'#!/bin/sh\necho "$*" >> {machine.log}\n{bring}\n')
    make_environment(machine.venv, machine.runtime)
    assert "-venv" in machine.log.read_text() and "pip from" not in machine.log.read_text()


def test_elsewhere_a_sentence_says_what_to_install(machine: Machine) -> None:
    machine.has("venv")
    with pytest.raises(LaunchError, match="lacks the modules venv or pip.*apt install python3-venv"):
        make_environment(machine.venv, machine.runtime)


def test_without_a_card_only_what_a_card_needs_is_left_out() -> None:
    lines = drop_requirements(METADATA).splitlines()
    assert [line for line in METADATA.splitlines() if line not in lines] == [
        'Requires-Dist: cuda-toolkit[cublas,cusolver,cusparse,nvrtc]==13.0.2; platform_system == "Linux"',
        'Requires-Dist: cuda-bindings<14,>=13.0.3; platform_system == "Linux"',
        'Requires-Dist: triton==3.6.0; platform_system == "Linux"',
    ]
    assert 'Requires-Dist: cuda-toolkit[cublas,cusparse]==13.0.2; platform_system == "Linux"' in lines
    assert set(GPU_ONLY) & {"torch", "nvidia-cublas", "nvidia-cudnn-cu13"} == set()
