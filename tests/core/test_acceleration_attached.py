"""What other nodes attach is found by their code: patches that pair branches, functions that keep state."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from kleinod_pure.acceleration.attached import Attached, adapt, find_attached
from kleinod_pure.base.values import Acceleration


def pairing(out: Any, extra_options: dict) -> Any:
    return out if 1 in extra_options["cond_or_uncond"] else None


def plain(out: Any, extra_options: dict) -> Any:
    return out * extra_options["sigmas"]


def make_averaging(momentum: float) -> Any:
    average = 0

    def averaging(args: dict) -> Any:
        nonlocal average
        average = momentum * average + args["cond"]
        return average

    return averaging


def make_remembering() -> Any:
    seen: dict[str, Any] = {}

    def remembering(args: dict) -> Any:
        before = seen.get("cond", 0)
        seen["cond"] = args["cond"]
        return args["cond"] + before

    return remembering


def make_collecting() -> Any:
    history: list[Any] = []

    def collecting(args: dict) -> Any:
        history.append(args["cond"].mean())
        return args["cond"]

    return collecting


class Remembering:
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def __call__(self, args: dict) -> Any:
        self.seen["cond"] = args["cond"]
        return args["cond"]


SEEN: list[Any] = []


def into_a_global(args: dict) -> Any:
    SEEN.append(args)
    return args["cond"]


def make_reading(layers: list[int]) -> Any:
    def reading(args: dict) -> Any:
        out = dict(args)
        for layer in layers:
            out["cond"] = args["cond"] * layer
        collected = []
        collected.append(out["cond"])
        return collected[0]

    return reading


def make_scaling(scale: float) -> Any:
    def scaling(args: dict) -> Any:
        half = args["cond"] * scale
        args["out"] = half

        def again() -> Any:
            return half

        return again()

    return scaling


class Averaging:
    def __init__(self) -> None:
        self.average = 0

    def __call__(self, args: dict) -> Any:
        self.average = self.average + args["cond"]
        return self.average

    def method(self, args: dict) -> Any:
        self.average = args["cond"]
        return self.average


@pytest.mark.parametrize("key", ["patches", "patches_replace"])
def test_patches_that_pair_branches(key: str) -> None:
    def options(function: Any) -> dict:
        group = [function] if key == "patches" else {("double_block", 0): function}
        return {"transformer_options": {key: {"attn1_output_patch": group}}}

    assert find_attached(options(pairing)) == Attached(pairs=("pairing",))
    assert find_attached(options(functools.partial(pairing, 1))) == Attached(pairs=("pairing",))
    assert find_attached(options(plain)) == Attached()


@pytest.mark.parametrize(
    "name", ["sampler_pre_cfg_function", "sampler_post_cfg_function", "sampler_cfg_function"]
)
def test_functions_around_guidance_that_keep_state(name: str) -> None:
    def found(function: Any) -> tuple[str, ...]:
        return find_attached({name: function if name == "sampler_cfg_function" else [function]}).state

    assert found(make_averaging(0.5)) == ("make_averaging",)
    assert found(make_averaging(0)) == ()
    assert found(Averaging()) == found(Averaging().method) == ("Averaging",)
    assert found(make_remembering()) == ("make_remembering",)
    assert found(make_collecting()) == ("make_collecting",)
    assert found(Remembering()) == ("Remembering",)
    assert found(into_a_global) == ("into_a_global",)
    assert found(make_scaling(2.0)) == ()
    assert found(make_reading([1, 2])) == (), "what it changes ends with the call"
    assert found(abs) == ()


def test_caches_of_other_packs_around_the_model_are_state() -> None:
    """A function around every call, and wrappers; ComfyUI's own wrappers are none of it."""
    assert find_attached({"model_function_wrapper": make_remembering()}).state == ("make_remembering",)
    assert find_attached({"sampler_calc_cond_batch_function": make_collecting()}).state == (
        "make_collecting",
    )
    for kind in ("diffusion_model", "apply_model", "predict_noise", "calc_cond_batch"):
        wrappers = {"transformer_options": {"wrappers": {kind: {"other": [make_remembering()]}}}}
        assert find_attached(wrappers).state == ("make_remembering",), kind
    core = make_remembering()
    core.__module__ = "comfy.context_windows"
    wrappers = {"transformer_options": {"wrappers": {"diffusion_model": {None: [core]}}}}
    assert find_attached(wrappers) == Attached()


def test_nothing_attached_changes_nothing() -> None:
    asked = Acceleration("high", guidance_interval=2)
    assert find_attached({}) == Attached()
    assert adapt(asked, Attached()) == (asked, [])
    without = Acceleration("high")
    assert adapt(without, Attached(pairs=("NAGuidance",))) == (without, [])


def test_what_is_given_up_is_said() -> None:
    kept, (note,) = adapt(Acceleration("high", guidance_interval=2), Attached(pairs=("NAGuidance",)))
    assert kept == Acceleration("high") and "NAGuidance compares prompt and negative prompt" in note
    asked = Acceleration("high", guidance_end_percentage=60)
    kept, notes = adapt(asked, Attached(pairs=("NAGuidance",)))
    assert kept == Acceleration("high") and len(notes) == 1
    off, (note,) = adapt(Acceleration("high"), Attached(state=("APG",)))
    assert off.method == "none" and "APG keeps something from step to step" in note
