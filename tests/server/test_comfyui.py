"""The pack inside the real ComfyUI: what it registers, and how its workflows run over HTTP and websocket."""

from __future__ import annotations

import copy
import io
import json
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.emulator.pictures import draw_pattern
from tools.launch import LaunchError
from tools.launch.client import RunResult, StepProgress, WorkflowError, WorkflowInterrupted, load_prompt
from tools.launch.environment import Environment
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER, ORDER
from tools.shipped.recipes import fill_defaults
from tools.shipped.thumbnails import compose, draw_locally, encode, fetch_saved

pytestmark = pytest.mark.server

TEXT_TO_IMAGE = "Klein - Text to Image"
SHOWN = {"SaveImage": "images", "PreviewImage": "images", "PreviewAny": "text"}
REMOTE = ("Klein - Runware", "Klein - BFL", "Klein - Your Other Machine")
WORKFLOWS = API_FOLDER.parent
# Of steps as short as those of the small pictures, many pass before a Stop has come to a busy server.
LONG_STEPS = {"width": 384, "height": 384}


def load(name: str) -> dict:
    return load_prompt(API_FOLDER / f"{name}.json")


def sampler_of(prompt: dict) -> dict:
    return next(node for node in prompt.values() if node["class_type"] == "KleinodSampler")["inputs"]


def pixels(server: Server, image: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(server.client.fetch_image(image))).convert("RGB"))


def saved_pixels(server: Server, result: RunResult) -> list[np.ndarray]:
    """What Save Image wrote; a sampler of several results shows them, too."""
    return [pixels(server, image) for image in result.images() if image["type"] == "output"]


def run_for_pixels(server: Server, prompt: dict) -> list[np.ndarray]:
    return saved_pixels(server, server.client.run(prompt))


def forget_everything(server: Server) -> None:
    """Empty ComfyUI's result cache and unload the models, so that the next run does the work again."""
    server.client.post_json("/free", {"unload_models": True, "free_memory": True})


def test_another_comfyui_on_the_port_is_not_taken_for_the_one_started(
    comfy_server: Server, comfy_environment: Environment, tmp_path: Path
) -> None:
    log = tmp_path / "second.log"
    with (
        Server(comfy_environment, port=comfy_server.port, pack=None, log=log, device="cpu") as second,
        pytest.raises(LaunchError, match="ended while starting"),
    ):
        second.start()
    assert comfy_server.client.get_json("/queue")


def test_every_node_is_registered(comfy_server: Server) -> None:
    from kleinod.nodes import NODES

    known = comfy_server.client.get_json("/object_info")
    assert {node.__name__ for node in NODES} <= set(known)
    assert all(known[node.__name__]["python_module"] == "custom_nodes.kleinod" for node in NODES)


def test_the_start_has_no_complaint_about_the_pack(comfy_server: Server) -> None:
    # Later lines belong to other tests, some of which break workflows on purpose.
    start, ready, _ = comfy_server.read_log().partition("To see the GUI go to")
    assert ready
    lines = start.splitlines()
    assert not [line for line in lines if "IMPORT FAILED" in line]
    assert not [
        line for line in lines if "kleinod" in line.lower() and ("ERROR" in line or "WARNING" in line)
    ]


def test_templates_are_listed_with_thumbnails(comfy_server: Server) -> None:
    assert set(comfy_server.client.get_json("/workflow_templates")["kleinod"]) == set(ORDER)
    for name in ORDER:
        path = "/api/workflow_templates/kleinod/" + urllib.parse.quote(name)
        for ending in (".json", ".jpg"):
            assert comfy_server.client.get(path + ending) == (WORKFLOWS / f"{name}{ending}").read_bytes()


def test_translations_are_served(comfy_server: Server) -> None:
    assert isinstance(comfy_server.client.get_json("/i18n"), dict)


