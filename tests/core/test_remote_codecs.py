"""Requests are what the documents say, nothing more; answers are understood in every shape they come in."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.base.values import Acceleration, FaceRefinement
from kleinod_pure.remote.images import split_frames
from kleinod_pure.remote.job_request import RunContext
from kleinod_pure.remote.ledger import Job
from kleinod_pure.remote.services import bfl, find_service, runware
from kleinod_pure.remote.services.base import Answer
from kleinod_pure.remote.services.bfl import BflRequest
from kleinod_pure.remote.services.runware import RunwareOptions, RunwareRequest
from kleinod_pure.remote.status import JobStatus

from tests.emulator.runware import Refusal, check

TASK = "4d3a4156-5e5e-45db-b73c-a3200a7446ed"
JOB = replace(Job(*[""] * len(fields(Job))), id=TASK, wanted=1)


@dataclass(frozen=True)
class LoraRows:
    rows: tuple = ({"model": "civitai:1@2", "weight": 0.8},)

    def to_runware(self) -> list:
        return list(self.rows)


@dataclass(frozen=True)
class Pictures:
    images: tuple
    weighing: str = ""


def test_a_plain_request_is_minimal() -> None:
    assert RunwareRequest("a fox", seed=7).to_task() == {
        "taskType": "imageInference",
        "model": "runware:400@5",
        "positivePrompt": "a fox",
        "width": 1024,
        "height": 1024,
        "steps": 28,
        "CFGScale": 3.5,
        "seed": 7,
        "outputFormat": "PNG",
        "deliveryMethod": "async",
        "includeCost": True,
        "acceleration": "high",
    }


def test_a_full_request_carries_every_field_of_the_document() -> None:
    inputs = {
        "positive_prompt": "a fox", "negative_prompt": "blur", "width": 640, "height": 512, "steps": 32,
        "cfg_scale": 4.0, "seed": 5, "number_results": 2, "scheduler": "Euler", "true_cfg_scale": 4.0,
        "output_format": "JPG", "output_quality": 90, "check_content": True, "safety_mode": "fast", "ttl": 60,
        "delivery_method": "sync",
        "acceleration": Acceleration(fb_cache=True, cache_start_step=2, cache_end_step=30),
        "loras": LoraRows(),
        "face_refinement": FaceRefinement(positive_prompt="a face"),
        "references": Pictures((np.zeros((1, 32, 48, 3), np.float32),)),
        "options": RunwareOptions(webhook_url="https://a.example/x", upload_endpoint="https://b.example/y"),
        "images": np.ones((2, 16, 16, 3), np.float32),
        "take": 3,
    }  # fmt: skip
    request = find_service("runware").make_request(RunContext(), inputs)
    task = request.body
    assert set(task) == {
        "taskType",
        "model",
        "positivePrompt",
        "negativePrompt",
        "width",
        "height",
        "steps",
        "CFGScale",
        "seed",
        "numberResults",
        "scheduler",
        "settings",
        "outputFormat",
        "outputQuality",
        "safety",
        "ttl",
        "includeCost",
        "deliveryMethod",
        "acceleration",
        "acceleratorOptions",
        "lora",
        "inputs",
        "advancedFeatures",
        "webhookURL",
        "uploadEndpoint",
    }
    assert len(task["inputs"]["referenceImages"]) == 3
    assert task["advancedFeatures"]["ultralytics"]["maskBlur"] == 5
    assert task["acceleratorOptions"]["fbCache"] is True
    assert task["safety"] == {"checkContent": True, "mode": "fast"}
    check({**task} | {"taskUUID": TASK})
    assert request.wanted == 2 and request.take == 3
    assert "a fox" not in json.dumps(dict(request.summary))


@given(
    st.integers(8, 128),
    st.integers(8, 128),
    st.integers(1, 50),
    st.integers(100, 2000).map(lambda number: number / 100),
    st.integers(0, 2**32 - 1),
    st.integers(1, 20),
    st.sampled_from(runware.SCHEDULERS),
    st.sampled_from(runware.OUTPUT_FORMATS),
    st.sampled_from(runware.OUTPUT_TYPES),
    st.integers(20, 99),
    st.sampled_from([0, 60, 86400]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_we_accept_the_document_accepts(
    w, h, steps, cfg, seed, count, scheduler, form, kind, quality, ttl
):
    request = RunwareRequest(
        "x",
        width=w * 16,
        height=h * 16,
        steps=steps,
        cfg_scale=cfg,
        seed=seed,
        number_results=count,
        scheduler=scheduler,
        output_format=form,
        output_quality=quality,
        ttl=ttl if kind == "URL" else 0,
        options=RunwareOptions(output_type=kind),
    )
    check(request.to_task() | {"taskUUID": TASK})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 1000}, "width is 1000, but must be a multiple of 16: use 992 or 1008"),
        ({"height": 64}, "height is 64, but must be from 128"),
        ({"steps": 51}, "steps"),
        ({"cfg_scale": 0.5}, "cfg_scale"),
        ({"seed": 2**32}, "seed"),
        ({"number_results": 21}, "number_results"),
        ({"output_quality": 19}, "output_quality"),
        ({"ttl": 30}, "ttl"),
        ({"true_cfg_scale": 0.5}, "true_cfg_scale"),
        ({"scheduler": "Foo"}, "scheduler"),
        ({"model": "klein"}, "model"),
        ({"positive_prompt": " "}, "positive_prompt is empty"),
        ({"positive_prompt": "x" * 10001}, "10001 characters"),
        ({"negative_prompt": "x" * 10001}, "negative_prompt"),
        ({"references": ["x"] * 5}, "holds 5 images"),
        ({"loras": [{"model": "", "weight": 1}]}, "without an AIR id"),
        ({"loras": [{"model": "a:b@c", "weight": 5}]}, "weight of LoRA"),
        ({"ttl": 90, "options": RunwareOptions(output_type="dataURI")}, "output_type"),
        (
            {"steps": 10, "accelerator": Acceleration(fb_cache=True, cache_end_step=12).to_runware()},
            "cacheEndStep",
        ),
        (
            {"steps": 10, "accelerator": Acceleration(fb_cache=True, cache_start_step=10).to_runware()},
            "cacheStartStep",
        ),
    ],
)
def test_what_the_document_refuses_is_refused_before_money_is_spent(fields, named) -> None:
    with pytest.raises(ValueError, match=named):
        RunwareRequest(**{"positive_prompt": "a fox"} | fields)


@pytest.mark.parametrize("field", ["webhook_url", "upload_endpoint"])
def test_addresses_must_be_https(field) -> None:
    for bad in (
        "http://a.example",
        "file:///x",
        "https://",
        "javascript:alert(1)",
        "https://user:pw@a.example",
    ):
        with pytest.raises(ValueError, match=field):
            RunwareOptions(**{field: bad})


def test_the_schedulers_are_those_of_the_document(repository: Path) -> None:
    seed = repository.parent / "shared" / "seeds" / "runware-flux2-klein-4b-base.md"
    assert len(runware.SCHEDULERS) == len(set(runware.SCHEDULERS)) == 75
    if seed.is_file():
        line = next(x for x in seed.read_text(encoding="utf-8").splitlines() if "`DPM++ 2M Karras`" in x)
        assert list(runware.SCHEDULERS) == line.split("`")[1::2]


def test_prices_of_the_examples_are_met_roughly() -> None:
    """Four of the five prices in Runware's document; its 1024x768 costs as much as its 1024x1024."""
    cases = (
        (1024, 1024, 28, 0, 0.0019),
        (1024, 640, 28, 0, 0.0013),
        (1280, 720, 28, 3, 0.0090),
        (1152, 768, 32, 3, 0.0109),
    )
    for width, height, steps, references, usd in cases:
        request = RunwareRequest("x", width=width, height=height, steps=steps, references=["r"] * references)
        assert request.estimate_usd() == pytest.approx(usd, rel=0.15)


