"""The functional transformer of `tools/nano` must be ComfyUI's Flux, or training would fit another net."""

from __future__ import annotations

import comfy.ops
import comfy.sd
import pytest
import torch

from tools.nano import forward

SHAPE = forward.Shape(hidden=256, double=2, single=3)


def random_state(shape: forward.Shape) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    state = forward.initial_state(shape, seed=3)
    for name, tensor in state.items():
        if tensor.dim() == 1:
            state[name] = 1 + 0.2 * torch.randn(tensor.shape, generator=generator)
        elif not tensor.any():
            state[name] = 0.3 * torch.randn(tensor.shape, generator=generator) * tensor.shape[1] ** -0.5
    return state


@pytest.mark.parametrize("references", [[], [(4, 6)], [(4, 6), (5, 3)]])
def test_functional_forward_equals_comfyui(references: list[tuple[int, int]]) -> None:
    state = random_state(SHAPE)
    model = comfy.sd.load_diffusion_model_state_dict({k: v.clone() for k, v in state.items()})
    flux = model.model.diffusion_model.float()
    torch.manual_seed(5)
    picture = torch.randn(2, 128, 8, 6)
    latents = [torch.randn(2, 128, *size) for size in references]
    text, sigma = torch.randn(2, 8, 192), torch.tensor([0.9, 0.3])
    with torch.no_grad():
        theirs = flux(picture, sigma, text, ref_latents=latents or None)
    tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in [picture, *latents]], dim=1)
    positions = forward.rotary(forward.position_ids(8, [(8, 6), *references]))
    ours = forward.transformer(state, SHAPE, tokens, text, sigma, positions, 48)
    ours = ours.transpose(1, 2).reshape(theirs.shape)
    assert theirs.std() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
