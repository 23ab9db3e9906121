"""Copy as Runware JSON: what a graph's node would send, read from the prompt that the page would queue."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
from kleinod.nodes.base.errors import InputError
from kleinod.nodes.service.graph_values import copy_request
from kleinod.nodes.service.runware_json import REMOTE, read_paste
from kleinod.nodes.service.session import keep_picture
from PIL import Image

RUNWARE = {
    "positive_prompt": "a fox", "negative_prompt": "", "width": 512, "height": 256, "steps": 28,
    "cfg_scale": 3.5, "seed": 7, "number_results": 1,
}  # fmt: skip
SAMPLER = {
    "model": ["loader", 0], "positive": ["prompt", 0], "negative": ["prompt", 1], "vae": ["loader", 2],
    "width": 512, "height": 256, "steps": 20, "guidance": 4.0, "seed": 7, "scheduler": "Default",
    "results": 2, "acceleration": "low",
}  # fmt: skip
REFERENCES = {
    "size": "native", "megapixels": 1.0, "match_image": 1, "background": "white",
    "mask_use": "hide the rest",
}  # fmt: skip
STACK = {
    "rows": "style.safetensors 0.5 air=a:b@1\noff.safetensors 1 off", "lora": "none", "weight": 1.0,
    "stage": "both", "missing_files": "stop with an error", "stage_boundary": "share of steps",
    "boundary_at": 0.5, "apply": "into the weights",
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[list[str]]:
    """Names of two pictures in ComfyUI's input folder."""
    before = folder_paths.get_input_directory()
    folder_paths.set_input_directory(str(tmp_path))
    Image.new("RGB", (96, 64), (200, 100, 50)).save(tmp_path / "one.png")
    Image.new("RGB", (80, 80), (10, 20, 30)).save(tmp_path / "two.png")
    yield ["one.png", "two.png"]
    folder_paths.set_input_directory(before)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def copy(graph: dict[str, Any], name: str = "it") -> tuple[dict[str, Any], list[str]]:
    made = copy_request(graph, name)
    return json.loads(made.text), made.notes


def read_colour(reference: str) -> tuple[tuple[int, int], tuple[int, ...]]:
    picture = Image.open(io.BytesIO(base64.b64decode(reference.partition(",")[2])))
    return picture.size, tuple(np.asarray(picture)[0, 0])


def test_everything_on_the_wires_is_in_the_request(pictures: list[str]) -> None:
    graph = {
        "one": node("LoadImage", image=pictures[0]),
        "two": node("LoadImage", image=pictures[1]),
        "refs": node("KleinodReferences", **REFERENCES, **{"images.image_1": ["one", 0]}),
        "acc": node("KleinodAcceleration", acceleration="low", fb_cache=True, fb_cache_threshold=0.4),
        "loras": node("KleinodLoraStack", **STACK),
        "options": node(
            "KleinodRunwareOptions", profile="work", price_check="off", output_type="dataURI",
            webhook_url="https://a.example/x", upload_endpoint="",
        ),
        "width": node("PrimitiveInt", value=640),
        "it": node(
            "KleinodRunware", **RUNWARE | {"width": ["width", 0]}, references=["refs", 0], images=["two", 0],
            acceleration=["acc", 0], loras=["loras", 1], options=["options", 0],
            reference_addresses="picture 2\nhttps://a.example/x.png", large_seed=str(2**40),
        ),
    }  # fmt: skip
    task, notes = copy(graph)
    references = task["inputs"].pop("referenceImages")
    assert read_colour(references[0]) == ((96, 64), (200, 100, 50))
    assert read_colour(references[1]) == ((80, 80), (10, 20, 30))
    assert references[2:] == ["https://a.example/x.png"]
    assert (task["width"], task["seed"], task["acceleration"]) == (640, 2**40, "low")
    assert task["acceleratorOptions"]["fbCacheThreshold"] == 0.4
    assert task["lora"] == [{"model": "a:b@1", "weight": 0.5}]
    assert (task["outputType"], task["webhookURL"]) == ("dataURI", "https://a.example/x")
    assert "work" not in json.dumps(task) and notes == []


