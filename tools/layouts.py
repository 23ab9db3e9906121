"""How the shipped workflows look: places, groups and the note; `tools/templates.py` applies it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Place = tuple[int, int, int, int]
"""x, y, width, height in canvas units; the title bar of a node lies 30 above y."""

BLUE, GREEN, GREY = "#3f789e", "#4d7c59", "#444"

MODELS = (
    {
        "name": "flux-2-klein-base-4b.safetensors",
        "url": "https://huggingface.co/Comfy-Org/flux2-klein/resolve/main/split_files/diffusion_models/"
        "flux-2-klein-base-4b.safetensors",
        "directory": "diffusion_models",
    },
    {
        "name": "qwen_3_4b.safetensors",
        "url": "https://huggingface.co/Comfy-Org/flux2-klein/resolve/main/split_files/text_encoders/"
        "qwen_3_4b.safetensors",
        "directory": "text_encoders",
    },
    {
        "name": "flux2-vae.safetensors",
        "url": "https://huggingface.co/Comfy-Org/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
        "directory": "vae",
    },
)


@dataclass(frozen=True)
class Note:
    title: str
    place: Place
    text: str


@dataclass(frozen=True)
class Group:
    title: str
    place: Place
    colour: str = BLUE


def draw_groups(groups: Iterable[Group]) -> list[dict[str, object]]:
    """The groups as a workflow file or a subgraph in one holds them."""
    return [
        {
            "id": index,
            "title": group.title,
            "bounding": list(group.place),
            "color": group.colour,
            "font_size": 22,
            "flags": {},
        }
        for index, group in enumerate(groups, start=1)
    ]


@dataclass(frozen=True)
class Layout:
    """`nodes`: the place of every node by its id in the API twin. `fixed_seeds`: Run keeps the seeds, because
    the graph compares pictures.
    """

    nodes: dict[str, Place]
    groups: tuple[Group, ...] = ()
    notes: tuple[Note, ...] = ()
    models: tuple[dict[str, str], ...] = MODELS
    fixed_seeds: bool = False
    view: dict[str, object] = field(default_factory=lambda: {"scale": 0.8, "offset": [80, 120]})


_LINKS = "\n".join(
    f"- [{model['name']}]({model['url']}) in `models/{model['directory']}`" for model in MODELS
)

_REAL_WEIGHTS = f"""\
## Use the real FLUX.2 [klein]

This workflow starts with **klein-nano**, a tiny model that is built in. It knows 64 drawn things on 8
colours and is here so that Run works at once, on any machine. For real pictures:

1. Download these files (4B Base, Apache 2.0):
{_LINKS}
2. Press **R** to refresh the pickers, then choose `flux-2-klein-base-4b.safetensors` in **Klein Loader**.
3. Set width and height to **1024** in **Klein Sampler**.
"""

LAYOUTS = {
    "Klein - Text to Image": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 360),
            "3": (460, 60, 380, 690),  # room for the live preview
            "4": (900, 60, 520, 560),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 440, 790)),
            Group("2  Picture", (440, -20, 1000, 790), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 520),
                """\
# Text to image

Press **Run**. Four pictures appear on the right, each from its own seed.

**Try**: `a red apple on a yellow background`, `a panda on a pink background`, `a rocket next to a star on a
purple background` (width 192), or guidance 1 instead of 4, which switches the guidance off.