@pytest.mark.parametrize("name", ORDER)
def test_shipped_workflow_runs_and_made_its_thumbnail(comfy_server: Server, name: str) -> None:
    prompt = load(name)
    steps: list[StepProgress] = []
    result = comfy_server.client.run(prompt, steps.append)
    prompt = with_values(prompt)
    for number, node in prompt.items():
        shown = SHOWN.get(node["class_type"])
        if shown:
            assert result.outputs[number][shown], f"node {number} shows nothing"
            assert all(entry for entry in result.outputs[number][shown])
    pictures = fetch_saved(comfy_server.client, prompt, result.outputs)
    assert len(pictures) >= sum(node["class_type"] == "SaveImage" for node in prompt.values())
    assert all(np.asarray(picture).std() > 10 for picture in pictures), "an empty picture"
    samplers = [node["inputs"] for node in prompt.values() if node["class_type"] == "KleinodSampler"]
    if samplers:
        scalers = [
            node["inputs"] for node in prompt.values() if node["class_type"] in ("ImageScale", "ImageCrop")
        ]
        sizes = {(made["width"], made["height"]) for made in (*samplers, *scalers)}
        assert {picture.size for picture in pictures} <= sizes
        assert any(step.total > 1 for step in steps), "no step was shown while it ran"
    if name in REMOTE:
        # The emulator draws patterns here, klein-nano where thumbnails are made; the requests are the same.
        wanted = [draw_pattern(*request) for request in remote_requests(prompt)]
        assert all(np.array_equal(a, b) for a, b in zip(pictures, wanted, strict=True))
    else:
        check_thumbnail(name, pictures)


@pytest.mark.parametrize("name", REMOTE)
def test_thumbnails_of_remote_workflows_are_what_klein_nano_draws_for_them(
    comfy_server: Server, name: str
) -> None:
    prompt = fill_defaults(comfy_server.client, draw_locally(load(name)))
    check_thumbnail(name, fetch_saved(comfy_server.client, prompt, comfy_server.client.run(prompt).outputs))


def with_values(prompt: dict) -> dict:
    """The prompt with the values of its primitives in the place of links to them."""
    primitives = {number: node["inputs"]["value"] for number, node in prompt.items() if is_primitive(node)}

    def resolve(value: object) -> object:
        return primitives.get(value[0], value) if isinstance(value, list) else value

    return {
        number: {**node, "inputs": {name: resolve(value) for name, value in node["inputs"].items()}}
        for number, node in prompt.items()
    }


def is_primitive(node: dict) -> bool:
    return node["class_type"].startswith("Primitive")


def remote_requests(prompt: dict) -> list[tuple[str, int, int, int]]:
    """What the service is asked to paint: prompt, width, height, seed."""
    (node,) = (
        node["inputs"] for node in prompt.values() if node["class_type"] in ("KleinodRunware", "KleinodBFL")
    )
    words = node.get("positive_prompt", node.get("prompt"))
    count = node.get("number_results", 1)
    return [(words, node["width"], node["height"], node["seed"] + index) for index in range(count)]


def check_thumbnail(name: str, pictures: list[Image.Image]) -> None:
    """A template's card shows what Run gives: other seeds are 14 to 22 dB away, the same 45 or more."""
    made = np.asarray(Image.open(io.BytesIO(encode(compose(pictures)))), np.float64)
    shown = np.asarray(Image.open(WORKFLOWS / f"{name}.jpg"), np.float64)
    assert made.shape == shown.shape
    error = ((made - shown) ** 2).mean()
    likeness = 10 * np.log10(255**2 / max(error, 1e-9))
    assert likeness > 35, f"{likeness:.1f} dB: python -m tools.shipped.thumbnails {name!r} makes it again"


def test_progress_counts_every_step_and_previews_come(comfy_server: Server) -> None:
    forget_everything(comfy_server)
    prompt = load(TEXT_TO_IMAGE)
    sampler_of(prompt).update(steps=12, results=2)
    number = next(number for number, node in prompt.items() if node["class_type"] == "KleinodSampler")
    steps: list[StepProgress] = []
    result = comfy_server.client.run(prompt, steps.append)
    values = [step.value for step in steps if step.node_id == number]
    assert values == sorted(values)
    assert max(values) == next(step.total for step in steps if step.node_id == number)
    assert result.previews == 2 * 12 + 2, "each step, and each picture when it is done"
    sampler_of(prompt).update(steps=2, results=1, width=256, height=256)
    assert comfy_server.client.run(prompt).previews == 2
    sampler_of(prompt).update(width=128, height=128)
    assert comfy_server.client.run(prompt).previews == 0, "done before one looks"