def test_weights_of_references_are_named(pictures: list[str]) -> None:
    refs = node("KleinodReferences", **REFERENCES, **{"images.image_1": ["one", 0]}, weights="0.5")
    graph = {
        "one": node("LoadImage", image=pictures[0]),
        "refs": refs,
        "it": node("KleinodRunware", **RUNWARE, references=["refs", 0]),
    }
    task, notes = copy(graph)
    assert read_colour(task["inputs"]["referenceImages"][0]) == ((96, 64), (200, 100, 50))
    assert len(notes) == 1 and "image 1 (weight 0.5)" in notes[0]


def test_what_only_a_run_can_tell_is_named() -> None:
    graph = {
        "made": node("VAEDecode", samples=["x", 0], vae=["y", 0]),
        "it": node("KleinodRunware", **RUNWARE, images=["made", 0]),
    }
    task, notes = copy(graph)
    assert "inputs" not in task
    assert notes == ["images comes from VAEDecode, which only a run can tell, and was left out."]
    with pytest.raises(InputError, match="width is known only after a run"):
        copy({"made": graph["made"], "it": node("KleinodRunware", **RUNWARE | {"width": ["made", 0]})})


def test_what_would_be_refused_is_refused_with_the_same_sentence() -> None:
    graph = {
        "loras": node("KleinodLoraStack", **STACK | {"rows": "local.safetensors"}),
        "it": node("KleinodRunware", **RUNWARE, loras=["loras", 1]),
    }
    with pytest.raises(InputError, match="has no AIR id"):
        copy(graph)
    with pytest.raises(InputError, match="feeds a node from itself"):
        own = node("KleinodLoraStack", **STACK, loras=["own", 1])
        copy({"it": node("KleinodRunware", **RUNWARE, loras=["own", 1]), "own": own})
    for wrong in ({}, {"it": {}}, {"it": node("KSampler")}, {"it": {"class_type": REMOTE, "inputs": []}}):
        with pytest.raises(InputError, match="copied from Klein Sampler or Klein Runware"):
            copy(wrong)


def test_a_sampler_says_it_in_runwares_words(pictures: list[str]) -> None:
    graph = {
        "one": node("LoadImage", image=pictures[0]),
        "refs": node("KleinodReferences", **REFERENCES, **{"images.image_1": ["one", 0]}),
        "prompt": node(
            "KleinodPrompt", clip=["x", 0], positive="a {fox}", negative="blur", references=["refs", 0]
        ),
        "first": node("KleinodLoraStack", **STACK, model=["loader", 0]),
        "loras": node("KleinodLoraStack", **STACK | {"rows": "b 1 air=c:d@2\nlocal 2"}, model=["first", 0]),
        "it": node("KleinodSampler", **SAMPLER | {"model": ["loras", 0], "scheduler": "Kleinod Fast"}),
    }
    task, notes = copy(graph)
    assert (task["positivePrompt"], task["negativePrompt"], task["numberResults"]) == ("a {fox}", "blur", 2)
    assert (task["settings"], task["steps"], task["acceleration"]) == ({"trueCFGScale": 4.0}, 20, "low")
    assert [row["model"] for row in task["lora"]] == ["a:b@1", "c:d@2"]
    assert read_colour(task["inputs"]["referenceImages"][0])[0] == (96, 64)
    assert len(notes) == 2 and "Kleinod Fast" in notes[0] and "LoRA 'local' has no AIR id" in notes[1]


def test_a_pasted_picture_becomes_a_file_that_is_copied_again(pictures: list[str]) -> None:
    file = Path(folder_paths.get_input_directory()) / pictures[0]
    uri = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    request = {"positivePrompt": "x", "width": 512, "height": 512, "inputs": {"referenceImages": [uri]}}
    (data,) = read_paste(json.dumps(request), REMOTE).pictures
    name = keep_picture(data, 1)
    assert name == keep_picture(data, 1) and (file.parent / name).read_bytes() == data
    graph = {
        "load": node("LoadImage", image=name),
        "it": node("KleinodRunware", **RUNWARE, images=["load", 0]),
    }
    (again,) = copy(graph)[0]["inputs"]["referenceImages"]
    assert read_colour(again) == read_colour(uri)
    for wrong in (b"", b"<svg/>", b"\x89PNG\r\n\x1a\n broken", b"GIF89a"):
        with pytest.raises(InputError, match=r"inputs.referenceImages\[2\] is no PNG, JPEG or WebP"):
            keep_picture(wrong, 3)