def test_answers_with_results_errors_and_repetitions() -> None:
    named = {"taskType": "imageInference", "taskUUID": TASK}
    item = named | {"imageUUID": "a", "imageURL": "u", "seed": 1, "cost": 0.0019}
    body = {
        "data": [
            item,
            item,
            {"taskUUID": "someone else's", "imageUUID": "b", "imageURL": "u"},
            named | {"status": "processing", "progress": 40},
        ],
        "errors": [
            named | {"code": "inferenceError", "message": "no"},
            {"code": "x", "taskUUID": "other"},
        ],
    }
    status = runware.read_status(body, TASK)
    assert [image.item_id for image in status.images] == ["a"]
    assert [failure.message for failure in status.failures] == ["no"]
    assert status.known and status.working and status.progress == 0.4
    assert not runware.read_status({"data": []}, TASK).known
    for nonsense in (
        None,
        [],
        "x",
        {"data": None},
        {"data": ["x"]},
        {"errors": "x"},
        {"data": [{"taskUUID": 5}]},
    ):
        assert runware.read_status(nonsense, TASK).images == ()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "conflictTaskUUID", "conflict"),
        (402, "", "balance"),
        (400, "insufficientCredits", "balance"),
        (401, "", "key"),
        (400, "invalidApiKey", "key"),
        (403, "", "permission"),
        (429, "", "busy"),
        (503, "", "busy"),
        (200, "noAvailableServer", "busy"),
        (200, "contentPolicyViolation", "moderated"),
        (400, "unsupportedParameter", "invalid"),
        (400, "invalidWidth", "invalid"),
        (404, "", "gone"),
        (200, "providerContentPolicyViolation", "moderated"),
        (400, "rateLimitExceeded", "busy"),
        (400, "invalidPositivePrompt", "invalid"),
    ],
)
def test_errors_are_sorted_by_family(status, code, kind) -> None:
    assert runware.classify(status, code) == kind