def test_no_previews_where_the_user_wants_none(comfy_server: Server) -> None:
    """The page sends its setting along with the prompt, and what goes into the files: each picture's seed is
    added to that, as one graph is written into all of them."""
    prompt = load(TEXT_TO_IMAGE)
    sampler_of(prompt).update(steps=2, results=2, seed=1234)
    number = next(number for number, node in prompt.items() if node["class_type"] == "KleinodSampler")
    for prefix in ("seeds", "seeds of known pictures"):  # the second time the sampler does not run
        save = next(node for node in prompt.values() if node["class_type"] == "SaveImage")
        save["inputs"]["filename_prefix"] = prefix
        comfy_server.client.extra_data = {
            "preview_method": "none", "extra_pnginfo": {"workflow": {"nodes": []}},
        }  # fmt: skip
        try:
            result = comfy_server.client.run(prompt)
        finally:
            comfy_server.client.extra_data = {}
        assert result.previews == 0
        saved = [image for image in result.images() if image["type"] == "output"]
        assert len(saved) == 2
        for image in saved:
            with Image.open(io.BytesIO(comfy_server.client.fetch_image(image))) as file:
                assert json.loads(file.text["kleinod_seeds"]) == {number: [1234, 1235]}


def test_two_runs_give_the_same_bits(comfy_server: Server) -> None:
    first = run_for_pixels(comfy_server, load(TEXT_TO_IMAGE))
    forget_everything(comfy_server)
    prompt = load(TEXT_TO_IMAGE)
    result = comfy_server.client.run(prompt)
    assert result.cached == [], "the second run must do the work again"
    second = saved_pixels(comfy_server, result)
    assert len(first) == len(second) == sampler_of(prompt)["results"]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1]), "results of one run have seeds of their own"


def test_interrupt_stops_within_a_step_and_leaves_a_working_server(comfy_server: Server) -> None:
    expected = run_for_pixels(comfy_server, load(TEXT_TO_IMAGE))
    prompt = load(TEXT_TO_IMAGE)
    sampler_of(prompt).update(steps=50, results=20, seed=99, **LONG_STEPS)
    after: list[StepProgress] = []

    def interrupt_once(step: StepProgress) -> None:
        if step.total > 1 and step.value >= 3:
            if not after:
                comfy_server.client.interrupt()
            after.append(step)

    with pytest.raises(WorkflowInterrupted):
        comfy_server.client.run(prompt, interrupt_once)
    # Steps that were taken while the request was under way are heard of, too; a result has 50.
    assert 1 <= len(after) <= 30, "the run went on after it was interrupted"
    forget_everything(comfy_server)
    again = run_for_pixels(comfy_server, load(TEXT_TO_IMAGE))
    assert all(np.array_equal(a, b) for a, b in zip(expected, again, strict=True))


def test_stop_saves_what_is_finished_and_the_next_run_makes_the_rest(comfy_server: Server) -> None:
    prompt = load(TEXT_TO_IMAGE)
    sampler_of(prompt).update(steps=8, results=4, seed=98, guidance=1.0, **LONG_STEPS)
    whole = run_for_pixels(comfy_server, prompt)
    forget_everything(comfy_server)
    pressed: list[StepProgress] = []

    def stop_in_the_third(step: StepProgress) -> None:
        if step.total == 32 and step.value > 16 and not pressed:  # at 16 the second is still to be decoded
            pressed.append(step)
            comfy_server.client.interrupt()

    result = comfy_server.client.run(prompt, stop_in_the_third)
    part = saved_pixels(comfy_server, result)
    assert pressed and 2 <= len(part) < 4
    assert all(np.array_equal(a, b) for a, b in zip(part, whole, strict=False))
    number = next(number for number, node in prompt.items() if node["class_type"] == "KleinodSampler")
    assert len(result.outputs[number]["images"]) == len(part)
    again = run_for_pixels(comfy_server, prompt)
    assert len(again) == 4 and all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True))
    assert number in comfy_server.client.run(prompt).cached, "a whole run is kept as ever"


