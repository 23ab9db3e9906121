"""Klein References by API prompts in the real ComfyUI: sockets, lists, errors, local and remote use."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
from PIL import Image

from tools.launch.client import WorkflowError
from tools.launch.server import Server

pytestmark = pytest.mark.server

REFERENCES = {
    "size": "auto",
    "megapixels": 1.0,
    "match_image": 1,
    "background": "white",
    "mask_use": "hide the rest",
}


def flat(width: int, height: int, colour: int, count: int = 1) -> dict:
    return {
        "class_type": "EmptyImage",
        "inputs": {"width": width, "height": height, "batch_size": count, "color": colour},
    }


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}


def refer(*sources: str, **more: object) -> dict:
    sockets = {f"images.image_{n}": [source, 0] for n, source in enumerate(sources, start=1)}
    return node("KleinodReferences", **{**REFERENCES, **sockets, **more})


def info_of(server: Server, prompt: dict, output: int = 4) -> str:
    result = server.client.run({**prompt, "info": node("PreviewAny", source=["refs", output])})
    return result.outputs["info"]["text"][0]


def test_sockets_batches_and_lists_in_order(comfy_server: Server) -> None:
    """A batch of two, then a list of two different sizes made by core nodes, then one more."""
    prompt = {
        "a": flat(160, 128, 1, count=2),
        "b": flat(128, 128, 2),
        "c": flat(208, 176, 3),
        "list": node("CreateList", **{"inputs.input0": ["b", 0], "inputs.input1": ["c", 0]}),
        "d": flat(64, 64, 4),
        "refs": refer("a", "list", "d"),
    }
    lines = info_of(comfy_server, prompt).splitlines()
    assert [line.split(" used")[0] for line in lines[:5]] == [
        "image 1: 160x128",
        "image 2: 160x128",
        "image 3: 128x128",
        "image 4: 208x176",
        "image 5: 64x64",
    ]
    assert any("5 references" in line for line in lines)


def test_the_page_gets_the_sheet_and_other_nodes_the_size(comfy_server: Server) -> None:
    prompt = {"a": flat(300, 200, 7), "b": flat(128, 96, 8), "refs": refer("a", "b", match_image=2)}
    result = comfy_server.client.run(
        {**prompt, "w": node("PreviewAny", source=["refs", 1]), "h": node("PreviewAny", source=["refs", 2])}
    )
    assert (result.outputs["w"]["text"][0], result.outputs["h"]["text"][0]) == ("128", "96")
    (shown,) = result.outputs["refs"]["images"]
    sheet = np.asarray(Image.open(io.BytesIO(comfy_server.client.fetch_image(shown))))
    assert sheet.shape[1] > 600 and sheet.std() > 10


def test_a_mask_for_the_second_image_alone(comfy_server: Server) -> None:
    prompt = {
        "a": flat(128, 128, 7),
        "m": node("SolidMask", value=1.0, width=128, height=128),
        "refs": refer("a", "a", **{"masks.mask_2": ["m", 0], "mask_use": "crop"}),
    }
    first, second, *_ = info_of(comfy_server, prompt).splitlines()
    assert "mask" not in first and "cut to its mask" in second


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images.image_1": None}, "Required input is missing: image_1"),
        ({"match_image": 3}, "match_image is 3, but there are 2 images"),
        ({"images.image_2": ["thin", 0]}, "image_2 is 1024x64: one side is over 8 times"),
        ({"size": "larger"}, "size"),
        ({"masks.mask_3": ["m", 0]}, "mask_3 is connected, but image_3 is not"),
    ],
)
def test_mistakes_are_sentences(comfy_server: Server, change: dict, words: str) -> None:
    prompt = {
        "a": flat(128, 128, 7),
        "thin": flat(1024, 64, 7),
        "m": node("SolidMask", value=1.0, width=128, height=128),
        "refs": refer("a", "a"),
    }
    prompt = copy.deepcopy(prompt)
    prompt["refs"]["inputs"].update(change)
    prompt["refs"]["inputs"] = {k: v for k, v in prompt["refs"]["inputs"].items() if v is not None}
    with pytest.raises(WorkflowError) as failure:
        info_of(comfy_server, prompt)
    assert failure.value.node_type == "KleinodReferences"
    assert words in str(failure.value)


@pytest.mark.parametrize(
    "remote",
    [
        node(
            "KleinodRunware",
            positive_prompt="image 1 beside image 2",
            negative_prompt="",
            width=256,
            height=192,
            steps=28,
            cfg_scale=3.5,
            seed=11,
            number_results=1,
        ),
        node(
            "KleinodBFL",
            prompt="image 1 beside image 2",
            width=256,
            height=192,
            seed=11,
            endpoint="flux-2-klein-4b",
            safety_tolerance=2,
        ),
    ],
    ids=["runware", "bfl"],
)
def test_remote_only_needs_no_vae(comfy_server: Server, remote: dict) -> None:
    """References straight into a remote node; no loader stands in the graph at all."""
    remote["inputs"]["references"] = ["refs", 0]
    prompt = {
        "a": flat(160, 128, 7),
        "refs": refer("a", "a"),
        "remote": remote,
        "save": node("SaveImage", images=["remote", 0], filename_prefix="references"),
    }
    result = comfy_server.client.run(prompt)
    assert [image["type"] for image in result.outputs["save"]["images"]] == ["output"]
