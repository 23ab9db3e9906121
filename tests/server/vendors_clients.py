"""The vendors' own clients against an API that answers, unchanged but for the address: what every door must
pass, ComfyUI's own and the cluster's. A module that has such a door inherits `VendorsClients` and gives the
fixture `door`.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.core.api_stage import make_task
from tests.remote.vendors import RUNWARE_SDK, run_client


@dataclass(frozen=True)
class Door:
    """address: of the API, with /kleinod/api."""

    address: str
    key: str

    def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, Any]:
        """(status, parsed answer)"""
        given = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, given, method=method or None)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def fetch(address: str) -> Image.Image:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return Image.open(io.BytesIO(answer.read()))


class VendorsClients:
    @RUNWARE_SDK
    def test_runware_sdk_by_rest_and_websocket(self, door: Door) -> None:
        found = run_client("runware-sdk", "runware_sdk.py", f"{door.address}/runware", door.key)
        assert set(found["images"]) == {"rest async", "rest sync", "websocket async", "websocket sync"}
        for batch in found["images"].values():
            assert len(batch) == 2 and len({image["imageUUID"] for image in batch}) == 2
            assert all(image["cost"] == 0 and isinstance(image["seed"], int) for image in batch)
            assert fetch(batch[0]["imageURL"]).size == (256, 192)

    def test_runwares_former_client_by_websocket(self, door: Door) -> None:
        images = run_client("runware-legacy", "runware_legacy.py", f"{door.address}/runware", door.key)
        assert len(images) == 2 and fetch(images[1]["imageURL"]).size == (256, 192)

    def test_blackforest_client(self, door: Door) -> None:
        address = f"{door.address}/bfl"
        found = run_client("blackforest", "bfl_sdk.py", address, door.key, "flux-2-klein-4b")
        result = found["flux-2-klein-4b"]["result"]
        assert result["seed"] == 4 and fetch(result["sample"]).size == (256, 256)

    def test_openai_client(self, door: Door) -> None:
        found = run_client("openai", "openai_sdk.py", f"{door.address}/openai/v1", door.key)
        assert "gpt-image-1" in found["models"] and found["generated"] and found["edited"] > 1000
        assert fetch(found["url"]).size == (256, 256)
        masked = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["masked"]))).convert("RGB"))
        assert (masked[:, :40] == (200, 160, 20)).all(), "what the mask covers stays"
        assert masked[:, 90:].std() > 1, "the rest is painted"
        assert found["bad"] == ["BadRequestError", 400, "size"]
        assert found["model"] == ["NotFoundError", 404, "model"]
        assert found["key"][:2] == ["AuthenticationError", 401]

    @RUNWARE_SDK
    def test_a_wrong_key_raises_the_clients_own_error(self, door: Door) -> None:
        with pytest.raises(AssertionError, match="invalidApiKey|not known here"):
            run_client("runware-sdk", "runware_sdk.py", f"{door.address}/runware", "wrong")

    def test_what_curl_sends(self, door: Door) -> None:
        """`curl -d` calls its body a form. Sent without it: a bare machine has no curl."""
        status, told = door.ask(
            "/runware/v1",
            [make_task(steps=4, outputFormat="PNG")],
            Content_Type="application/x-www-form-urlencoded",
            User_Agent="curl/8.14.1",
            Accept="*/*",
        )
        assert status == 200 and fetch(told["data"][0]["imageURL"]).format == "PNG", told
