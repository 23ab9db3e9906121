"""Runware's JSON into widgets: whole, or refused; what finds no place is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.acceleration.settings import make_acceleration
from kleinod_pure.base.errors import InputError
from kleinod_pure.base.values import FaceRefinement
from kleinod_pure.loras.rows import parse_rows
from kleinod_pure.remote.services import runware
from kleinod_pure.service.runware_json import REMOTE, SAMPLER, Paste, find_request, read_paste

from tests.emulator_raw.runware import SCHEDULERS, check_task

UUID = "4d3a4156-5e5e-45db-b73c-a3200a7446ed"
PNG = b"\x89PNG\r\n\x1a\n and so on"
DATA_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
ADDRESS = "https://assets.runware.ai/assets/inputs/cfa98149-a68b-4386-b745-6c8c1c1fac4a.jpg"
# As the four examples of Runware's document: text to image, and image to image with three references.
EXAMPLE = {
    "taskType": "imageInference", "taskUUID": UUID, "model": "runware:400@5",
    "positivePrompt": "A windmill {library}, see https://a.example // reeds", "negativePrompt": "blurry",
    "width": 1024, "height": 768, "seed": 32975, "steps": 32, "CFGScale": 3.5,
    "settings": {"trueCFGScale": 4},
}  # fmt: skip
EXAMPLES = [EXAMPLE, EXAMPLE | {"inputs": {"referenceImages": [ADDRESS, UUID, ADDRESS + "?a=1"]}}]


def rebuild(paste: Paste) -> dict[str, Any]:
    """What Klein Runware would send with these widgets."""
    own = dict(paste.own)
    pictures = [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in paste.pictures]
    faces = {name: value for name, value in (paste.faces or {}).items() if name != "preset"}
    return runware.RunwareRequest(
        references=runware.order_references(pictures, own.pop("reference_addresses")),
        accelerator=paste.acceleration and make_acceleration(**paste.acceleration).to_runware(),
        loras=parse_rows(paste.rows or "").to_runware(),
        ultralytics=FaceRefinement(**faces).to_runware() if paste.faces else None,
        options=runware.RunwareOptions(**paste.options),
        **own,
    ).to_task()


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = {f"{name}.{key}" if name else key: inner for key, inner in value.items()}
    elif isinstance(value, list):
        items = {f"{name}[{index}]": inner for index, inner in enumerate(value)}
    else:
        return {name: value}
    return {key: leaf for path, inner in items.items() for key, leaf in flatten(inner, path).items()}


@pytest.mark.parametrize("request_", EXAMPLES, ids=["text to image", "image to image"])
@pytest.mark.parametrize("form", ["task", "list", "tasks", "data"])
def test_the_documents_examples_come_back_whole(request_: dict, form: str) -> None:
    forms = {
        "task": request_,
        "list": [request_],
        "tasks": {"tasks": [request_]},
        "data": {"data": [request_]},
    }
    paste = read_paste(json.dumps(forms[form]), REMOTE)
    assert rebuild(paste) | {"taskUUID": UUID} == rebuild(paste) | request_
    assert paste.notes == ("taskUUID was not taken: every job has its own.",)


_HUNDREDTHS = st.integers(0, 100).map(lambda number: number / 100)
_PROMPTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter(str.strip)
_WINDOW = st.sampled_from(
    [{}, {"cacheStartStep": 0}, {"cacheEndStep": 1}, {"cacheStartStepPercentage": 10},
     {"cacheStartStepPercentage": 0, "cacheEndStepPercentage": 100}]
)  # fmt: skip
_METHOD = st.sampled_from(
    [{}, {"fbCache": True, "fbCacheThreshold": 0.4}, {"teaCache": True, "teaCacheDistance": 0.1},
     {"dbCache": True, "dbCacheThreshold": 0.9, "dbCacheSkipInterval": 3}, {"dbCache": False}]
)  # fmt: skip
_REQUESTS = st.fixed_dictionaries(
    {
        "taskType": st.just("imageInference"),
        "taskUUID": st.just(UUID),
        "model": st.just("runware:400@5"),
        "positivePrompt": _PROMPTS,
        "width": st.integers(8, 128).map(lambda number: 16 * number),
        "height": st.integers(8, 128).map(lambda number: 16 * number),
        "seed": st.integers(0, 9223372036854776000),
    },
    optional={
        "negativePrompt": _PROMPTS,
        "steps": st.integers(1, 50),
        "CFGScale": st.integers(100, 2000).map(lambda number: number / 100),
        "settings": st.just({"trueCFGScale": 2.5}),
        "numberResults": st.integers(1, 20),
        "scheduler": st.sampled_from([name.strip() for name in SCHEDULERS.replace("\n", " ").split(",")]),
        "outputType": st.sampled_from(["URL", "base64Data", "dataURI"]),
        "outputFormat": st.sampled_from(["JPG", "PNG", "WEBP"]),
        "outputQuality": st.integers(20, 99),
        "webhookURL": st.just("https://a.example/hook"),
        "uploadEndpoint": st.just("https://b.example/put?X-Amz-Signature=abc"),
        "deliveryMethod": st.sampled_from(["sync", "async"]),
        "safety": st.fixed_dictionaries(
            {}, optional={"checkContent": st.booleans(), "mode": st.sampled_from(["none", "fast"])}
        ),
        "includeCost": st.booleans(),
        "acceleration": st.sampled_from(["none", "low", "medium", "high"]),
        "acceleratorOptions": st.builds(lambda *parts: {**parts[0], **parts[1]}, _WINDOW, _METHOD),
        "inputs": st.fixed_dictionaries(
            {"referenceImages": st.lists(st.sampled_from([ADDRESS, UUID, DATA_URI]), max_size=4)}
        ),
        "lora": st.lists(
            st.fixed_dictionaries(
                {"model": st.sampled_from(["civitai:1@2", "a:b@3"])},
                optional={
                    "weight": st.integers(-400, 400).map(lambda number: number / 100).filter(bool),
                    "transformer": st.sampled_from(["high", "low", "both"]),
                },
            ),
            max_size=3,
        ),
        "advancedFeatures": st.fixed_dictionaries(
            {
                "ultralytics": st.fixed_dictionaries(
                    {},
                    optional={
                        "confidence": _HUNDREDTHS,
                        "maskPadding": st.integers(0, 20),
                        "maskBlur": st.integers(0, 100),
                        "strength": _HUNDREDTHS,
                        "steps": st.integers(1, 100),
                        "CFGScale": st.integers(0, 500).map(lambda number: number / 10),
                        "positivePrompt": _PROMPTS,
                        "negativePrompt": _PROMPTS,
                    },
                )
            }
        ),
        "somethingNew": st.just({"inner": {"deep": 1}}),
    },
)
# What a request may say and a node need not: Runware's own default.
_SILENT = {
    "numberResults": 1, "scheduler": "Default", "outputType": "URL", "includeCost": False,
    "safety.checkContent": False, "safety.mode": "none", "acceleratorOptions.dbCache": False,
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_REQUESTS)
def test_every_field_is_sent_again_or_named(request: dict[str, Any]) -> None:
    paste = read_paste(json.dumps(request), REMOTE)
    task, told = flatten(rebuild(paste)), " ".join(paste.notes)
    check_task({**rebuild(paste), "taskUUID": UUID} | {"scheduler": request.get("scheduler", "Default")})
    for name, value in flatten(request).items():
        if name == "scheduler" and value == "Euler DiscreteScheduler":
            assert task[name] == "EulerDiscreteScheduler"  # as Runware's own client writes it
        elif name.endswith("transformer") and value == "both":
            assert name not in task
        elif name == "outputQuality" and task["outputFormat"] == "PNG":
            assert paste.own["output_quality"] == value
        elif name not in task or task[name] != value:
            assert name in told or _SILENT.get(name) == value, f"{name} went missing"
    assert "somethingNew.inner.deep" in told or "somethingNew" not in request


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"CFGScale": 99}, "CFGScale is 99, but must be from 1 to 20"),
        ({"CFGScale": 3.505}, "cfg_scale is 3.505, but must be in steps of 0.01: use 3.5 or 3.51"),
        ({"width": 1000}, "width is 1000, but must be a multiple of 16"),
        ({"steps": "28"}, 'steps is "28", but must be a whole number'),
        ({"steps": True}, "steps is true, but must be a whole number"),
        ({"positivePrompt": 7}, "positivePrompt is 7, but must be a text"),
        ({"seed": 9223372036854776001}, "large_seed is '9223372036854776001'"),
        ({"seed": -1}, "seed is -1, but must be from 0"),
        ({"scheduler": "Nobody"}, "scheduler is 'Nobody', but must be one of"),
        ({"lora": {"model": "a:b@1"}}, "lora must be a list of objects"),
        ({"lora": ["a:b@1"]}, "lora must be a list of objects"),
        ({"lora": [{"weight": 1}]}, r"lora\[0\].model is missing"),
        ({"lora": [{"model": "a:b@1", "weight": 5}]}, "must be from -4 to 4"),
        ({"inputs": {"referenceImages": "x"}}, "inputs.referenceImages must be a list of texts"),
        ({"inputs": {"referenceImages": [ADDRESS, "no picture"]}}, r"referenceImages\[1\] is 'no picture'"),
        ({"inputs": {"referenceImages": [ADDRESS] * 5}}, "holds 5 pictures, and Runware takes at most 4"),
        ({"acceleratorOptions": "fbCache"}, "acceleratorOptions must be an object"),
        ({"acceleratorOptions": {"fbCache": True, "teaCache": True}}, r"fbCache \+ teaCache are switched on"),
        (
            {"acceleratorOptions": {"cacheStartStep": 20, "cacheEndStepPercentage": 10}},
            "starts its cache at step 20 .* must come before its end, 10% of 32 steps",
        ),
        ({"advancedFeatures": {"ultralytics": {"steps": 101}}}, "ultralytics.steps is 101"),
        ({"webhookURL": "http://a.example"}, "webhook_url is 'http://a.example', but must be an address"),
        ({"ttl": 5}, "ttl is 5, but must be 0"),
    ],
)
def test_what_may_not_be_sent_is_refused_with_a_sentence(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_paste(json.dumps(EXAMPLE | changes), REMOTE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "no Runware"), ("7", "no Runware"),
        ('{"taskType": "ping"}', "no Runware imageInference request"),
    ],
)  # fmt: skip
def test_nonsense_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_paste(text, REMOTE)


def test_what_finds_no_place_is_named_down_to_its_last_part() -> None:
    odd = {
        "acceleratorOptions": {"fbcache": True, "cacheDistance": 0.3, "fbCache": True},
        "settings": {"trueCFGScale": 2, "other": 1}, "advancedFeatures": {"hiresFix": {"steps": 4}},
        "inputs": {"seedImage": "x", "referenceImages": [ADDRESS]}, "user": "me", "empty": {}, "none": None,
        "lora": [{"model": "a:b@1", "clip": 1}],
    }  # fmt: skip
    told = " ".join(read_paste(json.dumps(EXAMPLE | odd), REMOTE).notes)
    for name in (
        "acceleratorOptions.fbcache", "acceleratorOptions.cacheDistance", "settings.other", "empty",
        "advancedFeatures.hiresFix.steps", "user", "inputs.seedImage", "lora[0].clip",
    ):  # fmt: skip
        assert name in told
    for name in ("trueCFGScale", "referenceImages", "none", "lora[0].model", "fbCache,"):
        assert name not in told


def test_what_is_left_open_is_runwares_default_not_the_nodes_last_value() -> None:
    paste = read_paste('{"positivePrompt": "a fox", "width": 512, "height": 512}', REMOTE)
    assert (paste.own["steps"], paste.own["cfg_scale"], paste.own["number_results"]) == (28, 3.5, 1)
    assert (paste.own["negative_prompt"], paste.own["scheduler"], paste.own["ttl"]) == ("", "Default", 0)
    assert paste.own["acceleration_level"] == "high" and paste.own["reference_addresses"] == ""
    assert (paste.acceleration, paste.rows, paste.faces, paste.needs_options) == (None, None, None, False)
    assert "seed" not in paste.own and "The request has no seed: the node's own stays." in paste.notes


def test_pictures_and_addresses_keep_their_order() -> None:
    mixed = [ADDRESS, DATA_URI, UUID, base64.b64encode(PNG + b"2").decode()]
    paste = read_paste(json.dumps(EXAMPLE | {"inputs": {"referenceImages": mixed}}), REMOTE)
    assert paste.pictures == (PNG, PNG + b"2")
    assert paste.own["reference_addresses"] == f"{ADDRESS}\npicture 1\n{UUID}\npicture 2"
    alone = read_paste(json.dumps(EXAMPLE | {"inputs": {"referenceImages": [DATA_URI]}}), REMOTE)
    assert alone.own["reference_addresses"] == "" and alone.pictures == (PNG,)


def test_only_the_first_of_several_requests_is_taken_and_that_is_said() -> None:
    task, notes = find_request(json.dumps([{"taskType": "authentication"}, EXAMPLE, EXAMPLE]))
    assert task == EXAMPLE and notes == ["The text holds 2 requests; the first was taken."]


def test_the_sampler_takes_what_exists_here_and_names_the_rest() -> None:
    far = {
        "outputFormat": "JPG", "ttl": 60, "webhookURL": "https://a.example", "safety": {"mode": "fast"},
        "lora": [{"model": "a:b@1"}], "advancedFeatures": {"ultralytics": {"steps": 4, "odd": 1}},
        "inputs": {"referenceImages": [ADDRESS, DATA_URI]}, "seed": 2**40, "CFGScale": 7,
    }  # fmt: skip
    paste = read_paste(json.dumps(EXAMPLE | far), SAMPLER)
    assert paste.own == {
        "width": 1024, "height": 768, "steps": 32, "scheduler": "Default", "guidance": 4, "results": 1,
        "acceleration": "high",
    }  # fmt: skip
    assert paste.prompt == {"positive": EXAMPLE["positivePrompt"], "negative": "blurry"}
    assert paste.pictures == (PNG,)
    told = " ".join(paste.notes)
    for words in (
        "outputFormat", "ttl", "webhookURL", "safety.mode", "CFGScale", f"seed {2**40} was not taken",
        "Reference pictures given by their address: 1.", "LoRAs by AIR id", "Face settings were left out",
        "advancedFeatures.ultralytics.odd",
    ):  # fmt: skip
        assert words in told
