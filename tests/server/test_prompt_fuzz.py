"""Damaged API prompts on the real ComfyUI: refused, or run, or stopped by a sentence; never a Python error.

Seeded: the same prompts on every run. What ComfyUI itself says about links that lead nowhere is its own.
"""

from __future__ import annotations

import copy
import json
import random
import time
import urllib.error

import pytest

from tools.launch.client import ComfyClient, load_prompt
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER, ORDER

pytestmark = pytest.mark.server

MUTANTS = 5  # of each workflow
VALUES = (
    None, True, -1, 0, 7, 2.5, 10**30, -(10**30), 1e308, float("nan"), float("inf"), "NaN", "Infinity", "",
    " ", "3", "no such option", "\u00e9\U0001f98a\u4e2d\u6587", "\ud83d", "a\nb\tc", "\x00", "../../etc",
    "%s{0}", "A" * 5000, [], [1, 2], [[1]], {}, {"a": 1}, {"__value__": [1, 2]},
)  # fmt: skip
NEW_NAMES = (
    "bogus",
    "self",
    "\U0001f98a",
    "image",
    "latent",
    "mask",
    "references",
    "settings",
    "images.image_99",
)
# ComfyUI's complaints about one input carry its name.
ABOUT_INPUTS = {
    "required_input_missing", "bad_linked_input", "return_type_mismatch", "invalid_input_type",
    "value_not_in_list", "value_smaller_than_min", "value_bigger_than_max", "custom_validation_failed",
}  # fmt: skip
CLUMSY = (
    "TypeError",
    "AttributeError",
    "KeyError",
    "IndexError",
    "AssertionError",
    "UnboundLocalError",
    "Exception",
)


def make_small(prompt: dict) -> dict:
    """Two steps, one result: what goes wrong does so as well."""
    for node in prompt.values():
        inputs = node["inputs"]
        for name, value in (("steps", 2), ("results", 1), ("number_results", 1)):
            if name in inputs:
                inputs[name] = value
        if node["class_type"] == "KleinodCompare":
            inputs.update(steps=8, presets=False, easycache=False, fewer_steps=False, kleinod_fast=False)
    return prompt


def damage(prompt: dict, dice: random.Random) -> list[str]:
    """Change the prompt in place at one to three places of the pack's nodes; what was done, in words."""
    done = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        own = [number for number, node in prompt.items() if node["class_type"].startswith("Kleinod")]
        number = dice.choice(own)
        inputs = prompt[number]["inputs"]
        name = dice.choice(list(inputs) or ["nothing"])
        link = [dice.choice([*prompt, "999"]), dice.choice((0, 0, 1, 2, 5, 99, -1))]
        way = dice.choice(("value",) * 6 + ("drop", "extra", "link", "swap", "remove"))
        if way == "value":
            inputs[name] = dice.choice(VALUES)
        elif way == "drop":
            inputs.pop(name, None)
        elif way == "extra":
            name = dice.choice(NEW_NAMES)
            inputs[name] = dice.choice((*VALUES, link, link, link))
        elif way == "link":
            inputs[name] = link
        elif way == "swap":
            other = dice.choice(list(inputs) or ["nothing"])
            inputs[name], inputs[other] = inputs.get(other), inputs.get(name)
        elif len(own) > 1:
            del prompt[number]
        value = prompt[number]["inputs"].get(name) if number in prompt else None
        done.append(f"{way} {number}.{name} = {value!r:.60}")
    return done


@pytest.mark.parametrize("name", ORDER)
def test_damaged_prompts_get_an_answer(comfy_server: Server, name: str) -> None:
    whole = make_small(load_prompt(API_FOLDER / f"{name}.json"))
    for seed in range(MUTANTS):
        prompt = copy.deepcopy(whole)
        done = damage(prompt, random.Random(f"{name} {seed}"))
        complaint = find_fault(comfy_server.client, prompt)
        assert complaint is None, f"seed {seed}: {'; '.join(done)}: {complaint}"


def test_the_server_still_paints(comfy_server: Server) -> None:
    assert comfy_server.client.run(make_small(load_prompt(API_FOLDER / f"{ORDER[0]}.json"))).images()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("KleinodPrompt", "clip", "x"),
        ("KleinodSampler", "model", 5),
        ("KleinodSampler", "positive", {"a": 1}),
        ("KleinodSampler", "vae", None),
        ("KleinodSampler", "model", None),
        ("KleinodSampler", "latent", {"samples": "x"}),
        ("KleinodSampler", "acceleration_settings", True),
        ("KleinodSampler", "guidance", float("nan")),
    ],
)
def test_what_no_socket_can_take_is_said_with_its_name(
    comfy_server: Server, kind: str, name: str, value: object
) -> None:
    """Other packs' switches hand on anything, also nothing; ComfyUI does not look."""
    prompt = make_small(load_prompt(API_FOLDER / f"{ORDER[0]}.json"))
    next(node for node in prompt.values() if node["class_type"] == kind)["inputs"][name] = value
    failure = follow(comfy_server.client, comfy_server.client.queue(prompt))
    assert (failure["node_type"], failure["exception_type"]) == (kind, "kleinod.InputError")
    assert failure["exception_message"].startswith(f"{name} is ")


def test_half_an_emoji_is_painted(comfy_server: Server) -> None:
    """Text that was cut by length may end in the middle of one."""
    prompt = make_small(load_prompt(API_FOLDER / f"{ORDER[0]}.json"))
    text = next(node["inputs"] for node in prompt.values() if node["class_type"] == "KleinodPrompt")
    text["positive"] = "a fox \ud83e"
    assert comfy_server.client.run(prompt).images()


def find_fault(client: ComfyClient, prompt: dict) -> str | None:
    """What is wrong with the way the server took a prompt; None if nothing."""
    try:
        answer = client.post_json("/prompt", {"prompt": prompt, "client_id": client.client_id})
    except urllib.error.HTTPError as error:
        if error.code != 400:
            return f"HTTP {error.code}"
        return find_fault_in_refusal(json.loads(error.read()))
    failure = follow(client, answer["prompt_id"])
    if failure is None or "custom_nodes" not in "".join(failure["traceback"]):
        return find_fault_in_refusal(answer)
    kind, words = failure["exception_type"].rpartition(".")[2], failure["exception_message"].strip()
    if kind in CLUMSY or len(words) < 20 or " " not in words or "\n" in words.strip():
        return f"{failure['node_type']} failed with {kind}: {words}"
    return None


def find_fault_in_refusal(answer: dict) -> str | None:
    """ComfyUI runs the branches that are right and names what is wrong with the others."""
    said = answer.get("error") or {"message": "none"}
    if not said["message"].strip():
        return "refused without a word"
    for node in answer["node_errors"].values():
        for error in node["errors"]:
            if error["type"] in ABOUT_INPUTS and not error["extra_info"].get("input_name"):
                return f"no input is named: {error}"
    return None


def follow(client: ComfyClient, prompt_id: str) -> dict | None:
    """Wait for the end of a run; the execution error, if there was one."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        history = client.get_json(f"/history/{prompt_id}")
        if prompt_id in history:
            messages = history[prompt_id]["status"]["messages"]
            return next((data for kind, data in messages if kind == "execution_error"), None)
        time.sleep(0.02)
    raise TimeoutError(f"The prompt {prompt_id} has not ended after 300 s.")
