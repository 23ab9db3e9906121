"""What `run.py cluster` understands, says and refuses before Ray is started."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from kleinod_pure.base.errors import InputError
from kleinod_pure.service.book import Book

from cluster.__main__ import announce, check_folder, describe_join, main, read_arguments, read_workers
from cluster.options import read_options
from tools.launch import LaunchError
from tools.launch.server import LEASH, describe_models


@pytest.mark.parametrize(
    ("text", "gpus", "bounds"),
    [("", 0, (2, 2)), ("", 4, (4, 4)), ("3", 4, (3, 3)), ("1-8", 0, (1, 8)), ("2-2", 1, (2, 2))],
)
def test_workers(text: str, gpus: int, bounds: tuple[int, int]) -> None:
    assert read_workers(text, gpus) == bounds


@pytest.mark.parametrize("text", ["0", "8-1", "x", "-3", "1-", "1.5", "1-2-3", "5000"])
def test_workers_that_make_no_sense(text: str) -> None:
    with pytest.raises(LaunchError, match="--workers is"):
        read_workers(text, 0)


def test_the_files_for_serve_and_kuberay_say_what_the_application_takes(repository: Path) -> None:
    serve = yaml.safe_load((repository / "cluster" / "serve.yaml").read_text())
    kube = yaml.safe_load((repository / "cluster" / "kuberay.yaml").read_text())
    assert kube["spec"]["upgradeStrategy"]["type"] == "None", "no second front beside the first"
    for config in (serve, yaml.safe_load(kube["spec"]["serveConfigV2"])):
        (application,) = config["applications"]
        assert application["import_path"] == "cluster.application:build"
        assert read_options(application["args"])["gpus_per_worker"] == 1.0
    wanted = (repository / "cluster" / "requirements.txt").read_text()
    assert f"ray[serve]=={kube['spec']['rayClusterConfig']['rayVersion']}" in wanted


def test_options_by_text_and_those_that_are_none() -> None:
    read = read_options({"folder": "/x", "workers": "3", "remote": "true", "stand_in": "false"})
    assert (read["workers"], read["remote"], read["stand_in"]) == (3, True, False)
    for given in ({}, {"workers": 2}, {"folder": "/x", "worker": 2}):
        with pytest.raises(InputError, match="takes folder, workers"):
            read_options(given)


def test_a_second_front_is_refused_at_once(tmp_path: Path) -> None:
    check_folder(tmp_path / "a")
    book = Book(tmp_path / "a")
    with pytest.raises(LaunchError, match="are in use"):
        check_folder(tmp_path / "a")
    book.close()
    check_folder(tmp_path / "a")


def test_what_the_console_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "word")
    options = argparse.Namespace(
        host="0.0.0.0", port=8188, dashboard_port=8265, ray_host="10.0.0.1", ray_port=6379
    )
    text = announce({"key": "kleinod-x", "again": 3, "workers": []}, options)
    assert "http://127.0.0.1:8188/kleinod/api/runware/v1" in text and "kleinod-x   (shown this once)" in text
    assert "3 pictures of the time before" in text
    assert "RAY_AUTH_TOKEN=word python3 run.py cluster --join 10.0.0.1:6379\n" in describe_join(options)
    options.ray_host = "127.0.0.1"
    assert describe_join(options) == ""


def test_the_models_of_a_folder_as_comfyui_reads_them(tmp_path: Path) -> None:
    for name in ("loras", "vae", "configs"):
        (tmp_path / "models" / name).mkdir(parents=True)
    text = describe_models(tmp_path / "models")
    assert text == f"reader:\n  base_path: '{tmp_path}'\n  loras: models/loras\n  vae: models/vae\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("way", ["pipe", "kill"])
def test_what_is_on_a_leash_does_not_outlive_its_owner(tmp_path: Path, way: str) -> None:
    folder, alive = tmp_path / "temporary", tmp_path / "alive"
    folder.mkdir()
    code = f"import time\nwhile True: open({str(alive)!r}, 'a').write('x'); time.sleep(0.02)"
    command = [sys.executable, str(LEASH), str(folder), "--", sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    while not alive.exists():
        time.sleep(0.01)
    if way == "pipe":
        process.stdin.close()
    else:
        process.kill()
    process.wait(20)
    threading.Event().wait(0.3)
    size = alive.stat().st_size
    threading.Event().wait(0.3)
    assert alive.stat().st_size == size
    assert folder.exists() == (way == "kill")
    if way == "kill":
        process.stdin.close()


@pytest.mark.parametrize("address", ["10.0.0.1", "http://10.0.0.1", "10.0.0.1:", "10.0.0.1:99999", ":6379x"])
def test_an_address_to_join_that_is_none(tmp_path: Path, address: str, capsys) -> None:
    given = ["--data", str(tmp_path), "--gpus", "0", "--join", address]
    assert main(given) == 1
    assert f"--join is {address!r}, but must be an address and a port" in capsys.readouterr().err


def test_a_head_that_is_not_there_is_said_before_ray_is_started(tmp_path: Path, capsys) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["--data", str(tmp_path), "--gpus", "0", "--join", place]) == 1
    assert f"Nothing answers at {place} (Connection refused): run.py cluster must" in capsys.readouterr().err
    assert not (tmp_path / "cluster").exists()


def test_the_addresses_of_a_head_and_of_a_machine_that_joins(tmp_path: Path) -> None:
    given = ["--data", str(tmp_path), "--gpus", "0"]
    assert read_arguments(given).ray_host == "127.0.0.1"
    assert read_arguments([*given, "--join", "10.0.0.1:6379"]).ray_host == "", (
        "Ray finds the one that reaches"
    )
