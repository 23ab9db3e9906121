"""Whether diffusion model, text encoder and VAE are what they should be and belong together.

All checks look at headers only, before anything is loaded; each failure is one sentence naming the input,
what came, what was expected and what to do. FLUX.2 [klein] reads three stacked hidden states of its Qwen3
encoder (7680 = 3 x 2560 for 4B, 12288 = 3 x 4096 for 9B) and latents of 32 channels, patchified to 128.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..base.errors import InputError
from ..base.families import FLUX3_IMAGE, FLUX3_OTHER, FLUX3_WAY, find_flux3
from ..base.flux2 import FAMILIES
from ..base.safetensors import Header
from ..base.sentences import Sentence, say
from .facts import KleinFacts, count_blocks, facts_from_shapes

# Hidden states after these many layers feed the model (BFL's OUTPUT_LAYERS_QWEN3); later layers feed nothing.
ENCODER_TAPS = (9, 18, 27)
ENCODER_LAYERS = max(ENCODER_TAPS)

_QWEN3_NAMES = {
    1024: "Qwen3-0.6B",
    2048: "Qwen3-1.7B",
    5120: "Qwen3-14B",
    **{family.encoder_width: family.encoder for family in FAMILIES},
}
_ENCODER_FILES = {family.encoder_width: family.encoder_file for family in FAMILIES}
_MODEL_NAMES = {family.context_width: say("a %1 Klein", family.title) for family in FAMILIES}
# How a file chooses the attention of a block (ComfyUI from about 0.36): int8 on cards that have it.
_OWN_ATTENTION = ".comfy_attention.config"
_MODEL_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
_LAYER_WEIGHTS = (
    "input_layernorm", "post_attention_layernorm",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "self_attn.q_norm", "self_attn.k_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
_LORA_MARKS = ("lora_A.", "lora_down.", ".lora.down", "lokr_w")
# key fragment -> what a file with such a key is; the first match wins
_KINDS = (
    ("double_stream_modulation_img.linear.", say("FLUX.2 in the diffusers layout")),
    ("single_transformer_blocks.", say("a diffusers model")),
    ("double_stream_modulation_img.lin.", say("a %1 diffusion model", "FLUX.2")),
    ("individual_token_refiner.", say("a %1 diffusion model", "HunyuanVideo")),
    ("distilled_guidance_layer.", say("a %1 diffusion model", "Chroma")),
    ("double_blocks.0.img_attn.", say("a %1 diffusion model", "FLUX.1")),
    ("joint_blocks.0.", say("a %1 diffusion model", "Stable Diffusion 3")),
    ("context_refiner.0.", say("a %1 diffusion model", "Z-Image or Lumina")),
    ("transformer_blocks.0.img_mod.", say("a %1 diffusion model", "Qwen-Image")),
    ("input_blocks.0.0.", say("a Stable Diffusion 1.x, 2.x or SDXL model")),
    ("blocks.0.cross_attn.", say("a %1 diffusion model", "Wan")),
    ("pre_feedforward_layernorm.", say("a %1 text encoder", "Gemma")),
    ("self_attn.q_norm.weight", say("a %1 text encoder", "Qwen3")),
    ("encoder.block.0.layer.0.SelfAttention.", say("a %1 text encoder", "T5")),
    ("text_model.encoder.layers.", say("a %1 text encoder", "CLIP")),
    ("transformer.resblocks.0.", say("a %1 text encoder", "CLIP")),
    ("layers.0.self_attn.q_proj.bias", say("a %1 text encoder", "Qwen2.5")),
    ("layers.0.self_attn.q_proj.", say("a language model other than Qwen3")),
    ("taesd_decoder.", say("a preview VAE")),
    ("decoder.conv_in.", say("a VAE")),
    ("decoder.conv1.", say("a VAE")),
    ("decoder.mid", say("a VAE")),
    ("encoder.conv_in.", say("a VAE")),
)


def describe_kind(keys: Iterable[str]) -> str:
    """What sort of file has these keys, as words to fit "it is ..."."""
    keys = list(keys)
    if any(mark in key for key in keys for mark in _LORA_MARKS):
        return say("a LoRA")
    flux3 = find_flux3(keys)
    if flux3:
        return flux3
    for fragment, kind in _KINDS:
        if any(fragment in key for key in keys):
            return kind
    return say("something this node does not know")


def _list(names: list[str]) -> str:
    shown, more = ", ".join(names[:3]), len(names) - 3
    return say("%1 and %2 more", shown, more) if more > 0 else shown


def _missing(label: str, names: list[str]) -> ValueError:
    return InputError(
        say(
            "%1 lacks %2 of the weights it should hold (%3): it was saved or converted incompletely, "
            "so download the original.",
            label,
            len(names),
            _list(names),
        )
    )


def inside_model(header: Header) -> Header:
    """A diffusion model's header without the prefix that whole checkpoints put before its keys."""
    for prefix in _MODEL_PREFIXES:
        if f"{prefix}img_in.weight" in header.tensors:
            return header.without_prefix(prefix)
    return header