def test_after_stop_nothing_is_ordered(comfy_server: Server) -> None:
    """The pictures that are done go on, but not into an order that costs money."""
    prompt = load(TEXT_TO_IMAGE)
    sampler_of(prompt).update(steps=8, results=3, seed=97, guidance=1.0, **LONG_STEPS)
    number = next(number for number, node in prompt.items() if node["class_type"] == "KleinodSampler")
    prompt["90"] = {"class_type": "KleinodReferences", "inputs": {"images.image_1": [number, 0]}}
    prompt["91"] = {
        "class_type": "KleinodBFL",
        "inputs": {"prompt": "a fox", "seed": 4321, "references": ["90", 0]},
    }
    prompt["92"] = {"class_type": "SaveImage", "inputs": {"images": ["91", 0], "filename_prefix": "paid"}}
    prompt = fill_defaults(comfy_server.client, prompt)
    pressed: list[StepProgress] = []

    def stop(step: StepProgress) -> None:
        if step.total == 24 and step.value > 8 and not pressed:
            pressed.append(step)
            comfy_server.client.interrupt()

    before = comfy_server.client.get_json("/kleinod/jobs")
    with pytest.raises(WorkflowInterrupted):
        comfy_server.client.run(prompt, stop)
    assert comfy_server.client.get_json("/kleinod/jobs") == before


def test_a_broken_model_file_gives_one_sentence(comfy_server: Server) -> None:
    """An LFS pointer instead of weights: refused by the loader, before any sampling, in words."""
    folder = comfy_server.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "flux-2-klein-base-4b.safetensors"
    file.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7751105712\n", encoding="utf-8"
    )
    try:
        prompt = load(TEXT_TO_IMAGE)
        loader = next(node for node in prompt.values() if node["class_type"] == "KleinodLoader")
        loader["inputs"]["diffusion_model"] = file.name
        with pytest.raises(WorkflowError) as failure:
            comfy_server.client.run(prompt)
    finally:
        file.unlink()
    assert failure.value.node_type == "KleinodLoader"
    assert failure.value.exception_type == "kleinod.InputError"
    assert file.name in str(failure.value)
    assert "LFS" in str(failure.value)


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("KleinodSampler", "width", 100),
        ("KleinodSampler", "steps", 51),
        ("KleinodSampler", "scheduler", "no such scheduler"),
        ("KleinodLoader", "diffusion_model", "missing.safetensors"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_runs(
    comfy_server: Server, node: str, name: str, value: object
) -> None:
    prompt = copy.deepcopy(load(TEXT_TO_IMAGE))
    next(entry for entry in prompt.values() if entry["class_type"] == node)["inputs"][name] = value
    with pytest.raises(WorkflowError) as refusal:
        comfy_server.client.run(prompt)
    assert refusal.value.node_type == node
    assert name in str(refusal.value)


def test_the_face_refiner_paints_faces_and_nothing_else(comfy_server: Server) -> None:
    """By API: the faces found change, the background does not, and strength 0 changes nothing."""
    prompt = load("Klein - Face Refine")
    result = comfy_server.client.run(prompt)
    before, after = saved_pixels(comfy_server, result)
    changed = (before != after).any(-1)
    assert 0.05 < changed.mean() < 0.7
    assert not changed[:4].any() and not changed[:, :4].any(), "the faces are not at the edge"
    for columns in (slice(0, 96), slice(96, 192)):
        assert changed[:, columns].any(), "each of the two faces was painted"
    settings = next(node for node in prompt.values() if node["class_type"] == "KleinodFaceSettings")
    settings["inputs"]["strength"] = 0.0
    again = [image for image in comfy_server.client.run(prompt).images() if image["type"] == "output"]
    assert np.array_equal(pixels(comfy_server, again[-1]), before)


def test_without_a_face_the_graph_behind_the_crops_rests(comfy_server: Server) -> None:
    """An empty list would run the node behind it without its input and end the queue with an error."""
    prompt = load("Klein - Face Refine")
    refiner = next(node for node in prompt.values() if node["class_type"] == "KleinodFaceRefiner")
    refiner["inputs"]["min_size"] = 5000
    number = next(key for key, node in prompt.items() if node is refiner)
    prompt["90"] = {"class_type": "PreviewImage", "inputs": {"images": [number, 4]}}
    result = comfy_server.client.run(prompt)
    before, after = saved_pixels(comfy_server, result)
    assert np.array_equal(before, after)
