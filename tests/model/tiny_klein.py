"""A tiny random FLUX.2 [klein], made by code: the real keys, classes and detection, 1.9 M parameters.

Other test files import it:

    from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae
    model = load_tiny_model()                # a real ModelPatcher, detected by ComfyUI as Flux2

Modulation weights are drawn with a large spread (0.3): with small ones the blocks hardly act on the picture,
and a cache or a reference that is wrong would still pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HIDDEN = 128
DOUBLE = 2
SINGLE = 3
ENCODER_WIDTH = 64
CONTEXT = 3 * ENCODER_WIDTH
LATENT_CHANNELS = 128
VOCABULARY = 151936
ENCODER_LAYERS = 30


@dataclass(frozen=True)
class TinyFiles:
    """Where `write_tiny_files` put the three files; each name is one a user could have."""

    dit: Path
    text_encoder: Path
    vae: Path


class _Draw:
    """Seeded normal tensors; one generator, so the state depends on the seed alone."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def __call__(self, *shape: int, std: float | None = None) -> Tensor:
        std = shape[-1] ** -0.5 if std is None else std
        return (torch.randn(shape, generator=self.generator) * std).to(self.dtype)


def dit_shapes(
    hidden: int = HIDDEN, double: int = DOUBLE, single: int = SINGLE, context: int = CONTEXT
) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a whole Klein; the real 4B is (3072, 5, 20, 7680), 9B (4096, 8, 24, 12288)."""
    shapes: dict[str, tuple[int, ...]] = {
        "img_in.weight": (hidden, LATENT_CHANNELS),
        "txt_in.weight": (hidden, context),
        "time_in.in_layer.weight": (hidden, 256),
        "time_in.out_layer.weight": (hidden, hidden),
        "double_stream_modulation_img.lin.weight": (6 * hidden, hidden),
        "double_stream_modulation_txt.lin.weight": (6 * hidden, hidden),
        "single_stream_modulation.lin.weight": (3 * hidden, hidden),
        "final_layer.adaLN_modulation.1.weight": (2 * hidden, hidden),
        "final_layer.linear.weight": (LATENT_CHANNELS, hidden),
    }
    for block in range(double):
        for stream in ("img", "txt"):
            prefix = f"double_blocks.{block}.{stream}"
            shapes[f"{prefix}_attn.qkv.weight"] = (3 * hidden, hidden)
            shapes[f"{prefix}_attn.norm.query_norm.scale"] = (128,)
            shapes[f"{prefix}_attn.norm.key_norm.scale"] = (128,)
            shapes[f"{prefix}_attn.proj.weight"] = (hidden, hidden)
            shapes[f"{prefix}_mlp.0.weight"] = (6 * hidden, hidden)
            shapes[f"{prefix}_mlp.2.weight"] = (hidden, 3 * hidden)
    for block in range(single):
        prefix = f"single_blocks.{block}"
        shapes[f"{prefix}.linear1.weight"] = (9 * hidden, hidden)
        shapes[f"{prefix}.linear2.weight"] = (hidden, 4 * hidden)
        shapes[f"{prefix}.norm.query_norm.scale"] = (128,)
        shapes[f"{prefix}.norm.key_norm.scale"] = (128,)
    return shapes


def make_dit_state(
    seed: int = 0,
    hidden: int = HIDDEN,
    double: int = DOUBLE,
    single: int = SINGLE,
    context: int = CONTEXT,
    mod_std: float = 0.3,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Every tensor of a Klein diffusion model. `hidden` must be a multiple of 128, the head's width."""
    if hidden % 128:
        raise ValueError(f"hidden must be a multiple of 128, not {hidden}.")
    draw = _Draw(seed, dtype)
    return {
        key: torch.ones(shape, dtype=dtype)
        if key.endswith("scale")
        else draw(*shape, std=mod_std if "modulation" in key else None)
        for key, shape in dit_shapes(hidden, double, single, context).items()
    }


def encoder_shapes(
    width: int = ENCODER_WIDTH,
    layers: int = ENCODER_LAYERS,
    vocabulary: int = VOCABULARY,
    queries: int = 128,
    keys: int = 128,
    mlp: int = ENCODER_WIDTH,
) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a Qwen3; the real 4B is (2560, 36, 151936, 4096, 1024, 9728)."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (queries, width)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (keys, width)
        shapes[f"{prefix}.self_attn.v_proj.weight"] = (keys, width)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (width, queries)
        shapes[f"{prefix}.self_attn.q_norm.weight"] = (128,)
        shapes[f"{prefix}.self_attn.k_norm.weight"] = (128,)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (mlp, width)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (mlp, width)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, mlp)
    return shapes


