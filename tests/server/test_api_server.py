"""The API in a real ComfyUI, asked by the vendors' own clients: unchanged but for the address."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.core.api_stage import make_task
from tests.server.vendors_clients import Door, VendorsClients, fetch
from tools.launch.server import Server

pytestmark = pytest.mark.server

BEFORE: set[str] = set()
"""Temporary files of other tests on the same server."""


def ask(server: Server, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """(status, parsed answer)"""
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, given)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def list_temporary(server: Server) -> set[str]:
    return {file.name for file in (server.base / "temp").rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def key(comfy_server: Server) -> Iterator[str]:
    """The API switched on as the settings' panel does it, and a key of it."""
    BEFORE.update(list_temporary(comfy_server))
    status, _ = ask(comfy_server, "/kleinod/api/health")
    assert status == 404, "it is off until its owner switches it on"
    status, told = ask(comfy_server, "/kleinod/api-settings", {"enabled": True}, X_Kleinod="1")
    assert status == 200 and told["running"], told
    status, told = ask(comfy_server, "/kleinod/api-settings/key", {"name": "tests"}, X_Kleinod="1")
    assert status == 200, told
    secret = told["secret"]
    assert secret not in json.dumps(ask(comfy_server, "/kleinod/api-settings")[1])
    yield secret
    status, told = ask(comfy_server, "/kleinod/api-settings", {"enabled": False}, X_Kleinod="1")
    assert status == 200 and not told["running"]
    assert ask(comfy_server, "/kleinod/api/health")[0] == 404


@pytest.fixture(scope="module")
def door(comfy_server: Server, key: str) -> Door:
    return Door(f"{comfy_server.url}/kleinod/api", key)


class TestVendorsClients(VendorsClients):
    """Of ComfyUI's own web server."""


def test_seed_references_loras_faces_and_caches_in_one_request(door: Door) -> None:
    """The real nodes take what the dialect makes: equal requests give equal pictures."""
    asked = {
        "steps": 10, "seed": 11, "width": 128, "height": 128, "outputFormat": "PNG",
        "positivePrompt": "a panda on a yellow background, ocelot",
    }  # fmt: skip

    def run(**more: Any) -> tuple[str, bytes]:
        task = make_task(**asked, **more)
        status, told = door.ask("/runware/v1", [task])
        assert status == 200 and "errors" not in told, told
        item = told["data"][0]
        assert item["seed"] == 11
        return item["imageUUID"], fetch(item["imageURL"]).tobytes()

    first, plain = run()
    assert run()[1] == plain
    everything = {
        "lora": [{"model": "klein-nano style.safetensors", "weight": 0.8}],
        "inputs": {"referenceImages": [first]},
        "advancedFeatures": {"ultralytics": {"steps": 4, "confidence": 0.3, "strength": 0.5}},
        "acceleratorOptions": {"fbCache": True, "fbCacheThreshold": 0.1, "cacheStartStepPercentage": 20},
        "settings": {"trueCFGScale": 4}, "scheduler": "Heun", "negativePrompt": "blue",
    }  # fmt: skip
    for name, value in everything.items():
        if name in ("lora", "inputs", "acceleratorOptions"):
            assert run(**{name: value})[1] != plain, name
    assert run(**everything)[1] != plain


def test_nothing_is_left_in_comfyuis_folders_and_histories(comfy_server: Server, key: str) -> None:
    assert comfy_server.client.get_json("/history") == {} or all(
        "result" not in entry["outputs"] for entry in comfy_server.client.get_json("/history").values()
    )
    assert list_temporary(comfy_server) - BEFORE == set()
    log = comfy_server.read_log()
    assert key not in log and "ocelot" not in log
