"""Klein Loader and Klein Prompt: how every Klein graph begins."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.notices import reports_errors, warn
from ..base.oom_advice import advise_loading, advise_prompt
from ..base.references import References
from ..base.sentences import join
from ..references.control import control_references
from ..references.engine import add_references, latents_of
from ..references.report import describe_for_prompt
from . import engine, folders, text_engine
from .choices import (
    AUTOMATIC,
    DEVICES,
    NANO,
    WEIGHT_DTYPES,
    LoaderRequest,
    default_model,
    default_text_encoder,
    default_vae,
)
from .facts import VARIANTS
from .prompt import warn_of_syntax


class KleinodLoader(io.ComfyNode):
    """Diffusion model, text encoder and VAE, checked as a set before anything is loaded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        models, encoders, vaes = (
            folders.list_diffusion_models(),
            folders.list_text_encoders(),
            folders.list_vaes(),
        )
        return io.Schema(
            node_id="KleinodLoader",
            display_name="Klein Loader",
            category="Kleinod",
            description="Loads FLUX.2 [klein]: diffusion model, text encoder and VAE, checked as a set. "
            "klein-nano, a tiny model of a small drawn world, is built in and needs no files.",
            search_aliases=[
                "flux2",
                "flux 2 klein",
                "load klein",
                "unet loader",
                "checkpoint",
                "klein-nano",
                "load diffusion model",
                "model loader",
                "gguf",
            ],
            inputs=[
                io.Combo.Input(
                    "diffusion_model",
                    options=models,
                    default=default_model(models),
                    tooltip="The Klein to load, from models/diffusion_models (.gguf needs the ComfyUI-GGUF "
                    f"pack). {NANO} needs no files and ignores the other pickers.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    advanced=True,
                    tooltip="How the diffusion model's weights are kept. default: as in the file. fp8 "
                    "halves the memory of a bf16 file at a small loss; _fast also multiplies in fp8 on "
                    "cards that can. Leave it at default for files that are already fp8, and for "
                    "klein-nano.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=[AUTOMATIC, *encoders],
                    default=default_text_encoder(encoders),
                    tooltip="Qwen3-4B for a 4B Klein, Qwen3-8B for a 9B, from models/text_encoders. "
                    "automatic takes the first file there that fits the model. Not used with klein-nano.",
                ),
                io.Combo.Input(
                    "text_encoder_device",
                    options=list(DEVICES),
                    default="default",
                    advanced=True,
                    tooltip="cpu keeps the text encoder out of the graphics card's memory; prompts take "
                    "longer. Not used with klein-nano.",
                ),
                io.Combo.Input(
                    "vae",
                    options=[AUTOMATIC, *vaes],
                    default=default_vae(vaes),
                    tooltip="The FLUX.2 VAE, from models/vae. automatic takes the first file there that is "
                    "one. Not used with klein-nano.",
                ),
                io.Combo.Input(
                    "variant",
                    options=list(VARIANTS),
                    default="auto",
                    tooltip="Base and distilled weights look alike from inside. auto goes by the file's "
                    "metadata and name (official names say base for Base); choose here when that is wrong. "
                    "It sets the steps and guidance that other Klein nodes recommend, not the model. Not "
                    "used with klein-nano.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="For Klein Sampler, Klein LoRA Stack or any core node."
                ),
                io.Clip.Output(
                    display_name="clip", tooltip="The text encoder, for Klein Prompt and Klein Face Refiner."
                ),
                io.Vae.Output(display_name="vae", tooltip="Turns pictures into latents and back."),
                io.String.Output(
                    display_name="info",
                    tooltip="What was loaded, how base or distilled was decided, recommended steps and "
                    "guidance, licence.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: str) -> str:
        return folders.fingerprint(LoaderRequest(**inputs))

    @classmethod
    @reports_errors(advise_loading)
    def execute(
        cls,
        diffusion_model: str,
        weight_dtype: str,
        text_encoder: str,
        text_encoder_device: str,
        vae: str,
        variant: str,
    ) -> io.NodeOutput:
        request = LoaderRequest(
            diffusion_model, weight_dtype, text_encoder, text_encoder_device, vae, variant
        )
        loaded = engine.load_set(request)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.info)


class KleinodPrompt(io.ComfyNode):
    """Positive and negative text, and the references they speak of, to conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodPrompt",
            display_name="Klein Prompt",
            category="Kleinod",
            description="Turns a positive and a negative prompt, and the reference images they speak of, "
            "into what the Klein Sampler is steered by. Prompts longer than 512 tokens are cut as in the "
            "original software, and info says which words were lost.",
            search_aliases=[
                "flux2 prompt",
                "clip text encode",
                "negative prompt",
                "text encoder",
                "qwen",
                "klein text",
                "conditioning",
            ],
            inputs=[
                io.Clip.Input(
                    "clip", tooltip="The CLIP of the Klein Loader, or of Load CLIP with type flux2."
                ),
                io.String.Input(
                    "positive",
                    multiline=True,
                    default="",
                    tooltip="What the picture shows, in plain sentences. Weights like (word:1.2) are not "
                    "understood: they are read as text. Reference images are called image 1, image 2 and "
                    "so on.",
                ),
                io.String.Input(
                    "negative",
                    multiline=True,
                    default="",
                    tooltip="What to steer away from. Acts on Base with guidance above 1; distilled Klein "
                    "ignores it.",
                ),
                sockets.References.Input(
                    "references",
                    optional=True,
                    tooltip="Images that the prompt speaks of, from Klein References: image 1, image 2 and "
                    "so on, in their order. They go to the positive and the negative prompt; needs vae.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE of the Klein Loader; needed for references only. Each image is encoded "
                    "once, however often the prompt changes.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="What the picture shall show, with the references."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="What it shall stay away from, with the same references."
                ),
                io.String.Output(
                    display_name="info",
                    tooltip="Tokens used of 512 by each prompt, the words that were cut, if any, and which "
                    "image is which.",
                ),
            ],
        )

    @classmethod
    @reports_errors(advise_prompt)
    def execute(
        cls,
        clip: object,
        positive: str,
        negative: str,
        references: References | None = None,
        vae: object = None,
    ) -> io.NodeOutput:
        latents = [] if references is None else latents_of(vae, references)
        positive_conditioning, positive_report = text_engine.encode_prompt(clip, positive, "positive")
        negative_conditioning, negative_report = text_engine.encode_prompt(clip, negative, "negative")
        info = f"{positive_report.describe()}\n{negative_report.describe()}"
        if references is not None:
            control = control_references(references)
            positive_conditioning = add_references(positive_conditioning, latents, control)
            negative_conditioning = add_references(negative_conditioning, latents, control)
            info += f"\n{describe_for_prompt(references, positive)}"
        warnings = [
            warning
            for text, field in ((positive, "positive"), (negative, "negative"))
            for warning in (
                *warn_of_syntax(text, field), *text_engine.warn_of_unknown_words(clip, text, field),
            )
        ]  # fmt: skip
        if warnings:
            warn(join("\n", warnings))
        info = "\n".join([info, *warnings])
        return io.NodeOutput(positive_conditioning, negative_conditioning, info)
