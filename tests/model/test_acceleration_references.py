"""Reference keys inside ComfyUI: reference tokens really leave the sequence, each branch keeps its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kleinod.nodes.acceleration.clock import SURE_FROM
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.sampling.schedule import native_sigmas

from tests.model.acceleration_rig import (
    EVERY,
    BlockCounter,
    both_with_references,
    memory_short_from,
    near,
    noise,
    plain,
    relative_error,
    run,
    sample,
    with_references,
    with_short_text,
    work_of,
)
from tests.model.tiny_klein import load_tiny_model, random_conditioning

STEPS = 12
SIGMAS = native_sigmas(STEPS, 2.05)
EXACT = Acceleration("none", reference_cache="exact (9B-KV)")
TEXT, PICTURE = 24, 36


def refresh(interval: int) -> Acceleration:
    return Acceleration("none", reference_cache="refresh", reference_interval=interval)


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_tiny_model())


@pytest.fixture
def counter(model: Any):
    watching = BlockCounter.watch(model)
    yield watching
    watching.close()


@pytest.fixture(scope="module")
def texts() -> dict[str, list]:
    return both_with_references(noise(size=4, seed=8), noise(size=5, seed=9))


REFERENCES = 16 + 25


def causal(model: Any) -> Any:
    """FLUX.2 [klein] 9B-KV's rule with no cache at all: references at sigma 0, which see only references."""

    def blind(q: Any, k: Any, v: Any, pe: Any, attn_mask: Any, extra_options: dict[str, Any]) -> dict:
        count = sum(extra_options.get("reference_image_num_tokens", []))
        if not count:
            return {}
        bias = torch.zeros(q.shape[2], q.shape[2])
        bias[-count:, :-count] = float("-inf")
        return {"attn_mask": bias}

    ruled = model.clone()
    ruled.set_model_attn1_patch(blind)
    ruled.add_object_patch("diffusion_model.params.default_ref_method", "index_timestep_zero")
    return ruled


# --- refresh


@pytest.mark.parametrize("interval", [1, 2, 4])
def test_refreshed_every_nth_step(model: Any, counter: BlockCounter, texts: dict, interval: int) -> None:
    sigmas = near()
    wanted = plain(model, sigmas, **texts)
    whole = sum(counter.tokens.values())
    counter.reset()
    got, report = run(model, refresh(interval), sigmas, **texts)
    full = SURE_FROM + (STEPS - SURE_FROM) // interval
    share = (full + (STEPS - full) * (TEXT + PICTURE) / (TEXT + PICTURE + REFERENCES)) / STEPS
    assert sum(counter.tokens.values()) == pytest.approx(share * whole)
    assert work_of(report) == pytest.approx(share * STEPS)
    assert f"references computed at {full} of {STEPS}" in report.line()
    assert relative_error(got, wanted) < 1e-2
    assert torch.equal(got, wanted) == (interval == 1)


@pytest.mark.parametrize("solver", ["heun", "heunpp2", "dpmpp_sde"])
def test_refresh_leaves_odd_solvers_alone(model: Any, texts: dict, solver: str) -> None:
    sigmas = native_sigmas(8, 2.05)
    got, report = run(model, refresh(4), sigmas, sampler=solver, **texts)
    assert torch.equal(got, plain(model, sigmas, sampler=solver, **texts))
    assert report.speed == 1.0


def test_without_references_nothing_changes(model: Any) -> None:
    for setting in (refresh(3), EXACT):
        got, report = run(model, setting, SIGMAS)
        assert torch.equal(got, plain(model, SIGMAS))
        assert report.speed == 1.0
        assert "no reference image was used" in report.line()


# --- exact


def test_exact_is_9b_kvs_rule_computed_once(model: Any, counter: BlockCounter, texts: dict) -> None:
    wanted = plain(causal(model), SIGMAS, **texts)
    assert relative_error(plain(model, SIGMAS, **texts), wanted) > 1e-2, "else the rule would not show"
    counter.reset()
    got, report = run(model, EXACT, SIGMAS, **texts)
    assert relative_error(got, wanted) < 1e-5
    seen = counter.tokens["single_blocks.2"]
    assert seen == 2 * (STEPS * (TEXT + PICTURE) + REFERENCES), "references ran once a branch"
    assert work_of(report) * 2 * (TEXT + PICTURE + REFERENCES) == pytest.approx(seen)


@pytest.mark.parametrize("steps, solver", [(1, "euler"), (4, "euler"), (6, "heun"), (8, "dpm_2")])
def test_exact_holds_for_distilled_runs_and_any_solver(
    model: Any, counter: BlockCounter, texts: dict, steps: int, solver: str
) -> None:
    """9B-KV itself is a model of 4 steps; nothing is approximated, so no step count and no solver excludes
    it.
    """
    sigmas = native_sigmas(steps, 2.05)
    wanted = plain(causal(model), sigmas, sampler=solver, **texts)
    calls = counter.rows["single_blocks.2"]
    counter.reset()
    got, _ = run(model, EXACT, sigmas, sampler=solver, **texts)
    assert relative_error(got, wanted) < 1e-5
    assert counter.rows["single_blocks.2"] == calls
    repeats = 1 if solver == "euler" else 2
    assert counter.tokens["single_blocks.2"] <= calls * (TEXT + PICTURE) + repeats * 2 * REFERENCES


# --- both


