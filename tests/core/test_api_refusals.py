"""What is refused, in each vendor's shape, before anything is queued; and 2,000 bodies that are nothing."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from kleinod_pure.service.messages import Answer
from kleinod_pure.service.settings import ApiSettings, make_settings
from kleinod_pure.service.web_adapter import find_stranger

from tests.core.api_stage import make_task, run_service

BAD_TASKS: list[tuple[dict[str, Any], str, str]] = [
    ({"taskUUID": ...}, "missingTaskUUID", "taskUUID"),
    ({"taskUUID": "7"}, "invalidTaskUUID", "taskUUID"),
    ({"taskUUID": 7}, "invalidTaskUUID", "taskUUID"),
    ({"taskType": "videoInference"}, "invalidTaskType", "taskType"),
    ({"model": ...}, "missingModel", "model"),
    ({"model": "runware:100@1"}, "unknownModel", "model"),
    ({"positivePrompt": ...}, "missingPositivePrompt", "positivePrompt"),
    ({"positivePrompt": " "}, "invalidPositivePrompt", "positivePrompt"),
    ({"positivePrompt": "x" * 10001}, "invalidPositivePrompt", "positivePrompt"),
    ({"negativePrompt": ""}, "invalidNegativePrompt", "negativePrompt"),
    ({"width": ...}, "missingWidth", "width"),
    ({"width": 100}, "invalidWidth", "width"),
    ({"height": 2064}, "invalidHeight", "height"),
    ({"width": 257}, "invalidWidth", "width"),
    ({"width": "256"}, "invalidParameterType", "width"),
    ({"steps": 0}, "invalidSteps", "steps"),
    ({"steps": 51}, "invalidSteps", "steps"),
    ({"steps": True}, "invalidParameterType", "steps"),
    ({"CFGScale": 0.5}, "invalidCFGScale", "CFGScale"),
    ({"CFGScale": 3.505}, "invalidCFGScale", "CFGScale"),
    ({"settings": {"trueCFGScale": 0.5}}, "invalidTrueCFGScale", "settings.trueCFGScale"),
    ({"settings": {"layers": 2}}, "unsupportedParameter", "settings.layers"),
    ({"seed": -1}, "invalidSeed", "seed"),
    ({"seed": 9223372036854776001 * 2}, "invalidSeed", "seed"),
    ({"seed": 1.5}, "invalidSeed", "seed"),
    ({"numberResults": 21}, "invalidNumberResults", "numberResults"),
    ({"scheduler": "Nothing"}, "invalidScheduler", "scheduler"),
    ({"outputType": "file"}, "invalidOutputType", "outputType"),
    ({"outputFormat": "TIFF"}, "invalidOutputFormat", "outputFormat"),
    ({"outputQuality": 100}, "invalidOutputQuality", "outputQuality"),
    ({"ttl": 59}, "invalidTtl", "ttl"),
    ({"ttl": 60, "outputType": "dataURI"}, "invalidTtl", "ttl"),
    ({"deliveryMethod": "later"}, "invalidDeliveryMethod", "deliveryMethod"),
    ({"acceleration": "highest"}, "invalidAcceleration", "acceleration"),
    ({"acceleratorOptions": {"fbCache": 1}}, "invalidParameterType", "acceleratorOptions.fbCache"),
    (
        {"acceleratorOptions": {"fbCache": True, "teaCache": True}},
        "conflictAcceleratorOptions", "acceleratorOptions",
    ),
    ({"acceleratorOptions": {"cacheEndStep": 29}}, "invalidCacheEndStep", "acceleratorOptions.cacheEndStep"),
    ({"acceleratorOptions": {"magCache": True}}, "unsupportedParameter", "acceleratorOptions.magCache"),
    ({"acceleratorOptions": []}, "invalidAcceleratorOptions", "acceleratorOptions"),
    ({"lora": {"model": "style"}}, "invalidLora", "lora"),
    ({"lora": [{"weight": 1}]}, "invalidLoraModel", "lora[0].model"),
    ({"lora": [{"model": "civitai:9@9"}]}, "invalidLoraModel", "lora[0].model"),
    ({"lora": [{"model": "../../etc/passwd"}]}, "invalidLoraModel", "lora[0].model"),
    ({"lora": [{"model": "style", "weight": 5}]}, "invalidLoraWeight", "lora[0].weight"),
    ({"lora": [{"model": "style", "transformer": "mid"}]}, "invalidLoraTransformer", "lora[0].transformer"),
    ({"lora": [{"model": "style", "path": "x"}]}, "unsupportedParameter", "lora[0].path"),
    ({"inputs": {"referenceImages": "x"}}, "invalidReferenceImages", "inputs.referenceImages"),
    ({"inputs": {"referenceImages": ["%%"]}}, "invalidReferenceImages", "inputs.referenceImages[0]"),
    ({"inputs": {"referenceImages": ["aGFsbG8="]}}, "invalidReferenceImages", "inputs.referenceImages[0]"),
    ({"inputs": {"referenceImages": ["a"] * 5}}, "invalidReferenceImages", "inputs.referenceImages"),
    ({"inputs": {"seedImage": "x"}}, "unsupportedParameter", "inputs.seedImage"),
    (
        {"advancedFeatures": {"ultralytics": {"steps": 101}}},
        "invalidSteps", "advancedFeatures.ultralytics.steps",
    ),
    ({"advancedFeatures": {"layerDiffuse": True}}, "unsupportedParameter", "advancedFeatures.layerDiffuse"),
    ({"safety": {"checkContent": True}}, "unsupportedParameter", "safety.checkContent"),
    ({"safety": {"mode": "full"}}, "invalidMode", "safety.mode"),
    ({"webhookURL": "ftp://x"}, "invalidWebhookURL", "webhookURL"),
    ({"webhookURL": "http://127.0.0.1/hook"}, "invalidWebhookURL", "webhookURL"),
    ({"uploadEndpoint": "http://10.0.0.1/x"}, "invalidUploadEndpoint", "uploadEndpoint"),
    ({"strength": 0.5}, "unsupportedParameter", "strength"),
]  # fmt: skip


def test_every_rule_of_runwares_document_refuses(tmp_path: Path) -> None:
    async def run() -> dict[int, Any]:
        found = {}
        async with run_service(tmp_path) as stage:
            for number, (fields, _, _) in enumerate(BAD_TASKS):
                status, told = await stage.run(**fields)
                found[number] = status, told["errors"][0]["code"], told["errors"][0].get("parameter")
                assert "data" not in told and told["errors"][0]["message"]
            assert stage.service.book.count() == {"queued": 0, "running": 0, "done": 0, "failed": 0}
        return found

    wanted = {number: (400, code, name) for number, (_, code, name) in enumerate(BAD_TASKS)}
    assert asyncio.run(run()) == wanted


def test_bfl_and_openai_refuse_in_their_own_shapes(tmp_path: Path) -> None:
    bfl = [
        {}, {"prompt": ""}, {"prompt": "x", "width": 63}, {"prompt": "x", "height": 5000},
        {"prompt": "x", "safety_tolerance": 6}, {"prompt": "x", "output_format": "gif"},
        {"prompt": "x", "seed": -1}, {"prompt": "x", "steps": 4}, {"prompt": "x", "input_image": "!"},
        {"prompt": "x", "webhook_url": "http://localhost/x"}, {"prompt": "x", "webhook_secret": 5},
    ]  # fmt: skip
    openai = [
        ({}, "prompt"), ({"prompt": "x", "n": 11}, "n"), ({"prompt": "x", "size": "1x1"}, "size"),
        ({"prompt": "x", "style": "vivid"}, "style"), ({"prompt": "x",
        "background": "transparent"}, "background"),
        ({"prompt": "x", "quality": "best"}, "quality"), ({"prompt": "x", "stream": True}, "stream"),
        ({"prompt": "x", "model": "midjourney"}, "model"), ({"prompt": "x",
        "output_compression": 5}, "output_compression"),
    ]  # fmt: skip

    async def run() -> None:
        async with run_service(tmp_path) as stage:
            for body in bfl:
                status, told = await stage.ask("POST", "/bfl/v1/flux-2-klein-4b", body)
                assert status == 422 and told["detail"][0]["loc"][0] == "body", (body, told)
            for body, name in openai:
                status, told = await stage.ask("POST", "/openai/v1/images/generations", body)
                assert status in (400, 404) and told["error"]["param"] == name, (body, told)
                assert told["error"]["type"] == "invalid_request_error" and told["error"]["message"]
            status, told = await stage.ask("POST", "/bfl/v1/flux-pro-1.1", {"prompt": "x"})
            assert (status, told) == (404, {"detail": "Not Found"})
            status, told = await stage.ask("GET", "/bfl/v1/get_result?id=none")
            assert status == 404 and told["status"] == "Task not found"
            for path, body in (("/bfl/v1/flux-2-klein-4b", {"prompt": "x"}), ("/runware/v1", [make_task()])):
                for key in ("", "kleinod-wrong"):
                    status, told = await stage.ask("POST", path, body, key=key)
                    assert status in (401, 403), told
            status, told = await stage.ask("GET", "/openai/v1/models", key="wrong")
            assert status == 401 and told["error"]["code"] == "invalid_api_key"
            assert sum(stage.service.book.count().values()) == 0

    asyncio.run(run())


def test_limits_of_a_key_and_of_the_queue(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path, most_open=6) as stage:
            stage.painter.hold = asyncio.Event()
            few = stage.service.keys.create("few", at_once=2, a_day=2)

            async def send(key: str, count: int) -> tuple[int, Any]:
                task = make_task(deliveryMethod="async", numberResults=count)
                return await stage.ask("POST", "/runware/v1", [task], key=key)

            assert (await send(few, 3))[1]["errors"][0]["code"] == "rateLimitExceeded"
            assert (await send(few, 2))[0] == 200
            status, told = await send(few, 1)
            assert status == 429 and told["errors"][0]["code"] == "rateLimitExceeded"
            assert (await send(stage.key, 5))[0] == 429
            assert (await send(stage.key, 4))[0] == 200
            stage.painter.hold.set()
            while sum(stage.service.book.count()[name] for name in ("queued", "running")):
                await asyncio.sleep(0.01)
            assert (await send(few, 1))[0] == 200
            status, told = await send(few, 1)
            assert status == 402 and told["errors"][0]["code"] == "insufficientCredits"
            stage.service.keys.revoke("few")
            assert (await send(few, 1))[0] == 401

    asyncio.run(run())


SEEDS = (
    b"[]", b"{}", b"null", b"[null]", b'[{"taskType":null}]', b"[[[[", b'"x"', b"NaN", b"[1e999]",
    b"\xff\xfe", b'[{"taskType":"authentication"}]', b'{"prompt":"x","n":1e400}',
    b'{"prompt":"\\ud800"}', b"{" * 5000,
    b"[" * 100000,
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 1e308, 10**30, "", "x", "\ud800", "\x00", "../../x", "http://[",
    "data:image/png;base64,", [], {}, [[]], {"a": {"b": []}}, ["x"] * 5, "http://127.0.0.1:1/x", "a" * 10001,
)  # fmt: skip


def make_body(draw: random.Random) -> tuple[str, bytes]:
    """A path and a body that is broken in some place, or not even JSON."""
    path = draw.choice(
        ("/runware/v1", "/bfl/v1/flux-2-klein-4b", "/openai/v1/images/generations", "/openai/v1/images/edits")
    )
    task: dict[str, Any] = make_task() if path == "/runware/v1" else {"prompt": "a fox"}
    names = [
        *task, "acceleratorOptions", "lora", "inputs", "settings", "safety", "advancedFeatures", "seed",
        "steps", "scheduler", "webhookURL", "input_image", "width", "n", "size", "model", "ttl",
        "\x00", "__proto__",
    ]  # fmt: skip
    for _ in range(draw.randint(1, 3)):
        holder = task
        if draw.random() < 0.3:
            holder = task.setdefault(draw.choice(["inputs", "settings", "safety", "acceleratorOptions"]), {})
            if not isinstance(holder, dict):
                holder = task
        holder[draw.choice([*names, "referenceImages", "mode", "fbCache"])] = draw.choice(VALUES)
    body = json.dumps([task] if path == "/runware/v1" and draw.random() < 0.9 else task).encode()
    kind = draw.random()
    if kind < 0.2:
        body = draw.choice(SEEDS)
    elif kind < 0.4:
        cut = draw.randrange(len(body))
        body = body[:cut] + bytes(draw.randrange(256) for _ in range(draw.randint(0, 5))) + body[cut + 1 :]
    return path, body


def test_two_thousand_broken_bodies_are_each_answered(tmp_path: Path) -> None:
    """Never a 500, never a file outside the store; what happens to be sound is drawn."""
    draw = random.Random(18)

    async def run() -> list[tuple[str, bytes, Answer]]:
        odd = []
        async with run_service(tmp_path / "home") as stage:
            for number in range(2000):
                path, body = make_body(draw)
                more = {"content_type": "multipart/form-data; boundary=X"} if number % 2 else {}
                told = await asyncio.wait_for(stage.answer("POST", path, body, **more), 30)
                if told.status >= 500 or told.status < 200:
                    odd.append((path, body, told))
        return odd

    assert asyncio.run(run()) == []
    assert {file.name for file in tmp_path.iterdir()} == {"home"}
    assert {file.name.split("-")[0] for file in (tmp_path / "home").iterdir()} <= {
        "api.sqlite", "api.lock", "inputs", "results",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
def test_odd_paths_and_methods(tmp_path: Path, method: str) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            for path in (
                "",
                "/",
                "/x",
                "/results/../../api.sqlite",
                "/results/p.x",
                "/bfl/v1/",
                "/openai/v1/x",
            ):
                told = await stage.answer(method, path)
                assert told.status in (200, 404, 405), (method, path, told)

    asyncio.run(run())


def test_who_is_answered() -> None:
    here, open_ = ApiSettings(enabled=True), ApiSettings(enabled=True, remote=True, hosts=("studio.example",))
    assert find_stranger("127.0.0.1", "127.0.0.1:8188", here) == ""
    assert find_stranger("::1", "localhost:8188", here) == ""
    assert find_stranger("192.168.1.9", "192.168.1.2:8188", here)
    assert find_stranger("192.168.1.9", "192.168.1.2:8188", open_) == ""
    assert find_stranger("192.168.1.9", "studio.example", open_) == ""
    assert find_stranger("127.0.0.1", "rebound.example:8188", here)
    assert find_stranger("127.0.0.1", "", here) and find_stranger(None, "[", open_)


def test_settings_that_are_wrong_open_nothing() -> None:
    for values in (
        {"enabled": "yes"},
        {"hosts": "x"},
        {"hosts": ["a b"]},
        {"keep_seconds": -1},
        {"nothing": 1},
        5,
    ):
        with pytest.raises(ValueError):
            make_settings(values)