The **report** output of the sampler tells what really ran: connect it to *Preview as Text*.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Image to Image": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 360),
            "3": (460, 60, 380, 690),
            "6": (920, 60, 400, 330),
            "4": (920, 450, 400, 300),
            "5": (1380, 60, 380, 690),
            "7": (1820, 60, 480, 560),
        },
        groups=(
            Group("1  A picture to start from", (-20, -20, 880, 790)),
            Group("2  The same picture, repainted", (900, -20, 1420, 790), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 620),
                """\
# Image to image

*First picture* paints; *Repainted picture* takes it as **image** and repaints it with another prompt.

**Your own picture**: add *Load Image* and connect it to **image** of *Repainted picture*; then delete
*First picture*. Width and height are taken from the picture.

**strength** is a noise level: 0 returns the picture, 0.6 keeps the composition, 0.8 keeps colours and places,
1 keeps nothing. **strength_mode** *schedule* counts as other programs do; with FLUX.2 even 0.3 is then 77%
noise.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Accelerated": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 360),
            "3": (460, 60, 380, 720),
            "6": (900, 60, 440, 480),
            "4": (0, 900, 400, 700),
            "5": (460, 900, 380, 720),
            "7": (900, 900, 440, 480),
            "8": (1440, 60, 820, 560),
            "10": (1440, 700, 820, 340),
            "9": (1440, 1120, 820, 260),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 440, 820)),
            Group("2  Every step computed", (440, -20, 920, 820)),
            Group("3  The same picture, accelerated", (-20, 820, 1380, 820), GREEN),
            Group("4  What was skipped", (1420, -20, 860, 1420), GREY),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 800),
                """\
# The same picture, faster

Press **Run**. Both pictures come from one seed: above every step is computed, below **Klein Acceleration**
leaves out those that can be foreseen. The chart shows which, and how far off each forecast would have been.

**Simplest use**: no extra node at all. Choose *low*, *medium* or *high* under **acceleration** of *Klein
Sampler*.

**Try**: *high*; any **speed** from 1 to 5; **guidance_interval** 2, which also spares every second negative
prompt; or, without any cache, **scheduler** *Kleinod Fast* with 14 steps.

**When not to**: for a final picture in which every detail must stay, with fewer than about 20 steps, and with
the distilled Klein (4 steps), which has nothing to spare. If speed is all you need, use *that* model: it is
many times faster than any acceleration of Base.

KSampler or SamplerCustomAdvanced: *Klein Apply Acceleration*. Runware: the same *Klein Acceleration*
plugs into *Klein Runware*.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - LoRA Stack": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 360),
            "3": (460, 60, 380, 720),
            "4": (900, 60, 440, 480),
            "5": (0, 900, 480, 400),
            "8": (0, 1380, 480, 260),
            "6": (540, 900, 380, 740),
            "7": (980, 900, 520, 560),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 440, 820)),
            Group("2  Without LoRAs", (440, -20, 920, 820)),
            Group("3  The same picture with LoRAs", (-20, 820, 1540, 840), GREEN),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 860),
                """\
# LoRAs

Press **Run**. Both pictures come from one seed; the lower one has klein-nano's *ink* LoRA in it. The text
below the stack tells what of each file was used.

**Rows**: switch on or off, click the name to search another file, drag the weight sideways (or click and
type), drag \u2261 to reorder, **i** for trigger words, rank and a preview. **Text** shows the rows as text;
`<lora:name:0.8>` can be pasted there.

**Try**:
- switch on *klein-nano subject* and ask for `a penguin on a blue background`: klein-nano alone knows none;
- weight 0.5, or -1;
- stage **low**: the drawing stays, only its late, fine steps turn to ink; **high**: the other way round.

**Your own LoRAs** go into `models/loras`, in any format; press **R** to refresh. One made for another model
is refused with a sentence instead of doing nothing. A renamed file is found again by its sha256.

**loras** also plugs into *Klein Runware*: give the row its AIR id under **i**.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Edit with References": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 260),
            "4": (0, 710, 400, 260),
            "3": (460, 60, 340, 690),
            "5": (860, 60, 340, 690),
            "12": (460, 820, 340, 330),
            "13": (860, 820, 340, 330),
            "6": (1280, 60, 520, 690),
            "7": (1280, 820, 520, 130),
            "8": (1860, 60, 400, 300),
            "9": (1860, 430, 400, 720),
            "10": (1860, 1280, 400, 940),
            "11": (2340, 60, 300, 130),
            "14": (2340, 260, 620, 520),
        },
        groups=(
            Group("1  Two pictures to refer to (or your own: Load Image)", (-20, -20, 1240, 1190)),
            Group("2  The references and what to do with them", (1260, -20, 560, 1190), GREEN),
            Group("3  My GPU", (1840, -20, 440, 1190)),
            Group("Or: the Runware API", (1840, 1210, 440, 1030), GREEN),
            Group("4  One switch", (2320, -20, 660, 830), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 800),
                """\
# Edit with references