def check_diffusion_model(header: Header, variant: str = "auto") -> KleinFacts:
    """Facts of the Klein in this file, or ValueError saying what the file is instead or lacks."""
    header = inside_model(header)
    tensors = header.tensors
    kind = describe_kind(tensors)
    if kind == "FLUX.2 in the diffusers layout":
        raise InputError(
            say(
                "%1 is %2, which ComfyUI does not read: use the single-file version, "
                "for example flux-2-klein-base-4b.safetensors.",
                header.label,
                kind,
            )
        )
    if kind in (FLUX3_IMAGE, FLUX3_OTHER):
        raise InputError(
            say(
                "%1 is %2, another family than FLUX.2 [klein], which is what Kleinod runs: "
                "%3. For this node pick a FLUX.2 Klein, for example flux-2-klein-base-4b.safetensors.",
                header.label,
                kind,
                FLUX3_WAY,
            )
        )
    if kind != "a FLUX.2 diffusion model":
        raise InputError(
            say(
                "%1 is not FLUX.2 [klein]; it is %2: pick a Klein, for example "
                "flux-2-klein-base-4b.safetensors.",
                header.label,
                kind,
            )
        )
    if any(key.startswith("guidance_in.") for key in tensors):
        raise InputError(
            say(
                "%1 is FLUX.2 [dev], not [klein]: it needs another text encoder and guidance, so "
                "load it with ComfyUI's own loaders or pick a Klein.",
                header.label,
            )
        )
    missing = [name for name in _model_weights(tensors) if not _present(tensors, name)]
    if missing:
        raise _missing(header.label, missing)
    hidden, channels = header.matrix("img_in.weight")
    if hidden % 128 or channels != 128:
        raise InputError(
            say(
                "%1 is %2 wide and reads %3 channels, but a FLUX.2 [klein] is a "
                "multiple of 128 wide and reads 128: pick a Klein.",
                header.label,
                hidden,
                channels,
            )
        )
    return facts_from_shapes(
        header.shapes,
        context_width=header.matrix("txt_in.weight")[1],
        file_name=header.name,
        metadata=header.metadata,
        choice=variant,
        parameters=header.parameters,
        dtype=header.dtype,
        own_attention=sum(key.endswith(_OWN_ATTENTION) for key in tensors),
    )


def _model_weights(tensors: Mapping[str, object]) -> list[str]:
    names = ["img_in", "txt_in", "time_in.in_layer", "time_in.out_layer", "single_stream_modulation.lin"]
    names += ["double_stream_modulation_img.lin", "double_stream_modulation_txt.lin"]
    names += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    norms = ["norm.query_norm", "norm.key_norm"]
    for index in range(max(1, count_blocks(tensors, "double_blocks"))):
        for stream in ("img", "txt"):
            parts = [f"attn.{part}" for part in ("qkv", "proj", *norms)] + ["mlp.0", "mlp.2"]
            names += [f"double_blocks.{index}.{stream}_{part}" for part in parts]
    for index in range(count_blocks(tensors, "single_blocks")):
        names += [f"single_blocks.{index}.{part}" for part in ("linear1", "linear2", *norms)]
    return names


def _present(tensors: Mapping[str, object], name: str) -> bool:
    return f"{name}.weight" in tensors or (name.endswith("_norm") and f"{name}.scale" in tensors)


def sees_pictures(header: Header) -> bool:
    """Whether a text encoder's file is a vision-language model's: Qwen3-VL has Qwen3's sizes and names."""
    return any(
        key.startswith(("model.language_model.", "model.visual.", "visual.")) for key in header.tensors
    )


def inside_encoder(header: Header) -> Header:
    """A text encoder's header in plain Qwen3 names; Qwen3-VL files nest it one level deeper."""
    deeper = "model.language_model."
    if f"{deeper}embed_tokens.weight" not in header.tensors:
        return header
    renamed = {key.replace(deeper, "model.", 1): entry for key, entry in header.tensors.items()}
    return Header(header.field, header.name, renamed, header.metadata)


