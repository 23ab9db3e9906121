"""Klein Sampler: the whole of sampling and decoding in one node."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..acceleration.settings import choose_acceleration
from ..base import flux2, sockets
from ..base.notices import reports_errors, show_status
from ..base.oom_advice import advise_sampling
from ..base.schedulers import DEFAULT_SCHEDULER, LOCAL_SCHEDULER_NAMES
from ..base.values import ACCELERATION_LEVELS
from .engine import sample_pictures
from .request import DEFAULT_STRENGTH, SamplingRequest
from .schedule import MU_AUTO, MU_MODES, NOISE_LEVEL, STRENGTH_MODES

_SIDE = {"default": 1024, "min": flux2.MIN_SIZE, "max": flux2.MAX_SIZE, "step": flux2.CELL}


class KleinodSampler(io.ComfyNode):
    """Text-to-image, and image-to-image where a latent or an image is connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
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
                io.Int.Input(
                    "width",
                    **_SIDE,
                    tooltip="Width in pixels, a multiple of 16. Not used where a latent or an image is "
                    "connected: its own size counts. klein-nano is made for 128.",
                ),
                io.Int.Input(
                    "height",
                    **_SIDE,
                    tooltip="Height in pixels, a multiple of 16. Not used where a latent or an image is "
                    "connected: its own size counts. klein-nano is made for 128.",
                ),
                io.Int.Input(
                    "steps",
                    default=flux2.DEFAULT_STEPS,
                    min=flux2.MIN_STEPS,
                    max=flux2.MAX_STEPS,
                    tooltip="How often the picture is refined. Base models: 20 to 50. Distilled models: 4.",
                ),
                io.Float.Input(
                    "guidance",
                    default=flux2.DEFAULT_GUIDANCE,
                    min=flux2.MIN_GUIDANCE,
                    max=flux2.MAX_GUIDANCE,
                    step=0.1,
                    tooltip="How strongly the picture follows the prompt and leaves the negative prompt. "
                    "Base models: about 4. 1 runs without the negative prompt in half the time, which "
                    "distilled models need.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=flux2.MAX_SEED,
                    control_after_generate=True,
                    tooltip="Where the noise comes from: the same seed and settings give the same picture. "
                    "Result 2 has this seed plus 1, and so on.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(LOCAL_SCHEDULER_NAMES),
                    default=DEFAULT_SCHEDULER,
                    tooltip="How the steps are taken, by the names of Runware's API. Default (Euler on "
                    "FLUX.2's own schedule) is what Klein is made for. The report says what runs for each "
                    "name, and which names mean nothing for this kind of model. Kleinod Fast, the last of "
                    "the list, is this pack's own: try 14 steps of it instead of 28.",
                ),
                io.Int.Input(
                    "results",
                    default=1,
                    min=1,
                    max=flux2.MAX_RESULTS,
                    tooltip="How many pictures to make, one after another, each with its own seed (see "
                    "report).",
                ),
                io.Combo.Input(
                    "mu",
                    options=list(MU_MODES),
                    default=MU_AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="How long the steps stay with the composition before they turn to details. auto: "
                    "Black Forest Labs' value for this size and number of steps. fixed 2.02: ComfyUI's value "
                    "for its named schedulers. capped above 1 MP: auto, but large pictures keep the value of "
                    "1 megapixel; try it when they come out blurred or patterned.",
                ),
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
                io.Float.Input(
                    "strength",
                    default=DEFAULT_STRENGTH,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How much of a connected latent or image is remade: 0 returns it untouched, 0.3 "
                    "changes textures, 0.6 details, 0.8 most of it, 1 everything. Not used without one.",
                ),
                io.Combo.Input(
                    "strength_mode",
                    options=list(STRENGTH_MODES),
                    default=NOISE_LEVEL,
                    optional=True,
                    advanced=True,
                    tooltip="noise-level: strength is the share of noise the start is mixed with, and all "
                    "steps run. schedule: strength is the share of the steps that run, as with ComfyUI's "
                    "Split Sigmas Denoise; FLUX.2's schedule then starts far noisier (0.3 means 77% noise at "
                    "1024x1024).",
                ),
                io.Combo.Input(
                    "acceleration",
                    options=list(ACCELERATION_LEVELS),
                    default="none",
                    optional=True,
                    tooltip="Skips steps that can be foreseen: low, medium and high are speeds, the same for "
                    "every prompt. Small details may change. none computes every step. Runs of less than 8 "
                    "steps are never accelerated.",
                ),
                sockets.Acceleration.Input(
                    "acceleration_settings",
                    optional=True,
                    tooltip="A Klein Acceleration with all the dials. It wins over acceleration.",
                ),
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
            hidden=[io.Hidden.unique_id],
        )

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
        mu=MU_AUTO,
        latent=None,
        image=None,
        strength=DEFAULT_STRENGTH,
        strength_mode=NOISE_LEVEL,
        acceleration="none",
        acceleration_settings=None,
    ) -> io.NodeOutput:
        request = SamplingRequest(
            width, height, steps, guidance, seed, scheduler, results, mu, strength, strength_mode
        )
        chosen = choose_acceleration(acceleration, acceleration_settings)
        made = sample_pictures(
            model, positive, negative, vae, request, latent=latent, image=image, acceleration=chosen
        )
        show_status(cls.hidden, made.report.headline)
        outputs = (made.image, made.latent, made.report.text(), made.data(), made.chart())
        return io.NodeOutput(*outputs, ui=made.strip())
