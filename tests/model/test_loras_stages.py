"""LoRAs of one stage: the network's own calls, step by step, against models that carry the LoRA or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.acceleration.report import REUSED
from kleinod.nodes.base.values import Acceleration, LoraRow, Loras, StageBoundary
from kleinod.nodes.loras.engine import apply_stack
from kleinod.nodes.loras.request import StackRequest
from safetensors.torch import save_file
from torch import Tensor

from tests.model.acceleration_rig import moved, near, noise, relative_error, sample, with_short_text
from tests.model.lora_files import (
    FORMATS,
    coarse_state,
    draw,
    linear_weights,
    load_coarse_model,
    write_lora,
)

SIGMAS = torch.linspace(1.0, 0.0, 9)
HALF = StageBoundary()


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_coarse_model())


@pytest.fixture
def folder(model_folders: Path) -> Path:
    write_lora(model_folders / "loras" / "a.safetensors", FORMATS["diffusers with prefix"], seed=1)
    write_lora(model_folders / "loras" / "b.safetensors", FORMATS["kohya"], seed=2)
    return model_folders / "loras"


def apply(model: Any, *rows: LoraRow, **options: Any) -> Any:
    return apply_stack(model, StackRequest(Loras(rows), **options)).model


def row(file: str, stage: str = "both", weight: float = 0.02, boundary: StageBoundary = HALF) -> LoraRow:
    return LoraRow(file, weight, stage, boundary=boundary)


def velocities(model: Any, sigmas: Tensor = SIGMAS, **options: Any) -> list[Tensor]:
    """What the network says of the same x at every step of a run: no step depends on an earlier one."""
    seen: list[Tensor] = []

    def walk(network: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any) -> Tensor:
        for sigma in sigmas[:-1]:
            seen.append(network(noise(), sigma[None], **extra_args))
        return x

    import comfy.samplers

    sample(model, sigmas, comfy.samplers.KSAMPLER(walk), cfg=1.0, **options)
    return seen


def agree(got: Tensor, wanted: Tensor, other: Tensor) -> None:
    """`got` is `wanted` up to the rounding of float32, and clearly not `other`."""
    assert relative_error(got, wanted) < 1e-5
    assert relative_error(other, wanted) > 1e-3


@pytest.mark.parametrize(
    ("boundary", "high_steps"),
    [(StageBoundary(), 4), (StageBoundary(at=0.25), 2), (StageBoundary("sigma", 0.7), 3)],
)
def test_each_stage_acts_on_its_steps(
    boundary: StageBoundary, high_steps: int, model: Any, folder: Path
) -> None:
    """Sigmas 1, .875, .75, .625 ...: a share counts steps, a sigma counts by noise."""
    plain, carrying = velocities(model), velocities(apply(model, row("a")))
    high = velocities(apply(model, row("a", "high", boundary=boundary)))
    low = velocities(apply(model, row("a", "low", boundary=boundary)))
    for step in range(8):
        on, off = (high, low) if step < high_steps else (low, high)
        agree(on[step], carrying[step], plain[step])
        assert torch.equal(off[step], plain[step])


def test_beside_the_weights_is_the_same_model(model: Any, folder: Path) -> None:
    beside = apply(model, row("a"), row("b", weight=-0.01), bypass=True)
    assert beside.patches == {}
    patched = apply(model, row("a"), row("b", weight=-0.01))
    for got, wanted, plain in zip(velocities(beside), velocities(patched), velocities(model), strict=True):
        agree(got, wanted, plain)


def test_several_stacks_and_both_stages_in_one_chain(model: Any, folder: Path) -> None:
    """Stack 1: a high and b for all steps; stack 2: b low, with a boundary of its own."""
    late = StageBoundary(at=0.75)
    chain = apply(apply(model, row("a", "high"), row("b")), row("b", "low", 0.01, late))
    got = velocities(chain)
    early = velocities(apply(model, row("a"), row("b")))
    middle = velocities(apply(model, row("b")))
    last = velocities(apply(model, row("b", weight=0.03)))
    for step in range(8):
        wanted, other = (early, middle) if step < 4 else (middle, last) if step < 6 else (last, middle)
        agree(got[step], wanted[step], other[step])


def test_no_hook_and_no_tensor_outlives_a_run_or_an_interrupt(model: Any, folder: Path) -> None:
    staged = apply(model, row("a", "high"))

    def break_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(staged, SIGMAS, callback=break_off)
    (wrapper,) = staged.get_wrappers("outer_sample", "kleinod.loras")
    assert wrapper.__self__._paths == {}
    assert all(not m._forward_hooks for m in model.model.diffusion_model.modules())
    before = sample(model, SIGMAS)
    sample(staged, SIGMAS)
    assert wrapper.__self__._paths == {}
    assert torch.equal(sample(model, SIGMAS), before)
    assert torch.equal(sample(staged, SIGMAS), sample(staged, SIGMAS))


def test_a_run_that_ends_early_or_begins_late_keeps_its_shares(model: Any, folder: Path) -> None:
    """Half of the steps of the run at hand, whatever sigmas it has."""
    sigmas = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])
    high, plain = velocities(apply(model, row("a", "high")), sigmas), velocities(model, sigmas)
    assert [torch.equal(a, b) for a, b in zip(high, plain, strict=True)] == [False, False, True, True]


def test_shares_of_nothing_and_of_everything(model: Any, folder: Path) -> None:
    plain, carrying = velocities(model), velocities(apply(model, row("a")))
    for share, on, off in ((0.0, "low", "high"), (1.0, "high", "low")):
        boundary = StageBoundary(at=share)
        always = velocities(apply(model, row("a", on, boundary=boundary)))
        never = velocities(apply(model, row("a", off, boundary=boundary)))
        for step in range(8):
            agree(always[step], carrying[step], plain[step])
            assert torch.equal(never[step], plain[step])


def test_forecasts_never_cross_the_boundary(model: Any, folder: Path) -> None:
    """The first step behind the boundary is computed, and with it the history begins anew."""
    reports: list[Any] = []
    sigmas = near(16)
    staged = apply(model, row("a", "high"))
    for build in (
        lambda: accelerate(staged, Acceleration(speed=3.0), reports.append),
        lambda: apply(accelerate(model, Acceleration(speed=3.0), reports.append), row("a", "high")),
    ):
        fast = build()
        result = sample(fast, sigmas)
        records = {record.step: record for record in reports[-1].records}
        assert any(record.kind == REUSED for step, record in records.items() if step < 8)
        assert any(record.kind == REUSED for step, record in records.items() if step > 8)
        assert records[8].kind != REUSED and records[9].kind != REUSED
        assert records[8].note == "conditions changed"
        wanted = moved(sample(staged, sigmas), sigmas)
        assert relative_error(moved(result, sigmas), wanted) < 1e-3


def test_block_caches_never_cross_the_boundary(model: Any, folder: Path) -> None:
    reports: list[Any] = []
    sigmas = near(16)
    staged = apply(model, row("a", "low"))
    for threshold in (0.05, 0.95):
        settings = Acceleration(fb_cache=True, fb_cache_threshold=threshold)
        result = sample(accelerate(staged, settings, reports.append), sigmas)
        records = {record.step: record for record in reports[-1].records}
        assert records[8].kind != REUSED
        wanted = moved(sample(staged, sigmas), sigmas)
        assert relative_error(moved(result, sigmas), wanted) < 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_exact_on_small_weights(dtype: torch.dtype, folder: Path) -> None:
    """The side path rounds nothing to the weight's type, as the plain patch would have to on fp8."""
    state = coarse_state()
    stored = comfy.sd.load_diffusion_model_state_dict(dict(state), model_options={"dtype": dtype})
    stored.set_model_compute_dtype(torch.float32)
    stored = with_short_text(stored)
    rounded = {
        key: value.to(dtype).float() if key.endswith("weight") else value for key, value in state.items()
    }
    reference = with_short_text(comfy.sd.load_diffusion_model_state_dict(rounded))
    got = velocities(apply(stored, row("a", "high")))
    wanted, plain = velocities(apply(reference, row("a"))), velocities(reference)
    assert relative_error(got[0], wanted[0]) < 2e-5
    assert relative_error(got[7], plain[7]) < 2e-5
    assert relative_error(wanted[0], plain[0]) > 1e-3


