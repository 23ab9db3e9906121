"""Klein Sampler: the whole of sampling and decoding in one node."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..acceleration.inputs import make_level_input
from ..acceleration.settings import choose_acceleration
from ..base import sockets
from ..base.field_inputs import make_input
from ..base.notices import reports_errors, show_status
from ..base.oom_advice import advise_sampling
from ..base.stopping import count_early_ends, note_early_end
from .engine import sample_pictures
from .kept import KeptResults
from .own_seed import tell_seeds
from .request import DEFAULTS, SAMPLING_FIELDS, SamplingRequest


class KleinodSampler(io.ComfyNode):
    """Text-to-image, and image-to-image where a latent or an image is connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        more = {"seed": {"control_after_generate": True}}
        widgets = {field.name: make_input(field, **more.get(field.name, {})) for field in SAMPLING_FIELDS}
        return io.Schema(
            node_id="KleinodSampler",
            display_name="Klein Sampler",
            category="Kleinod",
            description="Makes pictures with FLUX.2 [klein]: noise, schedule, guidance, sampling and "
            "decoding. With scheduler Default it is bit for bit ComfyUI's own graph of Flux2Scheduler, "
            "CFGGuider, SamplerCustomAdvanced and VAE Decode.",
            search_aliases=[
                "flux2 sampler",
                "ksampler",
                "img2img",
                "text to image",
                "flux 2 klein",
                "generate",
                "txt2img",
                "image to image",
                "samplercustomadvanced",
                "edit",
                "upscale",
                "hires fix",
                "refine",
                "live preview",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A FLUX.2 [klein] model, from Klein Loader or Load Diffusion Model.",
                ),
                io.Conditioning.Input("positive", tooltip="What the picture shows, from Klein Prompt."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="What to steer away from, from Klein Prompt. Not used at guidance 1.",
                ),
                io.Vae.Input("vae", tooltip="The FLUX.2 VAE, which turns latents into pixels."),
                widgets["width"],
                widgets["height"],
                widgets["steps"],
                widgets["guidance"],
                widgets["seed"],
                widgets["scheduler"],
                widgets["results"],
                widgets["mu"],
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="Start from this latent (with its mask, if it has one) instead of noise alone. "
                    "An empty latent only sets the size.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Start from this picture instead of noise alone. Sides that are no multiple of "
                    "16 lose up to 15 pixels at the edges.",
                ),
                widgets["strength"],
                widgets["strength_mode"],
                make_level_input(
                    default="none",
                    optional=True,
                    tooltip="Skips steps that can be foreseen: low, medium, high and highest are speeds; "
                    "strong guidance and pictures that are hard to foresee lower them, as the report says. "
                    "Small details may change. none computes every step. Runs of less than 8 steps are "
                    "never accelerated.",
                ),
                sockets.Acceleration.Input(
                    "acceleration_settings",
                    optional=True,
                    tooltip="A Klein Acceleration with all the dials. It wins over acceleration.",
                ),
                widgets["image_guidance"],
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures, result by result."),
                io.Latent.Output(display_name="latent", tooltip="The same pictures as latents."),
                io.String.Output(
                    display_name="report",
                    tooltip="What ran: sampler, sigmas, seeds, model calls, times, notes and warnings.",
                ),
                io.String.Output(
                    display_name="acceleration_data",
                    tooltip="JSON: every step of every result, its sigma, computed or reused, forecast "
                    "error, and the settings behind it.",
                ),
                io.Image.Output(
                    display_name="acceleration_chart",
                    tooltip="The same as a picture: connect it to Preview Image.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> int:
        """Another one after a run that was stopped: its part is not the whole result of these inputs."""
        return count_early_ends(cls.hidden.unique_id) if cls.hidden is not None else 0

    @classmethod
    @reports_errors(advise_sampling)
    def execute(
        cls,
        model,
        positive,
        negative,
        vae,
        width,
        height,
        steps,
        guidance,
        seed,
        scheduler,
        results,
        mu=DEFAULTS["mu"],
        latent=None,
        image=None,
        strength=DEFAULTS["strength"],
        strength_mode=DEFAULTS["strength_mode"],
        acceleration="none",
        acceleration_settings=None,
        image_guidance=DEFAULTS["image_guidance"],
    ) -> io.NodeOutput:
        request = SamplingRequest(
            width, height, steps, guidance, seed, scheduler, results, mu, strength, strength_mode,
            image_guidance,
        )  # fmt: skip
        chosen = choose_acceleration(acceleration, acceleration_settings)
        with KeptResults(cls.hidden) as kept:
            made = sample_pictures(
                model, positive, negative, vae, request, latent=latent, image=image, acceleration=chosen,
                keep=kept.keep if request.results > 1 else None,
            )  # fmt: skip
        if cls.hidden is not None and cls.hidden.unique_id is not None:
            seeds = [seed for seed in made.report.request.seeds for _ in range(made.report.batch)]
            tell_seeds(cls.hidden.prompt, cls.hidden.extra_pnginfo, str(cls.hidden.unique_id), seeds)
        shown = made.strip()
        if made.report.asked and cls.hidden is not None:
            note_early_end(cls.hidden.unique_id)
            shown |= kept.images()
        show_status(cls.hidden, made.report.headline)
        outputs = (made.image, made.latent, made.report.text(), made.data(), made.chart())
        return io.NodeOutput(*outputs, ui=shown)
