"""Loading a Klein set, checked first, through ComfyUI.

Everything a wrong choice can cause is found in the files' headers before anything is loaded. Diffusion model
and VAE go through ComfyUI's own loaders; the text encoder is built from ComfyUI's own Klein classes without
the layers whose output nobody reads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from safetensors import SafetensorError

from ..base import seams
from ..base.errors import InputError
from ..base.families import name_other_family
from ..base.flux2 import KLEIN_4B, find_family_of_encoder
from ..base.notices import show, warn
from ..base.safetensors import read_header
from ..base.sentences import Sentence, join, say
from .choices import (
    AUTOMATIC,
    NANO,
    LoaderRequest,
    describe_unused,
    gguf_quantisation,
    is_gguf,
    text_encoders_to_try,
    vaes_to_try,
)
from .facts import KleinFacts, describe, facts_from_sizes, nano_facts, notice_processor
from .folders import TAEF2, gguf_loader, list_text_encoders, list_vaes, path_of
from .pairing import (
    ENCODER_LAYERS,
    check_diffusion_model,
    check_text_encoder,
    check_vae,
    encoder_name,
    sees_pictures,
)
from .text_engine import check_loaded_encoder, drop_unread_layers, load_text_encoder

comfy = seams.modules("comfy.model_management", "comfy.utils")
comfy_nodes = seams.find("nodes")

logger = logging.getLogger("kleinod.model")

ATTACHMENT = "kleinod_facts"


@dataclass(frozen=True)
class KleinSet:
    """A diffusion model, text encoder and VAE that belong together, and what is known of them."""

    model: Any
    clip: Any
    vae: Any
    info: str


@dataclass(frozen=True)
class _Encoder:
    name: str
    sizes: dict[str, int] | None
    sees_pictures: bool = False


def facts_of(model: Any, file_name: str = "", choice: str = "auto") -> KleinFacts | None:
    """Facts of any MODEL: those the Klein Loader attached, else read off the model; None if it is no Klein.

    A model from ComfyUI's own Load Diffusion Model still knows its file's name, which tells base from
    distilled.
    """
    attached = model.get_attachment(ATTACHMENT)
    if attached is not None:
        return attached
    config = model.model.model_config.unet_config
    if config.get("image_model") != "flux2" or config.get("guidance_embed"):
        return None
    if not file_name and model.cached_patcher_init is not None:
        file_name = os.path.basename(str(model.cached_patcher_init[1][0]))
    return facts_from_sizes(
        config["hidden_size"],
        config["depth"],
        config["depth_single_blocks"],
        config["context_in_dim"],
        file_name=file_name,
        choice=choice,
        dtype=str(model.model.get_dtype()).removeprefix("torch."),
    )


def load_set(request: LoaderRequest) -> KleinSet:
    """Check, then load, the three parts of a Klein. Raises ValueError naming the input at fault."""
    seams.require(seams.LOADING)
    if request.diffusion_model == NANO:
        return _load_nano_set(request)
    model = None
    if is_gguf(request.diffusion_model):
        model, facts = _load_gguf_model(request)
    else:
        path = path_of("diffusion_models", request.diffusion_model)
        header = read_header(path, "diffusion_model", request.diffusion_model)
        facts = check_diffusion_model(header, request.variant)
    encoder = choose_text_encoder(request.text_encoder, facts)
    vae_name = choose_vae(request.vae)
    progress = comfy.utils.ProgressBar(3)
    if model is None:
        model = _load_model(request)
        if request.weight_dtype != "default":
            facts = replace(facts, dtype=f"{facts.dtype} loaded as {request.weight_dtype}")
    model.set_attachments(ATTACHMENT, facts)
    _step(progress)
    clip = _load_clip(encoder, request.text_encoder_device, facts)
    _step(progress)
    vae = _load_vae(vae_name)
    _step(progress)
    lines = describe(facts)
    lines[3:3] = [_describe_encoder(encoder, facts, request.text_encoder_device), say("VAE: %1", vae_name)]
    logger.info("Loaded %s with %s and %s.", facts.title, encoder.name, vae_name)
    notice = notice_processor(facts, model.load_device.type, facts.native_size)
    if notice:
        lines.append(notice)
        show(notice)
    return KleinSet(model, clip, vae, "\n".join(lines))


def _step(progress: Any) -> None:
    progress.update(1)
    comfy.model_management.throw_exception_if_processing_interrupted()


def _load_nano_set(request: LoaderRequest) -> KleinSet:
    seams.require(seams.NANO)
    try:
        from .nano import load_nano
    except ModuleNotFoundError as error:
        raise InputError(
            say("diffusion_model is %1, which this copy of the pack lacks: pick a file.", NANO)
        ) from error
    model, clip, vae = load_nano()
    config = model.model.model_config.unet_config
    sizes = (config[key] for key in ("hidden_size", "depth", "depth_single_blocks", "context_in_dim"))
    facts = nano_facts(*sizes)
    model.set_attachments(ATTACHMENT, facts)
    lines = [
        *describe(facts),
        say("Text encoder and VAE are built in too: the loader's other pickers are not used."),
    ]
    if unused := describe_unused(request):
        lines.append(unused)
        warn(unused)
    return KleinSet(model, clip, vae, "\n".join(lines))


@contextmanager
def _loading(field: str, name: str) -> Iterator[None]:
    """Turn ComfyUI's many ways to fail on odd weights into one sentence; lack of memory stays what it is."""
    try:
        yield
    except (RuntimeError, KeyError, IndexError, TypeError, AttributeError, SafetensorError) as error:
        if comfy.model_management.is_oom(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            say(
                '%1 "%2" could not be loaded although it looked right (ComfyUI says: %3): '
                "download it again, or pick the original file.",
                field,
                name,
                reason,
            )
        ) from error