def test_dora_loha_and_lokr_of_one_stage(model: Any, model_folders: Path) -> None:
    """The changes that are no plain product: beside the layers they equal the patched weights."""
    name = "double_blocks.1.img_attn.qkv"
    dora = {
        f"{name}.lora_A.weight": draw(1, 4, 128), f"{name}.lora_B.weight": draw(2, 384, 4),
        f"{name}.lora_magnitude_vector": 1 + draw(3, 384).abs(),
    }  # fmt: skip
    part = {
        "transformer_blocks.0.attn.to_v.lora_A.weight": draw(4, 4, 128),
        "transformer_blocks.0.attn.to_v.lora_B.weight": draw(5, 128, 4),
        "transformer_blocks.0.attn.to_v.lora_magnitude_vector": 1 + draw(6, 128).abs(),
    }
    loha = {f"single_blocks.0.linear1.hada_w{i}_{j}": draw(7 + i, *((1152, 2) if j == "a" else (2, 128)))
            for i in (1, 2) for j in "ab"}  # fmt: skip
    lokr = {
        "single_blocks.1.linear2.lokr_w1": draw(10, 4, 4),
        "single_blocks.1.linear2.lokr_w2": draw(11, 32, 128),
    }
    save_file(dora | part | loha | lokr, model_folders / "loras" / "it.safetensors")
    plain, carrying = velocities(model), velocities(apply(model, row("it", weight=0.1)))
    high = velocities(apply(model, row("it", "high", 0.1)))
    agree(high[0], carrying[0], plain[0])
    assert torch.equal(high[7], plain[7])


