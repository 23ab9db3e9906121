"""`run.py cluster` with the real Ray and a worker on each of two machines, of which the second joined: the
vendors' clients, Klein Runware in a real ComfyUI, the numbers, kill -9 of a worker, the front, a machine.

Both machines are this one, under a Ray each.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.server.vendors_clients import Door, VendorsClients
from tools.launch.environment import Environment
from tools.launch.server import Server
from tools.running_cluster import RunningCluster, find_below, make_task, run_cluster

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
    keep = artifacts / "cluster-ray"
    with run_cluster(comfy_environment, data, 2, log, keep=keep, joined=True) as running:
        yield running


@pytest.fixture(scope="module")
def door(cluster: RunningCluster) -> Door:
    return Door(cluster.address, cluster.key)


class TestVendorsClients(VendorsClients):
    """Of the cluster's front."""


def read_pictures(told: list[dict[str, Any]]) -> list[str]:
    found = []
    for item in told:
        with urllib.request.urlopen(item["imageURL"], timeout=60) as answer:
            found.append(hashlib.sha256(answer.read()).hexdigest())
    return found


def test_klein_runware_gets_twenty_results_from_both_workers(
    cluster: RunningCluster, comfy_server: Server
) -> None:
    """The artist's side: a profile that names the cluster, one node, and the jobs panel's account of it."""
    desk = Door(comfy_server.url, "")
    profile = {"name": "studio", "address": cluster.address, "key": cluster.key}
    status, told = desk.ask("/kleinod/servers", profile, X_Kleinod="1")
    assert status == 200, told

    def draw(seed: int, count: int) -> tuple[list[int], list[np.ndarray]]:
        inputs = {
            "positive_prompt": "a panda on a yellow background", "negative_prompt": "", "width": 128,
            "height": 128, "steps": 4, "cfg_scale": 3.5, "seed": seed, "number_results": count,
            "options": ["1", 0],
        }  # fmt: skip
        options = {"output_type": "URL", "profile": "studio", "price_check": "off"}
        graph = {
            "1": {"class_type": "KleinodRunwareOptions", "inputs": options},
            "2": {"class_type": "KleinodRunware", "inputs": inputs},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "studio"}},
            "4": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}},
        }
        outputs = comfy_server.client.run(graph).outputs
        files = [comfy_server.client.fetch_image(image) for image in outputs["3"]["images"]]
        seeds = [int(number) for text in outputs["4"]["text"] for number in re.findall(r"\d+", text)]
        return seeds, [np.asarray(Image.open(io.BytesIO(file))) for file in files]

    try:
        # On a crowded machine one worker may draw all twenty.
        for first in (40, 140, 240):
            seeds, pictures = draw(first, 20)
            _, told = desk.ask("/kleinod/jobs")
            assert seeds == list(range(first, first + 20)) and len(pictures) == 20
            job = next(one for one in told["jobs"] if one["service"] == "own-runware")
            drawn = Counter(picture["worker"] for picture in job["pictures"])
            if len(drawn) == 2:
                break
        assert np.array_equal(draw(first + 17, 1)[1][0], pictures[17])
    finally:
        desk.ask("/kleinod/servers", {"name": "studio"}, "DELETE", X_Kleinod="1")
    assert [picture["seed"] for picture in job["pictures"]] == seeds, "as on the node, whoever was done first"
    assert sorted(picture["position"] for picture in job["pictures"]) == list(range(20))
    assert set(drawn) == set(cluster.read_numbers("pictures_total")) and sum(drawn.values()) == 20
    assert len({picture.tobytes() for picture in pictures}) == 20


def read_exporter(address: str) -> dict[str, float]:
    """Numbers of ours that Ray's exporter has, by name, summed over their labels."""
    with urllib.request.urlopen(address, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    found: Counter[str] = Counter()
    for line in lines:
        name = re.match(r"ray_(kleinod_worker_\w+)\{.*worker=\"", line)
        if name is not None:
            found[name[1]] += float(line.rsplit(" ", 1)[1])
    return dict(found)


def test_each_machines_ray_exports_its_workers_numbers(cluster: RunningCluster) -> None:
    # On a crowded machine one worker may draw all of an order.
    drawn: set[str] = set()
    ends = time.monotonic() + 120
    while len(drawn) < 2:
        assert time.monotonic() < ends, drawn
        drawn |= {item["worker"] for item in cluster.ask(make_task(numberResults=4, steps=2))["data"]}
    wanted = {"kleinod_worker_pictures_total", "kleinod_worker_seconds_sum", "kleinod_worker_queue"}
    wanted |= {"kleinod_worker_model_cache_total"}
    for address in cluster.exporters:
        ends = time.monotonic() + 60
        while not wanted <= set(found := read_exporter(address)) or not found["kleinod_worker_seconds_sum"]:
            assert time.monotonic() < ends, found
            time.sleep(1)
        assert found["kleinod_worker_pictures_total"] >= 1
        assert found["kleinod_worker_model_cache_total"] == found["kleinod_worker_pictures_total"]


def test_kills_lose_and_double_nothing(cluster: RunningCluster) -> None:
    """The same task four times: undisturbed, with a worker killed, with the front killed, with the second
    machine killed.
    """
    first = cluster.ask(make_task(numberResults=4))["data"]
    assert [item["seed"] for item in first] == [3, 4, 5, 6]
    pictures = read_pictures(first)
    assert len(set(pictures)) == 4
    # On a crowded machine one worker may draw all four; that both draw is another test's.
    assert {item["worker"] for item in first} <= set(cluster.read_numbers("pictures_total"))

    def order() -> str:
        task = make_task(numberResults=4, deliveryMethod="async")
        cluster.ask(task)
        return task["taskUUID"]

    task = order()
    cluster.wait_for(task, 1)
    victim = cluster.find("Worker")[0]
    comfyui = find_below(victim, "main.py")
    victim.kill()
    again = cluster.wait_for(task, 4)
    assert [item["seed"] for item in again] == [3, 4, 5, 6] and read_pictures(again) == pictures
    assert len({item["imageUUID"] for item in again}) == 4
    _, left = psutil.wait_procs(comfyui, 60)
    assert comfyui and left == [], "a GPU is not held by the ComfyUI of a dead worker"

    task = order()
    cluster.find("Front")[0].kill()
    again = cluster.wait_for(task, 4)
    assert [item["seed"] for item in again] == [3, 4, 5, 6] and read_pictures(again) == pictures

    task = order()
    cluster.wait_for(task, 1)
    machine = cluster.find_joined()
    for process in machine:
        process.kill()
    again = cluster.wait_for(task, 4)
    assert [item["seed"] for item in again] == [3, 4, 5, 6] and read_pictures(again) == pictures
    assert cluster.joined is not None and cluster.joined.wait(60) == 1, "the command says that it is out"
