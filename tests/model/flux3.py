"""Headers and module names of FLUX 3 Image Klein as its files have them, and a MODEL that only looks like it.

Written from the table of names and shapes in Black Forest Labs' export (October 2026), by hand: ComfyUI 0.30
to 0.33 know nothing of it.
"""

from __future__ import annotations

from typing import Any

import torch

WIDTH, CONTEXT = 3072, 20480


def flux3_shapes(
    early: int = 5, single: int = 28, streams: tuple[str, ...] = ("image", "image_cond")
) -> dict:
    """Key -> shape; the real file has 5 early and 28 single blocks."""
    shapes: dict[str, tuple[int, ...]] = {
        "txt_in.weight": (WIDTH, CONTEXT),
        "time_in.in_layer.weight": (WIDTH, 256),
        "time_in.out_layer.weight": (WIDTH, WIDTH),
        "final_layer.image.linear.weight": (128, WIDTH),
        "final_layer.image.adaLN_modulation.1.weight": (2 * WIDTH, WIDTH),
    }
    for stream in (*streams, "txt"):
        shapes[f"early_stream_modulations.{stream}.lin.weight"] = (3 * WIDTH, WIDTH)
        shapes[f"single_stream_modulations.{stream}.lin.weight"] = (3 * WIDTH, WIDTH)
    for stream in streams:
        shapes[f"emb_in.{stream}.weight"] = (WIDTH, 128)
        for block in range(early):
            shapes |= _block(f"content_mode_blocks.{stream}.{block}")
    for block in range(early):
        shapes |= _block(f"txt_mode_blocks.{block}")
    for block in range(single):
        shapes |= _block(f"single_blocks.{block}")
    return shapes


def _block(prefix: str) -> dict[str, tuple[int, ...]]:
    square = {
        f"{prefix}.{name}.weight": (WIDTH, WIDTH) for name in ("q_proj", "k_proj", "v_proj", "attn_out")
    }
    return square | {
        f"{prefix}.mlp_in.weight": (6 * WIDTH, WIDTH),
        f"{prefix}.mlp_out.weight": (WIDTH, 3 * WIDTH),
        f"{prefix}.norm.query_norm.scale": (128,),
        f"{prefix}.norm.key_norm.scale": (128,),
    }


class Flux3(torch.nn.Module):
    """In the place of core's class for FLUX 3: its module names, FLUX.2's latents, nothing that computes."""

    def __init__(self) -> None:
        import comfy.latent_formats

        super().__init__()
        self.latent_format = comfy.latent_formats.Flux2()
        self.diffusion_model = torch.nn.Module()
        for key in flux3_shapes(early=1, single=1):
            *path, _ = key.split(".")
            place = self.diffusion_model
            for name in path:
                if name not in place._modules:
                    place.add_module(name, torch.nn.Module())
                place = place._modules[name]


def flux3_model() -> Any:
    """A ModelPatcher around `Flux3`, as a loader of ComfyUI would hand it over."""
    import comfy.model_patcher

    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(Flux3(), load_device=cpu, offload_device=cpu)
