"""The API in a real ComfyUI, asked by the vendors' own clients: unchanged but for the address."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.core.api_stage import make_task
from tests.remote.vendors import run_client
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


def fetch(address: str) -> Image.Image:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return Image.open(io.BytesIO(answer.read()))


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


def test_runware_sdk_by_rest_and_websocket(comfy_server: Server, key: str) -> None:
    found = run_client("runware-sdk", "runware_sdk.py", f"{comfy_server.url}/kleinod/api/runware", key)
    assert set(found["images"]) == {"rest async", "rest sync", "websocket async", "websocket sync"}
    for batch in found["images"].values():
        assert len(batch) == 2 and len({image["imageUUID"] for image in batch}) == 2
        assert all(image["cost"] == 0 and isinstance(image["seed"], int) for image in batch)
        assert fetch(batch[0]["imageURL"]).size == (256, 192)


def test_runwares_former_client_by_websocket(comfy_server: Server, key: str) -> None:
    images = run_client("runware-legacy", "runware_legacy.py", f"{comfy_server.url}/kleinod/api/runware", key)
    assert len(images) == 2 and fetch(images[1]["imageURL"]).size == (256, 192)


def test_blackforest_client(comfy_server: Server, key: str) -> None:
    address = f"{comfy_server.url}/kleinod/api/bfl"
    found = run_client("blackforest", "bfl_sdk.py", address, key, "flux-2-klein-4b")
    result = found["flux-2-klein-4b"]["result"]
    assert result["seed"] == 4 and fetch(result["sample"]).size == (256, 256)


def test_openai_client(comfy_server: Server, key: str) -> None:
    found = run_client("openai", "openai_sdk.py", f"{comfy_server.url}/kleinod/api/openai/v1", key)
    assert "gpt-image-1" in found["models"] and found["generated"] and found["edited"] > 1000
    assert fetch(found["url"]).size == (256, 256)
    masked = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["masked"]))).convert("RGB"))
    assert (masked[:, :40] == (200, 160, 20)).all(), "what the mask covers stays"
    assert masked[:, 90:].std() > 1, "the rest is painted"
    assert found["bad"] == ["BadRequestError", 400, "size"]
    assert found["model"] == ["NotFoundError", 404, "model"]
    assert found["key"][:2] == ["AuthenticationError", 401]


def test_a_wrong_key_raises_the_clients_own_error(comfy_server: Server, key: str) -> None:
    with pytest.raises(AssertionError, match="invalidApiKey|not known here"):
        run_client("runware-sdk", "runware_sdk.py", f"{comfy_server.url}/kleinod/api/runware", "wrong")


def test_what_curl_sends(comfy_server: Server, key: str) -> None:
    """`curl -d` calls its body a form. Sent without it: a bare machine has no curl."""
    status, told = ask(
        comfy_server,
        "/kleinod/api/runware/v1",
        [make_task(steps=4, outputFormat="PNG")],
        Content_Type="application/x-www-form-urlencoded",
        User_Agent="curl/8.14.1",
        Accept="*/*",
        Authorization=f"Bearer {key}",
    )
    assert status == 200 and fetch(told["data"][0]["imageURL"]).format == "PNG", told


def test_seed_references_loras_faces_and_caches_in_one_request(comfy_server: Server, key: str) -> None:
    """The real nodes take what the dialect makes: equal requests give equal pictures."""
    asked = {
        "steps": 10, "seed": 11, "width": 128, "height": 128, "outputFormat": "PNG",
        "positivePrompt": "a panda on a yellow background, ocelot",
    }  # fmt: skip

    def run(**more: Any) -> tuple[str, bytes]:
        task = make_task(**asked, **more)
        path = "/kleinod/api/runware/v1"
        status, told = ask(comfy_server, path, [task], Authorization=f"Bearer {key}")
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