@pytest.mark.parametrize(
    ("told", "worker"),
    [("studio/gpu1/x", "studio/gpu1/x"), (None, ""), (7, ""), ("a\nb", ""), ("x" * 101, "")],
)
def test_an_own_server_may_say_who_drew_a_picture(told, worker) -> None:
    item = {"taskUUID": TASK, "imageUUID": "a", "imageURL": "https://im.runware.ai/a.png", "worker": told}
    (image,) = runware.read_status({"data": [item]}, TASK).images
    assert image.worker == worker


def test_bfl_sends_only_what_is_set() -> None:
    assert BflRequest("a fox").to_body() == {
        "prompt": "a fox",
        "seed": 0,
        "output_format": "png",
        "safety_tolerance": 2,
    }
    frames = [np.full((1, 16 * n, 16, 3), 0.5, np.float32) for n in (1, 2, 3, 4)]
    inputs = {
        "prompt": "x",
        "width": 512,
        "height": 256,
        "webhook_url": "https://a.example/x",
        "references": Pictures(tuple(frames[:2])),
        "input_image_2": frames[2],
        "input_image_4": frames[3],
    }
    request = find_service("bfl").make_request(RunContext(), inputs)
    assert set(request.body) == {
        "prompt",
        "seed",
        "output_format",
        "safety_tolerance",
        "width",
        "height",
        "input_image",
        "input_image_2",
        "input_image_3",
        "input_image_4",
        "webhook_url",
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 48}, "width"),
        ({"width": 100}, "multiple of 16"),
        ({"width": 4096, "height": 4096}, "4 megapixels"),
        ({"safety_tolerance": 6}, "safety_tolerance"),
        ({"prompt": ""}, "prompt"),
        ({"images": ["x"] * 5}, "at most 4"),
        ({"seed": -1}, "seed"),
        ({"webhook_url": "http://x"}, "webhook_url"),
        ({"endpoint": "flux-dev"}, "endpoint"),
    ],
)
def test_bfl_rules_are_checked_first(fields, named) -> None:
    with pytest.raises(ValueError, match=named):
        BflRequest(**{"prompt": "a fox"} | fields)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"message": "no", "retry_after": 3}, "no"),
        ({"detail": [{"loc": ["body", "width"], "msg": "too small", "type": "x"}]}, "width: too small"),
        (None, "text"),
    ],
)
def test_bfl_errors_in_every_shape(body, words) -> None:
    assert bfl.read_error(body, "text") == words


def read_bfl(body: dict) -> JobStatus:
    return find_service("bfl").read_poll(Answer(200, body), replace(JOB, vendor_id="a"))


@pytest.mark.parametrize("status", ["Reasoning", "Generating", "Pending", "Queued for lunch", "pending"])
def test_an_unknown_status_means_still_working(status) -> None:
    found = read_bfl({"id": "a", "status": status, "result": None, "progress": 0.3})
    assert found.working and found.known and not found.failures


def test_bfl_ready_in_any_case_of_letters_and_only_with_a_picture() -> None:
    assert read_bfl({"id": "a", "status": "READY", "result": {"sample": "u"}}).images[0].url == "u"
    assert read_bfl({"id": "a", "status": "Ready", "result": {}}).working