class WrappedLinear(torch.nn.Module):
    """A layer as quantising packs make them: no plain weight, an answer to being called."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, None
        weight = layer.weight.detach().float()
        self.step = weight.abs().amax(dim=1, keepdim=True) / 127
        self.codes = (weight / self.step).round().to(torch.int8)

    def dequantise(self) -> Tensor:
        return self.codes.float() * self.step

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.dequantise().to(x.dtype))


def test_layers_of_another_kind(folder: Path) -> None:
    """As GGUF's: what counts is how the layer answers, also for DoRA, which asks for its weight."""
    name = "double_blocks.1.txt_mlp.2"
    tensors = {
        f"{name}.lora_A.weight": draw(1, 4, 384), f"{name}.lora_B.weight": draw(2, 128, 4),
        f"{name}.lora_magnitude_vector": 1 + draw(3, 128).abs(),
    }  # fmt: skip
    save_file(tensors, folder / "dora.safetensors")
    wrapped, dense = load_coarse_model(), load_coarse_model()
    for number, block in enumerate(wrapped.model.diffusion_model.double_blocks):
        block.txt_mlp[2] = WrappedLinear(block.txt_mlp[2])
        block.img_attn.qkv = WrappedLinear(block.img_attn.qkv)
        twin = dense.model.diffusion_model.double_blocks[number]
        twin.txt_mlp[2].weight.data.copy_(block.txt_mlp[2].dequantise())
        twin.img_attn.qkv.weight.data.copy_(block.img_attn.qkv.dequantise())
    wrapped, dense = with_short_text(wrapped), with_short_text(dense)
    rows = [row("a", "high"), row("dora", "high", 0.5)]
    got = velocities(apply(wrapped, *rows))
    wanted = velocities(apply(dense, *[row("a"), row("dora", weight=0.5)]))
    agree(got[0], wanted[0], velocities(dense)[0])


@pytest.mark.parametrize("compiled_first", [True, False])
def test_compiled_networks_meet_the_loras_too(compiled_first: bool, folder: Path) -> None:
    """torch.compile remembers a graph without our hooks, or with those of a stage that is over."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    sigmas = torch.tensor([1.0, 0.5, 0.0])
    plain = with_short_text(load_coarse_model())
    block = {
        f"single_blocks.0.{name}": linear_weights()[f"single_blocks.0.{name}"]
        for name in ("linear1", "linear2")
    }
    write_lora(folder / "c.safetensors", FORMATS["kohya"], weights=block)
    wanted, without = velocities(apply(plain, row("c", weight=0.1)), sigmas), velocities(plain, sigmas)
    compiled = plain.clone()
    set_torch_compile_wrapper(compiled, backend="eager", keys=["diffusion_model.single_blocks.0"])
    if compiled_first:
        velocities(compiled, sigmas)
    got = velocities(apply(compiled, row("c", "high", 0.1)), sigmas)
    agree(got[0], wanted[0], without[0])
    assert relative_error(got[1], without[1]) < 1e-5
    assert relative_error(velocities(compiled, sigmas)[0], without[0]) < 1e-5