def _load_gguf_model(request: LoaderRequest) -> tuple[Any, KleinFacts]:
    name = request.diffusion_model
    load = gguf_loader("UnetLoaderGGUF", "diffusion_model", name)
    if request.weight_dtype != "default":
        raise InputError(
            say(
                'weight_dtype is %1, but diffusion_model "%2" is a GGUF file with its '
                "own: set weight_dtype to default.",
                request.weight_dtype,
                name,
            )
        )
    with _loading("diffusion_model", name):
        model = load(unet_name=name)[0]
    facts = facts_of(model, name, request.variant)
    if facts is None:
        kind = name_other_family(model) or "FLUX.2 [dev]"
        raise InputError(
            say(
                'diffusion_model "%1" is %2, not FLUX.2 [klein]: pick a Klein GGUF file, or load this '
                "one with the nodes made for it.",
                name,
                kind,
            )
        )
    return model, replace(facts, dtype=gguf_quantisation(name))


def _load_model(request: LoaderRequest) -> Any:
    with _loading("diffusion_model", request.diffusion_model):
        return comfy_nodes.UNETLoader().load_unet(request.diffusion_model, request.weight_dtype)[0]


def choose_text_encoder(choice: str, facts: KleinFacts) -> _Encoder:
    """The text encoder that a choice means, for this model. Raises InputError where none fits."""
    if is_gguf(choice):
        gguf_loader("CLIPLoaderGGUF", "text_encoder", choice)
        return _Encoder(choice, None)
    if choice != AUTOMATIC:
        header = read_header(path_of("text_encoders", choice), "text_encoder", choice)
        return _Encoder(choice, check_text_encoder(header, facts), sees_pictures(header))
    width = facts.context_width // 3
    names = [name for name in list_text_encoders() if not is_gguf(name)]
    # A vision-language model of the same sizes is another language model than the one Klein was trained with.
    second_best = None
    for name in text_encoders_to_try(names, width):
        try:
            encoder = choose_text_encoder(name, facts)
        except (ValueError, OSError) as error:
            logger.debug("Not the text encoder: %s", error)
            continue
        if not encoder.sees_pictures:
            return encoder
        second_best = second_best or encoder
    if second_best is not None:
        return second_best
    family = find_family_of_encoder(width) or KLEIN_4B
    raise InputError(
        say(
            "text_encoder is automatic, but no file in models/text_encoders is the %1 this "
            "model needs: download %2 into "
            "that folder.",
            encoder_name(width),
            family.encoder_file,
        )
    )


def choose_vae(choice: str) -> str:
    """The name of the VAE that a choice means. Raises InputError where none fits."""
    if choice == TAEF2:
        return choice
    if choice != AUTOMATIC:
        check_vae(read_header(path_of("vae", choice), "vae", choice))
        return choice
    for name in vaes_to_try(list_vaes()):
        try:
            return choose_vae(name)
        except (ValueError, OSError) as error:
            logger.debug("Not the VAE: %s", error)
    raise InputError(
        say(
            "vae is automatic, but no file in models/vae is the FLUX.2 VAE: "
            "download flux2-vae.safetensors into that folder."
        )
    )


def _load_clip(encoder: _Encoder, device: str, facts: KleinFacts) -> Any:
    if encoder.sizes is None:
        load = gguf_loader("CLIPLoaderGGUF", "text_encoder", encoder.name)
        with _loading("text_encoder", encoder.name):
            clip = load(clip_name=encoder.name, type="flux2")[0]
        check_loaded_encoder(clip, encoder.name, facts)
        drop_unread_layers(clip)
        return clip
    if seams.missing(seams.TRIMMING):
        with _loading("text_encoder", encoder.name):
            whole = comfy_nodes.CLIPLoader()
            return whole.load_clip(encoder.name, type="flux2", device=device)[0]
    with _loading("text_encoder", encoder.name):
        return load_text_encoder(path_of("text_encoders", encoder.name), encoder.sizes, device)


def _describe_encoder(encoder: _Encoder, facts: KleinFacts, device: str) -> Sentence:
    name = encoder_name(facts.context_width // 3)
    words = [Sentence(f"{encoder.name} ({name})")]
    if encoder.sizes and seams.missing(seams.TRIMMING):
        words.append(seams.missing(seams.TRIMMING))
    elif encoder.sizes:
        layers = encoder.sizes["layers_stored"]
        words.append(say("%1 of %2 layers run, no other is read", ENCODER_LAYERS, layers))
    else:
        words.append(say("%1 layers run, no other is read", ENCODER_LAYERS))
    if encoder.sees_pictures:
        seen = name.replace("Qwen3", "Qwen3-VL")
        words.append(
            say(
                "the file is %1, a vision-language model of the same sizes, not the %2 that Klein was "
                "trained with",
                seen,
                name,
            )
        )
    if encoder.sizes is None and device != "default":
        words.append(say("ComfyUI-GGUF decides where it runs: text_encoder_device %1 has no effect", device))
    return say("Text encoder: %1", join("; ", words))


def _load_vae(name: str) -> Any:
    with _loading("vae", name):
        vae = comfy_nodes.VAELoader().load_vae(name)[0]
    if name == TAEF2:
        # ComfyUI 0.30 leaves both at 8, so sides not divisible by 16 fail to encode and tiles do not fit.
        vae.downscale_ratio = vae.upscale_ratio = 16
    return vae