def test_the_emulator_refuses_what_the_document_refuses() -> None:
    """The emulator is worth something only if it is strict."""
    good = RunwareRequest("x").to_task() | {"taskUUID": TASK}
    check(good)
    for bad in (
        {"width": 100},
        {"steps": 0},
        {"surprise": 1},
        {"taskUUID": "x"},
        {"lora": [{"weight": 1}]},
        {"acceleratorOptions": {"fbCache": True, "teaCache": True}},
        {"inputs": {"seedImage": "x"}},
        {"seed": 1.5},
        {"CFGScale": True},
        {"negativePrompt": ""},
    ):
        with pytest.raises(Refusal):
            check(good | bad)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("mismatchedInferenceParameters", "invalid"), ("mismatch", "invalid"),
        ("invalidCredentials", "key"), ("invalidApiKey", "key"), ("insufficientCredits", "balance"),
        ("invalidContentType", "invalid"), ("promptTokensExceeded", "invalid"),
        ("invalidProvider", "invalid"), ("missingServerURL", "invalid"),
        ("contentModerated", "moderated"), ("providerTimeout", "busy"), ("inferenceFailed", "busy"),
        ("conflictTaskUUID", "conflict"), ("modelNotFound", "gone"), ("accountSuspended", "permission"),
    ],
)  # fmt: skip
def test_codes_are_put_into_their_own_class(code: str, kind: str) -> None:
    assert runware.classify(400 if kind != "gone" else 200, code) == kind


@pytest.mark.parametrize(
    ("address", "fine"),
    [
        ("https://example.com/hook?x=1", True), ("", True), ("https://example.com:8443/", True),
        ("https://", False), ("https:///path", False), ("https://user:word@example.com/", False),
        ("https://user@example.com/", False), ("http://example.com", False), ("https://a b.example/", False),
        ("https://example.com/" + "x" * 2064, False), ("https://example.com:99999/", False),
    ],
)  # fmt: skip
def test_addresses_that_a_service_may_call(address: str, fine: bool) -> None:
    makers = [
        lambda: BflRequest("x", webhook_url=address),
        lambda: RunwareOptions(webhook_url=address),
        lambda: RunwareOptions(upload_endpoint=address),
    ]
    for make in makers:
        if fine:
            make()
        else:
            with pytest.raises(ValueError, match="must be an address such as https://"):
                make()


def test_bfls_pictures_are_connected_without_a_gap() -> None:
    picture = np.zeros((1, 64, 64, 3), np.float32)
    service = find_service("bfl")
    with pytest.raises(ValueError, match="with 0 pictures before it, .* take it as input_image"):
        service.make_request(RunContext(), {"prompt": "x", "input_image_3": picture})
    with pytest.raises(ValueError, match="with 2 pictures before it, .* take it as input_image_3"):
        inputs = {"references": Pictures((picture,)), "input_image_2": picture, "input_image_4": picture}
        service.make_request(RunContext(), {"prompt": "x"} | inputs)
    inputs = {"input_image": np.concatenate([picture, picture]), "input_image_3": picture}
    body = service.make_request(RunContext(), {"prompt": "x"} | inputs).body
    assert {"input_image", "input_image_2", "input_image_3"} <= set(body)


def test_webp_from_bfl() -> None:
    assert BflRequest("x", output_format="webp").to_body()["output_format"] == "webp"


@pytest.mark.parametrize("channels", [2, 4])
def test_hidden_colours_of_transparent_pictures_stay_hidden(channels: int) -> None:
    frame = np.zeros((1, 64, 64, channels), np.float32)
    frame[..., :32, 0] = 0.5
    frame[..., :32, -1] = 1.0
    (found,) = split_frames(frame)
    assert found.shape == (64, 64, 3)
    assert (found[:, 32:] == 1).all() and found[0, 0, 0] == 0.5


def test_a_negative_prompt_of_blanks_is_not_sent() -> None:
    assert "negativePrompt" not in RunwareRequest("a fox", " ").to_task()


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [(413, "<html><body>413 Request Entity Too Large</body></html>", "too large (HTTP 413)"),
     (400, "<?xml version='1.0'?><Error/>", "HTTP 400"), (400, "", "HTTP 400"),
     (400, "plainly no", "plainly no")],
)  # fmt: skip
def test_a_page_of_html_is_no_reason(status: int, text: str, words: str) -> None:
    found = find_service("bfl").read_submit(Answer(status, None, text), None).words
    assert words in found and "<" not in found
