"""`run.py cluster` with the real Ray and two workers on the CPU: Runware's client, a split task, kill -9."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.remote.vendors import run_client
from tools.launch.environment import Environment
from tools.running_cluster import RunningCluster, make_task, run_cluster

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(os.name == "nt", reason="run.py cluster is for Linux and macOS"),
]


@pytest.fixture(scope="module")
def cluster(
    comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory, artifacts: Path
) -> Iterator[RunningCluster]:
    data = tmp_path_factory.mktemp("cluster")
    log = artifacts / "cluster.log"
    with run_cluster(comfy_environment, data, 2, log, keep=artifacts / "cluster-ray") as running:
        yield running


def read_pictures(told: list[dict[str, Any]]) -> list[str]:
    found = []
    for item in told:
        with urllib.request.urlopen(item["imageURL"], timeout=60) as answer:
            found.append(hashlib.sha256(answer.read()).hexdigest())
    return found


def test_runware_sdk_by_rest_and_websocket(cluster: RunningCluster) -> None:
    found = run_client("runware-sdk", "runware_sdk.py", f"{cluster.address}/runware", cluster.key)
    assert set(found["images"]) == {"rest async", "rest sync", "websocket async", "websocket sync"}
    assert all(len(batch) == 2 for batch in found["images"].values())


def test_kills_lose_and_double_nothing(cluster: RunningCluster) -> None:
    """The same task three times: undisturbed, with a worker killed, with the front killed."""
    first = cluster.ask(make_task(numberResults=4))["data"]
    assert [item["seed"] for item in first] == [3, 4, 5, 6]
    pictures = read_pictures(first)
    assert len(set(pictures)) == 4
    assert {item["worker"] for item in first} == set(cluster.read_numbers("pictures_total"))

    def order() -> str:
        task = make_task(numberResults=4, deliveryMethod="async")
        cluster.ask(task)
        return task["taskUUID"]

    task = order()
    cluster.wait_for(task, 1)
    victim = cluster.find("Worker")[0]
    comfyui = [one for one in victim.children(recursive=True) if "main.py" in " ".join(one.cmdline())]
    victim.kill()
    again = cluster.wait_for(task, 4)
    assert [item["seed"] for item in again] == [3, 4, 5, 6] and read_pictures(again) == pictures
    assert len({item["imageUUID"] for item in again}) == 4
    _, left = psutil.wait_procs(comfyui, 15)
    assert comfyui and left == [], "a GPU is not held by the ComfyUI of a dead worker"

    task = order()
    cluster.find("Front")[0].kill()
    again = cluster.wait_for(task, 4)
    assert [item["seed"] for item in again] == [3, 4, 5, 6] and read_pictures(again) == pictures
