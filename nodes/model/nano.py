"""klein-nano, the model inside the pack, as the ordinary MODEL, CLIP and VAE of ComfyUI.

The transformer goes through ComfyUI's own FLUX.2 detection and loading; the text encoder keeps Klein's
tokenizer and chat template; the autoencoder has FLUX.2's latent layout. Only the two small nets in
`nano_text.py` and `nano_autoencoder.py` are ours. Files: `nano_weights/`, described in its model card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..base import seams
from ..base.errors import InputError
from ..base.sentences import say
from .nano_autoencoder import CHANNELS, KEPT, NanoAutoencoder
from .nano_text import PAD_TOKEN, QUERIES, NanoTextEncoder

comfy = seams.modules(
    "comfy.latent_formats",
    "comfy.ldm.models.autoencoder",
    "comfy.model_patcher",
    "comfy.sd",
    "comfy.text_encoders.flux",
    "comfy.utils",
)
WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")
# The prompt node knows klein-nano's encoder by its class, also where this ComfyUI cannot load it.
Flux2: Any = seams.find("comfy.latent_formats:Flux2") or object
VAE: Any = seams.find("comfy.sd:VAE") or object

WEIGHTS = Path(__file__).with_name("nano_weights")
READS_OWN_TEXT = "kleinod_nano"  # key of the wrapper that does, and nothing else
TOKENS = "qwen3_4b"  # the name under which Klein's tokenizer hands over its tokens


def load_nano(disable_dynamic: bool = False) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of klein-nano. A missing file is a ValueError: the pack was copied incompletely.

    disable_dynamic: without ComfyUI's dynamic memory, which asks for such a twin where prompts carry hooks.
    """
    weights = {name: _read(name) for name in ("transformer", "text_encoder", "autoencoder")}
    autoencoder = NanoAutoencoder()
    autoencoder.load_state_dict(weights["autoencoder"])
    autoencoder.requires_grad_(False)
    model = comfy.sd.load_diffusion_model_state_dict(weights["transformer"], disable_dynamic=disable_dynamic)
    model.model.latent_format = NanoLatentFormat(autoencoder)
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, READS_OWN_TEXT, read_own_text)
    clip = _clip(weights["text_encoder"], disable_dynamic)
    vae = NanoVAE(autoencoder, disable_dynamic)
    for place, patcher in enumerate((model, clip.patcher, vae.patcher)):
        # How ComfyUI makes a twin: for another GPU, or without dynamic memory where prompts carry hooks.
        patcher.cached_patcher_init = (_load_patchers, ("klein-nano",), place)
    return model, clip, vae


def _load_patchers(name: str, disable_dynamic: bool = False) -> tuple[Any, ...]:
    model, clip, vae = load_nano(disable_dynamic)
    return model, clip.patcher, vae.patcher


def read_own_text(executor, x, timestep, context, *args, **kwargs):
    """Short FLUX.2 conditioning is filled with zeros on the left by ComfyUI, up to the 512 tokens of Klein;
    klein-nano was trained with its own eight, which stand at the end."""
    return executor(x, timestep, context[:, -QUERIES:], *args, **kwargs)


def _read(name: str) -> dict[str, torch.Tensor]:
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(
            say(
                "diffusion_model is klein-nano (built in), but the pack lacks %1: install it again.",
                path.name,
            )
        )
    return comfy.utils.load_torch_file(str(path), safe_load=True)


class NanoLatentFormat(Flux2):
    """FLUX.2's latent layout with klein-nano's preview colours: what each code channel adds on average."""

    def __init__(self, autoencoder: NanoAutoencoder) -> None:
        super().__init__()
        colours = autoencoder.from_code.weight.detach().float().mean(dim=(2, 3))
        unused = [[0.0, 0.0, 0.0]] * (CHANNELS - KEPT)
        self.latent_rgb_factors = colours.tolist() + unused
        self.latent_rgb_factors_bias = autoencoder.from_code.bias.detach().float().tolist()
        self.taesd_decoder_name = None


class NanoTextModel(torch.nn.Module):
    """What `comfy.sd.CLIP` expects of a text encoder, around `NanoTextEncoder`."""

    def __init__(self, device=None, dtype=None, model_options=None) -> None:
        super().__init__()
        # The net is tiny and its tables decide everything after it: always float32.
        self.dtypes = {torch.float32}
        vocabulary = torch.zeros(model_options["nano_vocabulary"], dtype=torch.int64)
        self.encoder = NanoTextEncoder(vocabulary).to(device).requires_grad_(False)

    def set_clip_options(self, options: dict) -> None:
        """Layer and projection choices mean nothing here."""

    def reset_clip_options(self) -> None:
        """See `set_clip_options`."""

    def encode_token_weights(self, token_weight_pairs: dict) -> tuple[torch.Tensor, None]:
        """Klein tokens, one or more chunks -> (conditioning `[chunks, 8, 192]`, no pooled output)."""
        device = self.encoder.queries.device
        rows = [
            [entry[0] for entry in chunk if isinstance(entry[0], int) and entry[0] != PAD_TOKEN]
            for chunk in token_weight_pairs[TOKENS]
        ]
        longest = max(1, *map(len, rows)) if len(rows) > 1 else max(1, len(rows[0]))
        ids = torch.tensor([row + [PAD_TOKEN] * (longest - len(row)) for row in rows], device=device)
        return self.encoder(ids).float(), None

    def load_sd(self, state: dict[str, torch.Tensor]) -> torch.nn.modules.module._IncompatibleKeys:
        return self.encoder.load_state_dict(state, strict=False)


def _clip(state: dict[str, torch.Tensor], disable_dynamic: bool) -> Any:
    class Target:
        params: dict = {}
        clip = NanoTextModel
        tokenizer = comfy.text_encoders.flux.KleinTokenizer

    size = sum(tensor.numel() for tensor in state.values())
    options = {"nano_vocabulary": len(state["vocabulary"]), "dtype": torch.float32}
    return comfy.sd.CLIP(
        Target,
        parameters=size,
        state_dict=[state],
        model_options=options,
        disable_dynamic=disable_dynamic,
    )


class NanoVAE(VAE):
    """A ComfyUI VAE around `NanoAutoencoder`: 128 channels at 1/16, as FLUX.2's.

    The base class can only build nets it knows, so it gets the smallest of those, which is then replaced.
    """

    patcher: Any  # a CoreModelPatcher, as the base class makes it

    def __init__(self, autoencoder: NanoAutoencoder, disable_dynamic: bool = False) -> None:
        shape = {
            "double_z": True,
            "z_channels": CHANNELS,
            "resolution": 256,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1],
            "num_res_blocks": 0,
            "attn_resolutions": [],
            "dropout": 0.0,
        }
        config = {"params": {"ddconfig": shape, "embed_dim": CHANNELS}}
        stand_in = comfy.ldm.models.autoencoder.AutoencoderKL(**config["params"])
        super().__init__(sd=stand_in.state_dict(), config=config, dtype=torch.float32)
        self.latent_channels = 4 * CHANNELS
        self.downscale_ratio = self.upscale_ratio = 16
        self.first_stage_model = autoencoder.eval()
        kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
        self.patcher = kind(
            autoencoder,
            load_device=self.device,
            offload_device=self.patcher.offload_device,
        )
        self.size = None
        self.model_size()