Press **Run**. Two pictures are painted, then *Edited picture* puts both into a new one:
`image 1 next to image 2 on a blue background`. The numbers are the sockets of **Klein References**; its sheet
shows them.

**Try**: `image 2 next to image 1 on a blue background`, or `image 1 on a pink background` with the edited
picture's width at 128.

**Your own pictures**: connect *Load Image* to **image_1**, **image_2** ...; a new socket appears when the
last one is taken. Sizes may differ, batches count as several. Nothing is enlarged, stretched or dropped; the
sheet says what was cut.

**An edit of one picture**: connect **width** and **height** of Klein References to the sampler. The result
then lies exactly over the picture of **match_image**.

**The switch**: on, the same references and the same words go to Runware. That costs money and needs a key:
**Settings > Kleinod > API keys**.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Face Refine": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 260),
            "4": (0, 710, 400, 260),
            "3": (460, 60, 340, 690),
            "5": (460, 820, 340, 690),
            "6": (860, 60, 300, 170),
            "7": (860, 290, 300, 170),
            "8": (860, 520, 300, 170),
            "9": (860, 750, 300, 170),
            "10": (860, 980, 300, 170),
            "11": (1240, 60, 400, 720),
            "12": (1700, 60, 420, 900),
            "16": (1700, 1030, 420, 280),
            "13": (2180, 60, 420, 420),
            "14": (2660, 60, 420, 420),
            "15": (2660, 560, 420, 420),
        },
        groups=(
            Group("1  A picture with small faces (or your own: Load Image)", (-20, -20, 1200, 1550)),
            Group("2  Find the faces and paint them anew", (1220, -20, 920, 1350), GREEN),
            Group("3  Found, before, after", (2160, -20, 940, 1020), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 820),
                """\
# Face refine

Press **Run**. A small picture of four faces is enlarged, so the faces are mush; **Klein Face Refiner** finds
them, paints each at full size with the face itself as reference, and blends it in. Outside the masks not a
bit changes.

**What was found** shows the faces with their numbers; **face_prompts** has one line for each number. An empty
line takes the prompt of the picture, `[SKIP]` leaves a face alone.

**Your own picture**: connect *Load Image* to **image** and empty **face_prompts**. In Klein Face Settings
choose the preset **Klein** (or **Klein distilled**) and an inpaint_size of **1024**. As **detector** take a
YOLO face file from `models/ultralytics/bbox`; the built-in one knows only klein-nano's faces. Boxes of core's
MediaPipe nodes fit **bounding_boxes**, and any mask fits **mask**.

**Another person appears**: lower strength, or connect *Klein References* with pictures of the person.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Everything": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 440),
            "13": (0, 900, 400, 250),
            "3": (460, 60, 400, 260),
            "4": (460, 390, 400, 690),
            "5": (920, 60, 340, 480),
            "6": (920, 610, 340, 300),
            "7": (1320, 60, 380, 690),
            "8": (1760, 60, 400, 720),
            "9": (2220, 60, 420, 900),
            "12": (2700, 60, 420, 420),
            "10": (460, 1150, 400, 380),
            "11": (2700, 560, 420, 420),
        },
        groups=(
            Group("1  Model with a LoRA", (-20, -20, 440, 1190)),
            Group("2  A picture to refer to (or your own: Load Image)", (440, -20, 440, 1570)),
            Group("3  The picture, accelerated", (900, -20, 820, 950), GREEN),
            Group("4  Its face", (1740, -20, 1400, 1020), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 720),
                """\
# Everything at once

Press **Run**. A panda is painted; **Klein References** makes it *image 1* of the prompt; **Klein LoRA Stack**
turns the model's hand to ink; **Klein Sampler** skips the steps it can foresee (acceleration *low*); **Klein
Face Refiner** finds the face and goes over it once more, with the same LoRA.

Take out what you do not need: every node passes on what it got. Weight 0 of a LoRA, acceleration *none* and
strength 0 of the face settings switch each part off.

**The real Klein**: load it as described below, take your own LoRA, and in Klein Face Settings the preset
**Klein** with an inpaint_size of **1024**.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Compare Acceleration": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 360),
            "3": (460, 60, 400, 700),
            "4": (920, 60, 400, 480),
            "5": (1400, 60, 860, 780),
            "6": (1400, 980, 860, 560),
            "7": (460, 980, 860, 340),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 440, 820)),
            Group("2  One seed, every way", (440, -20, 900, 820), GREEN),
            Group("3  What it costs, what it keeps", (440, 880, 1840, 700), GREY),
            Group("4  The pictures, and where they differ", (1380, -20, 900, 900), GREY),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 700),
                """\
# Which acceleration keeps your picture?

Press **Run**. *Klein Compare* paints one seed with every step computed, then by each way to get it faster,
and measures time, work and likeness. Under each picture stands, ten times amplified, where it differs from
the first: black is equal.

**Your settings** is a *Klein Acceleration* like any other: here *high*, with every second negative prompt
left out. Change it and run again.

**Look before you count**: PSNR and SSIM do not know what matters in a picture. And one seed is one seed:
try a few.

*Kleinod Fast* and fewer steps are no caches: they solve the same picture another way, so they may differ and
be just as right.

Numbers from klein-nano are about klein-nano. Choose the real weights to learn about them.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Runware": Layout(
        nodes={
            "1": (0, 60, 400, 200),
            "2": (460, 60, 420, 940),
            "3": (940, 60, 520, 560),
            "4": (940, 690, 520, 310),
        },
        groups=(Group("Klein through the Runware API", (-20, -20, 1500, 1040), GREEN),),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 640),
                """\
