"""The graph in a picture's file makes that picture alone."""

from __future__ import annotations

import json
from pathlib import Path

from kleinod_pure.sampling.own_seed import prompt_of_one, tell_known_seeds, tell_seeds, workflow_of_one

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"


def load(name: str) -> tuple[dict, str]:
    """A shipped workflow and the id of its sampler."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))
    sampler = next(node for node in workflow["nodes"] if node["type"] == "KleinodSampler")
    return workflow, str(sampler["id"])


def values_of(workflow: dict, number: str) -> dict[str, object]:
    """Widget values by name, in the golden schema's order; the page adds a control where it says so."""
    schema = json.loads((ROOT / "tests" / "golden" / "schema.json").read_text("utf-8"))["KleinodSampler"]
    names = []
    for name, (kind, options) in {**schema["input"]["required"], **schema["input"]["optional"]}.items():
        names += [name] if kind in ("INT", "FLOAT", "COMBO") else []
        names += ["control"] if options.get("control_after_generate") else []
    node = next(node for node in workflow["nodes"] if str(node["id"]) == number)
    return dict(zip(names, node["widgets_values"], strict=True))


def a_prompt(guidance: float = 4, text: str = "a fox") -> dict:
    return {
        "1": {"class_type": "KleinodLoader", "inputs": {"diffusion_model": "klein-nano"}},
        "2": {"class_type": "KleinodPrompt", "inputs": {"clip": ["1", 1], "positive": text}},
        "3": {
            "class_type": "KleinodSampler",
            "inputs": {"model": ["1", 0], "positive": ["2", 0], "guidance": guidance},
        },
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }


def known_seeds(prompt: dict) -> dict | None:
    """What is written into the files of a run before anything runs."""
    told = tell_known_seeds({"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": {}}}})
    return told["extra_data"]["extra_pnginfo"].get("kleinod_seeds")


def test_seeds_of_pictures_that_are_still_known_are_told_again() -> None:
    info: dict = {}
    tell_seeds(a_prompt(guidance=4.0), info, "3", [7, 8])
    assert info == {"kleinod_seeds": {"3": [7, 8]}}
    other_file = a_prompt()
    other_file["5"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}}
    assert known_seeds(other_file) == {"3": [7, 8]}, "what follows the sampler changes none of its pictures"
    assert known_seeds(a_prompt(text="a cat")) is None, "what it reads does"
    assert tell_known_seeds({"prompt": a_prompt()}) == {"prompt": a_prompt()}, "no page, no files' words"
    tell_seeds(a_prompt(), info, "3", [9])  # the picture that it loads has changed: one result of it
    assert info == {"kleinod_seeds": {}} and known_seeds(a_prompt()) is None


def test_the_sampler_s_own_widgets_are_set() -> None:
    workflow, number = load("Klein - Text to Image")
    before = values_of(workflow, number)
    after = values_of(workflow_of_one(workflow, number, 12), number)
    changed = {"seed": 12, "control": "fixed", "results": 1}
    assert after == {**before, **changed}
    assert before["seed"] != 12 and before["results"] != 1 and before["control"] == "randomize"
    assert values_of(workflow, number) == before, "the workflow that runs is not touched"


def test_a_primitive_that_feeds_the_sampler_is_set_in_its_place() -> None:
    workflow, number = load("Klein - Local or Remote")
    results = next(node for node in workflow["nodes"] if node.get("title") == "Results")
    results["widgets_values"] = [4, "increment"]
    made = workflow_of_one(workflow, number, 12)
    changed = {
        (one["title"], one["type"]): two["widgets_values"]
        for one, two in zip(workflow["nodes"], made["nodes"], strict=True)
        if one != two
    }
    assert len(changed) == 2 and all(kind == "PrimitiveInt" for _, kind in changed), changed
    assert sorted(changed.values()) == [[1, "fixed"], [12, "fixed"]]


def test_what_is_not_there_stays_as_it_is() -> None:
    workflow, number = load("Klein - Text to Image")
    assert workflow_of_one(workflow, "5:3", 12) == workflow
    assert workflow_of_one({"version": 1}, number, 12) == {"version": 1}
    prompt = {"3": {"class_type": "KleinodSampler", "inputs": {"seed": ["9", 0], "results": 4, "mu": "auto"}}}
    made = prompt_of_one(prompt, "3", 12)
    assert made["3"]["inputs"] == {"seed": 12, "results": 1, "mu": "auto"}
    assert prompt["3"]["inputs"]["seed"] == ["9", 0]
    assert prompt_of_one(prompt, "8", 12) == prompt
