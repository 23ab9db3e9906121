"""Beside core's other nodes: guidance, guiders, compile, other caches, wrappers that split what we keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_cfg import CFGNorm, CFGZeroStar
from comfy_extras.nodes_custom_sampler import Guider_Basic, Guider_DualCFG, Guider_DualModel
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import ModelSamplingFlux, RescaleCFG
from comfy_extras.nodes_perpneg import Guider_PerpNeg
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple
from kleinod.nodes.acceleration.patch import accelerate

from tests.model.acceleration_rig import (
    EVERY,
    BlockCounter,
    moved,
    near,
    noise,
    percent_before,
    plain,
    relative_error,
    run,
    sample,
    with_short_text,
    work_of,
)
from tests.model.tiny_klein import load_tiny_model, random_conditioning

BLOCKS = 3
KINDS = ("forecast", "first_block", "dual_block", "guidance")

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def network() -> Any:
    return load_tiny_model(double=1, single=2)


@pytest.fixture
def model(network: Any) -> Any:
    return with_short_text(network)


@pytest.fixture
def counter(network: Any):
    watching = BlockCounter.watch(network)
    yield watching
    watching.close()


GUIDANCE_NODES: dict[str, Callable[[Any], Any]] = {
    "ModelSamplingFlux": lambda model: ModelSamplingFlux().patch(model, 1.15, 0.5, 512, 512)[0],
    "RescaleCFG": lambda model: RescaleCFG().patch(model, 0.7)[0],
    "CFGNorm": lambda model: CFGNorm.execute(model, 1.0)[0],
    "CFGNorm before": lambda model: CFGNorm.execute(model, 1.0, True)[0],
    "CFGZeroStar": lambda model: CFGZeroStar.execute(model)[0],
    "APG": lambda model: APG.execute(model, eta=0.5, norm_threshold=5.0, momentum=0.0)[0],
}


@each_kind
@pytest.mark.parametrize("node", GUIDANCE_NODES)
def test_nodes_that_shape_guidance(model: Any, counter: BlockCounter, kind: str, node: str) -> None:
    sigmas = near()
    shaped = GUIDANCE_NODES[node](model)
    wanted = plain(shaped, sigmas)
    counter.reset()
    got, report = run(shaped, EVERY[kind], sigmas)
    assert relative_error(got, wanted) < 2e-2
    assert report.speed > 1.1
    assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS))
    after = moved(sample(GUIDANCE_NODES[node](accelerate(model, EVERY[kind])), sigmas), sigmas)
    assert relative_error(after, got) < 1e-5, "in either order"


@each_kind
def test_skip_layer_guidance(model: Any, counter: BlockCounter, kind: str) -> None:
    """A second look at the prompt, without some blocks, in steps 3 to 6: the block caches wait.

    The forecast sees only the result, so for it the node is in force all the time.
    """
    sigmas = near(16)
    skipping = SkipLayerGuidanceDiT.execute(
        model,
        scale=3.0,
        start_percent=0.0 if kind == "forecast" else percent_before(model, sigmas, 3),
        end_percent=1.0 if kind == "forecast" else percent_before(model, sigmas, 7),
        double_layers="0",
        single_layers="1",
    )[0]
    wanted = plain(skipping, sigmas)
    assert relative_error(plain(model, sigmas), wanted) > 0.02
    counter.reset()
    got, report = run(skipping, EVERY[kind], sigmas)
    assert report.speed > 1.1, report.line()
    if kind in ("first_block", "dual_block"):
        assert report.pattern[4:7] == "CCC", report.line()
        assert "R" in report.pattern[8:]
    assert relative_error(got, wanted) < 2e-2


@each_kind
def test_skip_layer_guidance_of_the_negative_branch(model: Any, kind: str) -> None:
    """Each branch in a call of its own: no decision can hold for both, so blocks and guidance stay whole."""
    sigmas = near()
    skipping = SkipLayerGuidanceDiTSimple.execute(
        model, start_percent=0.0, end_percent=1.0, double_layers="0", single_layers="1"
    )[0]
    wanted = plain(skipping, sigmas)
    got, report = run(skipping, EVERY[kind], sigmas)
    if kind == "forecast":
        assert "R" in report.pattern
        assert relative_error(got, wanted) < 2e-3
    else:
        assert torch.equal(got, wanted), report.line()


# --- guiders


def _basic(model: Any) -> Any:
    guider = Guider_Basic(model)
    guider.set_conds(random_conditioning(1))
    return guider


def _dual(model: Any) -> Any:
    guider = Guider_DualCFG(model)
    guider.set_conds(random_conditioning(1), random_conditioning(5), random_conditioning(2))
    guider.set_cfg(3.0, 2.0)
    return guider


def _nested(model: Any) -> Any:
    guider = _dual(model)
    guider.set_cfg(3.0, 2.0, nested=True)
    return guider


def _perp(model: Any) -> Any:
    guider = Guider_PerpNeg(model)
    guider.set_conds(random_conditioning(1), random_conditioning(2), random_conditioning(5))
    guider.set_cfg(4.0, 1.0)
    return guider


OTHER_MODEL: list[Any] = []


def _two_models(model: Any) -> Any:
    """The negative prompt runs on another network, with another number of blocks."""
    if not OTHER_MODEL:
        OTHER_MODEL.append(with_short_text(load_tiny_model(seed=5, double=2, single=1)))
    guider = Guider_DualModel(model, OTHER_MODEL[0])
    guider.set_conds(random_conditioning(1), random_conditioning(2))
    guider.set_cfg(3.0)
    return guider


GUIDERS = {"basic": _basic, "dual": _dual, "nested": _nested, "perp neg": _perp, "two models": _two_models}


def _guide(guider: Any, sigmas: torch.Tensor) -> torch.Tensor:
    result = guider.sample(
        noise(),
        torch.zeros_like(noise()),
        comfy.samplers.sampler_object("euler"),
        sigmas,
        disable_pbar=True,
        seed=3,
    )
    return moved(result, sigmas)


@each_kind
@pytest.mark.parametrize("name", GUIDERS)
def test_other_guiders(model: Any, counter: BlockCounter, kind: str, name: str) -> None:
    sigmas = near()
    wanted = _guide(GUIDERS[name](model), sigmas)
    whole = counter.total
    counter.reset()
    told: list[Any] = []
    got = _guide(GUIDERS[name](accelerate(model, EVERY[kind], told.append)), sigmas)
    left_alone = kind == "guidance" or (name == "two models" and kind != "forecast")
    if left_alone:
        assert torch.equal(got, wanted)
        assert counter.total == whole
        assert told[-1].notes, "and it is said why"
    else:
        assert relative_error(got, wanted) < 2e-2
        assert work_of(told[-1]) == pytest.approx(12 * counter.total / whole)
        assert told[-1].speed > 1.1


# --- other caches


@pytest.mark.parametrize("node", [EasyCacheNode, LazyCacheNode])
@each_kind
def test_two_caches_at_once_are_refused(model: Any, node: Any, kind: str) -> None:
    """Before anything is sampled, and whichever node comes first."""

    def cache(given: Any) -> Any:
        return node.execute(given, 0.2, 0.15, 0.95, False)[0]

    name = node.__name__.removesuffix("Node")
    with pytest.raises(ValueError, match=f"{name} and Klein Acceleration"):
        accelerate(cache(model), EVERY[kind])
    with pytest.raises(ValueError, match=f"{name} and Klein Acceleration"):
        sample(cache(accelerate(model, EVERY[kind])), near())
    assert torch.isfinite(sample(cache(model), near())).all()


# --- wrappers that cut the batch apart


@each_kind
@pytest.mark.parametrize("batch", [1, 2])
def test_a_wrapper_that_runs_the_rows_one_by_one(model: Any, kind: str, batch: int) -> None:
    """Low-memory nodes split the batch but pass on the ids of all of it: rows cannot be told apart."""

    def split(apply: Callable[..., torch.Tensor], given: dict[str, Any]) -> torch.Tensor:
        c = given["c"]
        return torch.cat(
            [
                apply(x, t, **{**c, "c_crossattn": text})
                for x, t, text in zip(
                    given["input"].split(1),
                    given["timestep"].split(1),
                    c["c_crossattn"].split(1),
                    strict=True,
                )
            ]
        )

    parted = model.clone()
    parted.set_model_unet_function_wrapper(split)
    sigmas, start = near(), noise(batch=batch)
    wanted = plain(parted, sigmas, start=start)
    got, report = run(parted, EVERY[kind], sigmas, start=start)
    if kind in ("first_block", "dual_block"):
        assert torch.equal(got, wanted)
        assert "in parts" in report.line()
    else:
        assert relative_error(got, wanted) < 2e-2


# --- compile


@pytest.mark.parametrize("kind", ["forecast", "first_block"])
def test_the_network_compiled_in_one(network: Any, kind: str) -> None:
    """As core's TorchCompileModel does it; the eager backend keeps the bits comparable."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    sigmas = near(8)
    options = {"start": noise(size=3), "cfg": 1.0}
    expected, report = run(network, EVERY[kind], sigmas, **options)
    compiled = network.clone()
    set_torch_compile_wrapper(compiled, backend="eager", keys=["diffusion_model"])
    got, report_compiled = run(compiled, EVERY[kind], sigmas, **options)
    assert report_compiled.pattern == report.pattern
    assert report.speed > 1
    assert relative_error(got, expected) < 1e-4
