"""Blocks captured as CUDA graphs, in copies of ours of how ComfyUI does it for other models: they are known
by more than one sign, and what a replay would freeze is off and says so. Whole runs: test_missing_seams.py.
"""

from __future__ import annotations

import inspect
from typing import Any

import comfy.cli_args
import comfy.text_encoders.llama as llama
import pytest
import torch
from kleinod.nodes.acceleration.report import COMPUTED, REUSED
from kleinod.nodes.base import graph_capture
from kleinod.nodes.base.errors import ArtistError
from kleinod.nodes.base.values import StageBoundary
from kleinod.nodes.loras.bypass import BypassLoras, Slot, StageGate
from kleinod.nodes.loras.core_adapters import change_of
from kleinod.nodes.loras.merging import add_bypass
from kleinod.nodes.loras.parts import LORA, Part
from torch import nn

from tests.model.acceleration_rig import (
    EVERY,
    both_with_references,
    near,
    noise,
    plain,
    relative_error,
    run,
    sample,
)
from tests.model.tiny_klein import load_tiny_model

STEPS = 12


def prefetch_queue_pop(*arguments: Any, **named: Any) -> None: ...


def run_in_turn(queue: Any, blocks: Any) -> None:
    for block in blocks:
        prefetch_queue_pop(queue, "cuda", block, core=block)


class Plain(nn.Module):
    """Fetches weights ahead and calls its blocks itself: nothing is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])

    def forward(self, queue: Any, x: Any) -> Any:
        for block in self.blocks:
            prefetch_queue_pop(queue, x.device, block)
            x = block(x)
        return x


class Asked(Plain):
    def forward_orig(self, queue: Any, x: Any) -> None:
        graph = x.is_cuda
        for block in self.blocks:
            prefetch_queue_pop(queue, x.device, block, core=lambda: block(x), enable_graph=graph)  # noqa: B023


class ByPosition(Plain):
    def _run(self, queue: Any, x: Any) -> None:
        for block in self.blocks:

            def core(block: Any = block) -> Any:
                return block(x)

            prefetch_queue_pop(queue, x.device, block, None, core, True)


class Elsewhere(Plain):
    def forward(self, queue: Any, x: Any) -> Any:
        run_in_turn(queue, self.blocks)


class ByPyTorch(Plain):
    def _capture(self) -> Any:
        return torch.cuda.CUDAGraph()


class Grandchild(Asked):
    """Its own code says nothing."""


@pytest.mark.parametrize("kind", [Asked, ByPosition, Elsewhere, ByPyTorch, Grandchild])
def test_code_that_hands_blocks_over_is_known(kind: type[Plain], monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph_capture.captures_blocks(kind())
    assert not graph_capture.captures_blocks(Plain())
    monkeypatch.setattr(comfy.cli_args.args, "disable_cuda_graphs", True, raising=False)
    assert not graph_capture.captures_blocks(kind())


@pytest.mark.parametrize("sign", ["unit", "model"])
def test_what_dynamic_memory_gives_to_such_blocks_is_known(sign: str) -> None:
    network = Plain()
    if sign == "unit":
        network.blocks[1]._v_block = object()
    else:
        network.graph_dynamic_vbar_blocks = True
    assert graph_capture.captures_blocks(network)


def test_of_comfyui_itself_flux_is_not_captured_and_its_text_decoder_where_it_is() -> None:
    assert not graph_capture.captures_blocks(load_tiny_model().model.diffusion_model)
    decoder = llama.Llama2_.__new__(llama.Llama2_)
    nn.Module.__init__(decoder)
    captured = "enable_graph" in inspect.getsource(llama.Llama2_.forward)
    assert graph_capture.captures_blocks(decoder) == captured


def capture_at(monkeypatch: pytest.MonkeyPatch, model: Any, call: int) -> list[int]:
    """As if the blocks were captured in the `call`-th call of the network (from 0); the list counts calls."""
    calls: list[int] = []
    model.model.diffusion_model.register_forward_pre_hook(lambda *_: calls.append(len(calls)))
    monkeypatch.setattr(graph_capture, "is_capturing", lambda: len(calls) == call + 1)
    return calls


def test_a_block_cache_that_meets_a_capture_ends_and_the_step_is_made_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sigmas, settings = load_tiny_model(), near(STEPS), EVERY["first_block"]
    _, undisturbed = run(model, settings, sigmas)
    kinds = [record.kind for record in undisturbed.records]
    step = kinds.index(REUSED)
    calls = capture_at(monkeypatch, model, step)
    met, report = run(model, settings, sigmas)
    assert len(calls) == STEPS + 1, "that step was made twice"
    assert [record.kind for record in report.records[:step]] == kinds[:step]
    assert all(record.kind == COMPUTED for record in report.records[step:])
    assert any("records the model's blocks as CUDA graphs" in note for note in report.notes)
    assert torch.equal(met, plain(model, sigmas)), "nothing had been left out before"


@pytest.mark.parametrize("way", ["refresh", "exact"])
def test_stored_references_that_meet_a_capture_are_given_up(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    model, sigmas = load_tiny_model(), near(STEPS)
    prompts = both_with_references(noise(size=4, seed=7))
    tokens: list[int] = []
    first = model.model.diffusion_model.double_blocks[0]
    handle = first.register_forward_pre_hook(
        lambda module, args, named: tokens.append((args[0] if args else named["img"]).shape[1]),
        with_kwargs=True,
    )
    served, _ = run(model, EVERY[way], sigmas, **prompts)
    assert len(set(tokens)) == 2, "some steps run without reference tokens"
    place, whole = tokens.index(min(tokens)), max(tokens)
    tokens.clear()
    capture_at(monkeypatch, model, place)
    met, report = run(model, EVERY[way], sigmas, **prompts)
    handle.remove()
    assert len(tokens) == STEPS + 1 and set(tokens[place + 1 :]) == {whole}, "references are computed again"
    assert relative_error(met, served) < (0.05 if way == "refresh" else 1e-4)


def with_row(model: Any, gate: StageGate) -> Any:
    draw = torch.Generator().manual_seed(4)
    up, down = torch.randn(128, 4, generator=draw), torch.randn(4, 512, generator=draw)
    part = Part(LORA, 1.0, 1.0, None, (up, down * 0.1))
    patched = model.clone()
    add_bypass(patched, BypassLoras({gate: {Slot("single_blocks.0.linear2"): [part]}}, change_of))
    return patched


def test_a_staged_row_that_meets_a_capture_ends_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sigmas = load_tiny_model(), near(4)
    always, staged = with_row(model, StageGate()), with_row(model, StageGate("high", StageBoundary()))
    before = sample(always, sigmas)
    assert not torch.equal(before, sample(model, sigmas))
    monkeypatch.setattr(graph_capture, "is_capturing", lambda: True)
    assert torch.equal(sample(always, sigmas), before), "what acts on every step may be recorded"
    with pytest.raises(ArtistError, match="recorded CUDA graphs.*Set their stage to both"):
        sample(staged, sigmas)