@pytest.mark.parametrize("setting", [refresh(3), EXACT], ids=["refresh", "exact"])
@pytest.mark.parametrize("at", [0, 5])
def test_branches_batched_or_not(model: Any, texts: dict, setting: Acceleration, at: int) -> None:
    """Core's Flux KV Cache hands one branch the other's references here."""
    sigmas = near()
    together, _ = run(model, setting, sigmas, **texts)
    with memory_short_from(model, at) as callback:
        apart, _ = run(model, setting, sigmas, callback=callback, **texts)
    assert relative_error(apart, together) < 1e-4


@pytest.mark.parametrize("setting", [refresh(3), EXACT], ids=["refresh", "exact"])
def test_branches_with_different_references(model: Any, setting: Acceleration) -> None:
    """Each branch finds its own, though shapes agree and both run in one call."""
    sigmas = near()
    texts = {
        "positive": with_references(random_conditioning(1), [noise(size=4, seed=8)]),
        "negative": with_references(random_conditioning(2), [noise(size=4, seed=11)]),
    }
    wanted = plain(causal(model) if setting is EXACT else model, sigmas, **texts)
    swapped = {"positive": texts["negative"], "negative": texts["positive"]}
    assert relative_error(plain(model, sigmas, **swapped), wanted) > 0.1
    assert relative_error(run(model, setting, sigmas, **texts)[0], wanted) < 1e-2


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_references_on_one_side(model: Any, counter: BlockCounter, texts: dict, side: str) -> None:
    sigmas = near()
    one = {"positive": random_conditioning(1), "negative": random_conditioning(2)}
    one[side] = texts[side]
    wanted = plain(model, sigmas, **one)
    whole = sum(counter.tokens.values())
    counter.reset()
    got, report = run(model, refresh(3), sigmas, **one)
    assert relative_error(got, wanted) < 1e-2
    assert work_of(report) == pytest.approx(STEPS * sum(counter.tokens.values()) / whole)
    assert report.speed > 1.1


def test_a_batch_is_its_pictures_one_by_one(model: Any, texts: dict) -> None:
    sigmas, start = near(), noise(batch=2, seed=4)
    for setting in (refresh(3), EXACT):
        both, _ = run(model, setting, sigmas, start=start, **texts)
        for i in range(2):
            alone, _ = run(model, setting, sigmas, start=start[i : i + 1], **texts)
            assert relative_error(both[i : i + 1], alone) < 1e-4


@pytest.mark.parametrize("kind", [name for name in EVERY if "," in name])
def test_with_the_other_caches(model: Any, counter: BlockCounter, texts: dict, kind: str) -> None:
    """A block cache may stop a step before all its reference keys were collected."""
    sigmas = near(16)
    wanted = plain(causal(model) if "exact" in kind else model, sigmas, **texts)
    whole = sum(counter.tokens.values()) / 16
    counter.reset()
    got, report = run(model, EVERY[kind], sigmas, **texts)
    assert relative_error(got, wanted) < 2e-2
    assert "R" in report.pattern
    ran = sum(counter.tokens.values()) / whole
    assert ran < 0.75 * 16
    assert work_of(report) == pytest.approx(ran, rel=0.02), "tokens and blocks are shares of different sums"


def test_skip_layer_guidance_sees_no_stored_references(model: Any, texts: dict) -> None:
    """It runs the condition of the prompt a second time a step, without some blocks: other keys."""
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    sigmas = near()
    skipping = SkipLayerGuidanceDiT.execute(
        model, scale=3.0, start_percent=0.0, end_percent=1.0, double_layers="1", single_layers="0"
    )[0]
    assert torch.equal(run(skipping, refresh(3), sigmas, **texts)[0], plain(skipping, sigmas, **texts))
    wanted = plain(causal(skipping), SIGMAS, **texts)
    assert relative_error(run(skipping, EXACT, SIGMAS, **texts)[0], wanted) < 1e-5


def test_a_patch_that_changes_the_sequence_is_respected(model: Any, texts: dict) -> None:
    """What stands last is then not the references, so nothing is cut."""

    def lengthen(inputs: dict[str, Any]) -> dict[str, Any]:
        inputs["img"] = torch.cat((inputs["img"], inputs["img"][:, :3]), dim=1)
        inputs["img_ids"] = torch.cat((inputs["img_ids"], inputs["img_ids"][:, :3]), dim=1)
        return inputs

    longer = model.clone()
    longer.set_model_patch(lengthen, "post_input")
    sigmas = near()
    assert torch.equal(run(longer, refresh(3), sigmas, **texts)[0], plain(longer, sigmas, **texts))


def test_flux_kv_cache_beside_ours_is_refused(model: Any, texts: dict) -> None:
    from comfy_extras.nodes_flux import FluxKVCache

    with pytest.raises(ValueError, match="Remove Flux KV Cache"):
        accelerate(FluxKVCache.execute(model)[0], EXACT)
    with pytest.raises(ValueError, match="set guidance_interval to 1"):
        accelerate(FluxKVCache.execute(model)[0], EVERY["guidance"])
    later = FluxKVCache.execute(accelerate(model, EXACT))[0]
    with pytest.raises(ValueError, match="Remove Flux KV Cache"):
        sample(later, SIGMAS, **texts)


def test_flux_kv_cache_beside_the_other_caches_works(model: Any, texts: dict) -> None:
    from comfy_extras.nodes_flux import FluxKVCache

    sigmas = near()
    wanted = plain(FluxKVCache.execute(model)[0], sigmas, **texts)
    for kind in ("forecast", "first_block", "dual_block", "tea"):
        got, report = run(FluxKVCache.execute(model)[0], EVERY[kind], sigmas, **texts)
        assert relative_error(got, wanted) < 2e-2, kind
        assert report.speed > 1.1, kind