def make_text_encoder_state(
    seed: int = 0,
    width: int = ENCODER_WIDTH,
    layers: int = ENCODER_LAYERS,
    vocabulary: int = VOCABULARY,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """A Qwen3 of one head of 128. The vocabulary must stay whole: the real tokenizer's ids reach 151,668."""
    draw = _Draw(seed + 1, dtype)
    state: dict[str, Tensor] = {}
    for key, shape in encoder_shapes(width, layers, vocabulary).items():
        if "norm" in key:
            state[key] = 1 + draw(*shape, std=0.3 if key == "model.norm.weight" else 0.1)
        else:
            state[key] = draw(*shape, std=1.0 if "embed" in key else None)
    return state


def encoder_config(state: dict[str, Tensor]) -> dict[str, int]:
    """What ComfyUI's Qwen3 class must be told to hold `state` (all its layers, final norm included)."""
    return {
        "vocab_size": state["model.embed_tokens.weight"].shape[0],
        "hidden_size": state["model.embed_tokens.weight"].shape[1],
        "intermediate_size": state["model.layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": 1 + max(int(key.split(".")[2]) for key in state if ".layers." in key),
        "num_attention_heads": state["model.layers.0.self_attn.q_proj.weight"].shape[0] // 128,
        "num_key_value_heads": state["model.layers.0.self_attn.k_proj.weight"].shape[0] // 128,
    }


def _vae_config(encoder_channels: int, decoder_channels: int) -> dict[str, Any]:
    common = {
        "double_z": True,
        "z_channels": 32,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
        "batch_norm_latent": True,
    }
    return {
        "ddconfig": {**common, "ch": encoder_channels},
        "decoder_ddconfig": {**common, "ch": decoder_channels},
        "embed_dim": 32,
    }


def make_vae_state(
    seed: int = 0,
    encoder_channels: int = 128,
    decoder_channels: int = 32,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """A FLUX.2 VAE. ComfyUI detects one in a file only with an encoder of 128 channels (34 M parameters)."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    with torch.device("meta"):
        shapes = AutoencoderKL(**_vae_config(encoder_channels, decoder_channels)).state_dict()
    draw = _Draw(seed + 2, dtype)
    state: dict[str, Tensor] = {}
    for key, tensor in shapes.items():
        shape = tuple(tensor.shape)
        if key == "bn.running_var":
            state[key] = torch.full(shape, 3.0, dtype=dtype)
        elif key == "bn.num_batches_tracked":
            state[key] = torch.tensor(1)
        elif "norm" in key and key.endswith("weight"):
            state[key] = torch.ones(shape, dtype=dtype)
        elif len(shape) == 1:
            state[key] = draw(*shape, std=0.02)
        else:
            state[key] = draw(*shape, std=math.prod(shape[1:]) ** -0.5)
    return state


def write_tiny_files(folder: Path | str) -> TinyFiles:
    """Write the three files as safetensors (bf16, 120 MB together) under names the loader knows."""
    from safetensors.torch import save_file

    folder = Path(folder)
    files = TinyFiles(
        dit=folder / "diffusion_models" / "flux-2-klein-base-4b-tiny.safetensors",
        text_encoder=folder / "text_encoders" / "qwen_3_4b-tiny.safetensors",
        vae=folder / "vae" / "flux2-vae-tiny.safetensors",
    )
    for path in (files.dit, files.text_encoder, files.vae):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_file(make_dit_state(dtype=torch.bfloat16), files.dit)
    save_file(make_text_encoder_state(dtype=torch.bfloat16), files.text_encoder)
    save_file(make_vae_state(dtype=torch.bfloat16), files.vae)
    return files


def load_tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: Any) -> Any:
    """A ModelPatcher through ComfyUI's own loader; `sizes` go to `make_dit_state`."""
    import comfy.sd

    model = comfy.sd.load_diffusion_model_state_dict(make_dit_state(seed, dtype=dtype, **sizes))
    if model is None:
        raise RuntimeError("ComfyUI did not recognise the tiny Klein.")
    return model


def tiny_vae(seed: int = 0) -> Any:
    """A comfy VAE of FLUX.2's latent layout, both halves tiny (5 M parameters); 16 pixels a latent cell."""
    import comfy.sd

    state = make_vae_state(seed, encoder_channels=32, decoder_channels=32)
    vae = comfy.sd.VAE(state, config={"params": _vae_config(32, 32)})
    vae.latent_channels = LATENT_CHANNELS
    vae.downscale_ratio = vae.upscale_ratio = 16
    return vae


def tiny_clip(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: Any) -> Any:
    """The CLIP that ComfyUI's own Load CLIP (type flux2) would build here; every layer runs."""
    import comfy.sd
    import comfy.utils
    from comfy.text_encoders import flux

    state = make_text_encoder_state(seed, dtype=dtype, **sizes)

    class Target:
        clip = flux.klein_te(**comfy.sd.llama_detect([state]), model_type="qwen3_4b")
        tokenizer = flux.KleinTokenizer
        params: dict[str, Any] = {}

    return comfy.sd.CLIP(
        Target,
        parameters=comfy.utils.calculate_parameters(state),
        state_dict=[state],
        model_options={"qwen3_4b_model_config": encoder_config(state)},
    )


def random_conditioning(seed: int = 0, tokens: int = 24, width: int = CONTEXT, batch: int = 1) -> list:
    """A ComfyUI conditioning `[[tensor [batch, tokens, width], {}]]`, shaped as the encoder's output."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(batch, tokens, width, generator=generator), {"pooled_output": None}]]