# Klein Base through Runware

The same model and settings as on your own GPU, drawn by Runware. **This costs money**: about $0.0019 for each
picture of 1024x1024.

1. **Settings > Kleinod > API keys**: paste your Runware key, **Save**, **Test**. The key stays on
   this computer and is never part of a workflow or a picture.
2. Set width and height to **1024** and press **Run**.

The same request is paid for **once**: after an interrupt, a crash or a failed node queue it again and the
job is picked up. To draw it anew, change the seed or raise **take**.

**Klein Runware Options** asks the price first; *only show the price* sends nothing at all. Limits per run
and per day are in the settings, too.

*Klein Acceleration*, *Klein LoRA Stack*, *Klein References* and *Klein Face Settings* plug in here exactly
as into the local nodes.
""",
            ),
        ),
    ),
    "Klein - BFL": Layout(
        nodes={
            "1": (0, 60, 420, 800),
            "2": (480, 60, 520, 520),
            "3": (480, 650, 520, 210),
        },
        groups=(Group("Klein through the BFL API", (-20, -20, 1040, 900), GREEN),),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 520),
                """\
# Klein through Black Forest Labs

Drawn by the makers of FLUX. **This costs money**: about $0.014 a picture.

1. **Settings > Kleinod > API keys**: paste your BFL key, **Save**, **Test**.
2. Press **Run**.

BFL serves the *distilled* klein: four steps, no guidance, no negative prompt. The pictures differ
from those of klein Base, also with the same seed.

**Editing**: connect *Load Image* to **input_image** and describe the change. Width and height 0 follow that
picture.

An accepted job is never lost: queue again, or use *Klein Recover Job*.
""",
            ),
        ),
    ),
    "Klein - Local or Remote": Layout(
        nodes={
            "1": (0, 60, 400, 270),
            "2": (0, 390, 400, 360),
            "3": (460, 60, 380, 690),
            "4": (460, 880, 380, 940),
            "5": (900, 60, 300, 130),
            "6": (900, 260, 520, 560),
        },
        groups=(
            Group("1  My GPU", (-20, -20, 880, 790)),
            Group("2  The Runware API", (440, 810, 420, 1030), GREEN),
            Group("3  One switch", (880, -20, 560, 860), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-480, 10, 420, 620),
                """\
# My GPU or the API

One graph, one switch. **Off**: the upper half draws on this computer. **On**: the lower half sends the same
request to Runware. Only the half that is wanted runs, so the switch off costs nothing.

Both halves take the same settings objects: *Klein Acceleration*, *Klein References*, *Klein LoRA Stack*
and *Klein Face Settings* can be connected to both at once.

The API half needs a Runware key: **Settings > Kleinod > API keys**.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
}
