"""Independent witnesses: the vendors' own clients take the emulator for the service they were written for."""

from __future__ import annotations

import io
import json
import os
import subprocess
import urllib.request

import pytest
from kleinod_pure.base.values import API_LEVELS
from kleinod_pure.remote.services import runware
from PIL import Image

from tests.emulator import Emulator
from tests.emulator.schedulers import SCHEDULERS
from tests.remote.vendors import CLIENTS, RUNWARE_SDK, run_client

from .conftest import CANARY


def fetch_size(url: str) -> tuple[int, int]:
    with urllib.request.urlopen(url) as answer:
        return Image.open(io.BytesIO(answer.read())).size


@pytest.fixture(scope="module")
def sdk_findings() -> dict:
    with Emulator(keys={CANARY}) as emulator:
        found = run_client("runware-sdk", "runware_sdk.py", emulator.url, CANARY)
        urls = [image["imageURL"] for images in found["images"].values() for image in images]
        return found | {"accepted": emulator.accepted, "sizes": {fetch_size(url) for url in urls}}


@RUNWARE_SDK
def test_runware_sdk_by_rest_and_websocket(sdk_findings) -> None:
    images = sdk_findings["images"]
    assert set(images) == {"rest async", "rest sync", "websocket async", "websocket sync"}
    for batch in images.values():
        assert len(batch) == 2 and len({image["imageUUID"] for image in batch}) == 2
        assert all(image["cost"] == 0.0005 and isinstance(image["seed"], int) for image in batch)
    assert sdk_findings["accepted"] == 4
    assert sdk_findings["sizes"] == {(256, 192)}


@RUNWARE_SDK
def test_our_requests_use_only_fields_and_names_the_sdk_knows(sdk_findings) -> None:
    fields = sdk_findings["fields"]
    full = runware.RunwareRequest(
        "a fox",
        "blur",
        512,
        512,
        number_results=2,
        scheduler="Euler",
        output_format="JPG",
        check_content=True,
        ttl=60,
        references=["data:,"],
        loras=[{"model": "a:b@c", "weight": 1}],
        ultralytics={"steps": 20},
        accelerator={"acceleration": "low", "acceleratorOptions": {"fbCache": True}},
        options=runware.RunwareOptions(webhook_url="https://a.example", upload_endpoint="https://b.example"),
    ).to_task()
    assert set(full) - set(fields) == set()
    sent = {
        runware.RunwareRequest("x", scheduler=name).to_task().get("scheduler", name)
        for name in runware.SCHEDULERS
    }
    assert sent == set(fields["scheduler"]) == set(SCHEDULERS)
    assert set(runware.OUTPUT_TYPES) == set(fields["outputType"])
    assert set(runware.OUTPUT_FORMATS) == set(fields["outputFormat"])
    assert set(API_LEVELS) == set(fields["acceleration"])


def test_runware_legacy_client_by_websocket() -> None:
    with Emulator(keys={CANARY}) as emulator:
        images = run_client("runware-legacy", "runware_legacy.py", emulator.url, CANARY)
        assert len(images) == 2 and emulator.accepted == 1
        assert {fetch_size(image["imageURL"]) for image in images} == {(256, 192)}


def test_blackforest_client() -> None:
    with Emulator(keys={CANARY}) as emulator:
        found = run_client("blackforest", "bfl_sdk.py", emulator.url, CANARY)
        assert set(found) == {"flux-pro-1.1", "flux-2-klein-4b"}
        for answer in found.values():
            assert answer["result"]["seed"] == 4
            assert fetch_size(answer["result"]["sample"]) == (256, 256)
        assert emulator.accepted == 2


@RUNWARE_SDK
def test_a_wrong_key_is_refused_to_them_too() -> None:
    with (
        Emulator(keys={CANARY}) as emulator,
        pytest.raises(AssertionError, match="Invalid API key|invalidApiKey"),
    ):
        run_client("runware-sdk", "runware_sdk.py", emulator.url, "another-key-123")
    assert emulator.accepted == 0


def test_comfyuis_own_bfl_node(comfy_environment) -> None:
    with Emulator(keys={CANARY}) as emulator:
        command = [str(comfy_environment.python), str(CLIENTS / "comfyui_bfl.py"), emulator.url, CANARY]
        environment = dict(os.environ, COMFYUI_PATH=str(comfy_environment.comfyui))
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1])[:3] == [1, 192, 256]
        assert emulator.accepted == 1