def check_text_encoder(header: Header, facts: KleinFacts) -> dict[str, int]:
    """The encoder's sizes as ComfyUI's Qwen3 classes name them, or ValueError when it does not fit the model.

    `num_hidden_layers` is what Klein reads (27), `layers_stored` what the file holds.
    """
    header = inside_encoder(header)
    tensors = header.tensors
    kind = describe_kind(tensors)
    if kind != "a Qwen3 text encoder" or "model.embed_tokens.weight" not in tensors:
        wanted = _ENCODER_FILES.get(facts.context_width // 3, say("the Qwen3 encoder made for it"))
        raise InputError(
            say("%1 is not a Qwen3 text encoder; it is %2: pick %3.", header.label, kind, wanted)
        )
    vocabulary, width = header.matrix("model.embed_tokens.weight")
    if 3 * width != facts.context_width:
        raise InputError(encoder_mismatch(header.label, width, facts))
    layers = count_blocks(tensors, "model.layers")
    if layers < ENCODER_LAYERS:
        raise InputError(
            say(
                "%1 has %2 layers, but Klein reads the output of layer %3: "
                "pick an encoder that was not shortened.",
                header.label,
                layers,
                ENCODER_LAYERS,
            )
        )
    names = [f"model.layers.{index}.{part}" for index in range(ENCODER_LAYERS) for part in _LAYER_WEIGHTS]
    missing = [name for name in names if f"{name}.weight" not in tensors]
    if missing:
        raise _missing(header.label, missing)
    queries, keys, hidden = (
        header.matrix(f"model.layers.0.{part}.weight")[0]
        for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj")
    )
    if min(queries, keys) < 128 or queries % 128 or keys % 128:
        raise InputError(
            say("%1 has attention heads of another width than Qwen3's 128: pick Qwen3.", header.label)
        )
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_attention_heads": queries // 128,
        "num_key_value_heads": keys // 128,
        "num_hidden_layers": ENCODER_LAYERS,
        "layers_stored": layers,
    }


def encoder_mismatch(label: str, width: int, facts: KleinFacts) -> Sentence:
    """The sentence for a Qwen3 of another width than the model reads."""
    came = _QWEN3_NAMES.get(width) or say("a Qwen3 of width %1", width)
    model = _MODEL_NAMES.get(facts.context_width) or say("a Klein of text width %1", facts.context_width)
    read = facts.context_width // 3
    needed = _QWEN3_NAMES.get(read) or say("a Qwen3 of width %1", read)
    file = _ENCODER_FILES.get(read)
    if not file:
        return say("%1 is %2, but diffusion_model is %3: pick %4.", label, came, model, needed)
    return say(
        "%1 is %2, but diffusion_model is %3: pick %4, for example %5.", label, came, model, needed, file
    )


def encoder_name(width: int) -> str:
    """ "Qwen3-4B" for 2560."""
    return _QWEN3_NAMES.get(width, f"Qwen3 of width {width}")


def check_vae(header: Header) -> None:
    """ValueError unless this is a whole FLUX.2 VAE: 32 latent channels with batch-norm statistics."""
    tensors = header.tensors
    advice = say("pick the FLUX.2 VAE, flux2-vae.safetensors.")
    kind = describe_kind(tensors)
    if kind != "a VAE":
        raise InputError(say("%1 is not a VAE; it is %2: %3", header.label, kind, advice))
    stem = tensors.get("decoder.conv_in.weight")
    if stem is None or len(stem.shape) < 2:
        raise InputError(say("%1 has no decoder that this node knows: %2", header.label, advice))
    channels = stem.shape[1]
    if channels == 16 and len(stem.shape) == 4:
        raise InputError(
            say(
                "%1 is the VAE of FLUX.1, SD3 or Z-Image (16 latent channels), but FLUX.2 [klein] "
                "needs 32: %2",
                header.label,
                advice,
            )
        )
    if channels != 32 or len(stem.shape) != 4 or "bn.running_mean" not in tensors:
        raise InputError(
            say("%1 is the VAE of another model (%2 latent channels): %3", header.label, channels, advice)
        )
    needed = (
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
        "decoder.conv_out.weight",
        "bn.running_var",
    )
    missing = [key for key in needed if key not in tensors]
    if missing:
        raise _missing(header.label, missing)


def describe_width(width: int) -> str:
    """Which text encoder makes conditioning of this width, in words."""
    known = {
        192: say("klein-nano's encoder"),
        768: "CLIP-L, Stable Diffusion 1.5",
        1280: "CLIP-G",
        2048: "SDXL, T5",
        2304: "Gemma 2, Lumina",
        2560: say("Qwen3-4B loaded for Z-Image: set the Load CLIP type to flux2"),
        3584: "Qwen2.5-VL, Qwen-Image",
        4096: "T5-XXL, FLUX.1, SD3",
        **{family.context_width: f"{family.encoder}, FLUX.2 [klein] {family.title}" for family in FAMILIES},
        15360: "Mistral 3, FLUX.2 [dev]",
        20480: "Qwen3-VL-4B, FLUX 3",
    }
    return known.get(width) or say("an encoder this node does not know")
