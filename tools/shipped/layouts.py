"""How the shipped workflows look: places, groups and the note; `tools/shipped/templates.py` applies it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tools.launch.weights import SET

Place = tuple[int, int, int, int]
"""x, y, width, height in canvas units; the title bar of a node lies 30 above y."""

BLUE, GREEN, GREY = "#3f789e", "#4d7c59", "#444"

MODELS = tuple({"name": file.name, "url": file.url, "directory": file.folder} for file in SET)


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
    """`nodes`: the place of every node by its id in the API twin. `collapsed`: those that show only their
    title. `fixed_seeds`: Run keeps the seeds, because the graph compares pictures.

    A template opens with the whole graph in view, and the classic renderer draws no text below 57%: at most
    2080 x 1160 units are legible at once on a page of 1600 x 900, 2500 x 1240 on 1920 x 960.
    """

    nodes: dict[str, Place]
    groups: tuple[Group, ...] = ()
    notes: tuple[Note, ...] = ()
    collapsed: tuple[str, ...] = ()
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
            "1": (0, 60, 400, 330),
            "2": (0, 450, 400, 300),
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
            "1": (0, 60, 340, 330),
            "2": (0, 450, 340, 200),
            "6": (0, 710, 340, 200),
            "3": (390, 60, 330, 690),
            "5": (770, 60, 330, 690),
            "4": (1150, 60, 340, 370),
            "7": (1150, 490, 340, 370),
        },
        groups=(
            Group("1  Model and prompts", (-20, -20, 380, 950)),
            Group("2  A picture to start from", (370, -20, 370, 950)),
            Group("3  The same picture, repainted", (750, -20, 370, 950), GREEN),
            Group("4  Before and after", (1130, -20, 380, 950), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-430, 10, 390, 920),
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
            "1": (0, 60, 310, 330),
            "2": (0, 450, 310, 300),
            "3": (360, 60, 290, 690),
            "6": (360, 820, 290, 320),
            "4": (700, 60, 340, 700),
            "5": (1070, 60, 300, 700),
            "7": (1420, 60, 270, 320),
            "8": (700, 820, 670, 320),
            "10": (1420, 450, 270, 300),
            "9": (1420, 820, 270, 320),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 350, 1180)),
            Group("2  Every step computed", (340, -20, 330, 1180)),
            Group("3  The same picture, accelerated", (680, -20, 710, 1180), GREEN),
            Group("4  What came of it", (1400, -20, 310, 1180), GREY),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-350, 10, 310, 1130),
                """\
# The same picture, faster

Press **Run**. Both pictures come from one seed: on the left every step is computed, on the right **Klein
Acceleration** leaves out those that can be foreseen. The chart shows which, and how far off each forecast
would have been.

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
            "1": (0, 60, 330, 330),
            "2": (0, 450, 330, 300),
            "3": (380, 60, 310, 690),
            "4": (380, 820, 310, 320),
            "5": (740, 60, 450, 400),
            "8": (740, 540, 450, 600),
            "6": (1220, 60, 310, 690),
            "7": (1220, 820, 310, 320),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 370, 1180)),
            Group("2  Without LoRAs", (360, -20, 350, 1180)),
            Group("3  The same picture with LoRAs", (720, -20, 830, 1180), GREEN),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-430, 10, 390, 1130),
                """\
# LoRAs

Press **Run**. Both pictures come from one seed; the right one has klein-nano's *ink* LoRA in it. The text
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
            "1": (0, 60, 310, 330),
            "2": (0, 450, 310, 210),
            "4": (0, 720, 310, 210),
            "3": (340, 60, 290, 690),
            "5": (660, 60, 290, 690),
            "12": (340, 820, 290, 300),
            "13": (660, 820, 290, 300),
            "6": (1000, 60, 370, 600),
            "7": (1000, 730, 370, 120),
            "8": (1000, 920, 370, 200),
            "9": (1420, 60, 290, 560),
            "10": (1420, 1120, 290, 940),
            "11": (1420, 690, 290, 90),
            "14": (1420, 850, 290, 220),
        },
        groups=(
            Group("1  Two pictures to refer to (or your own: Load Image)", (-20, -20, 990, 1160)),
            Group("2  References and what to do with them", (980, -20, 410, 1160), GREEN),
            Group("3  My GPU or the Runware API", (1400, -20, 330, 1160), GREY),
        ),
        collapsed=("10",),
        notes=(
            Note(
                "Read me",
                (-350, 10, 310, 1110),
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

**The switch**: on, the same references and the same words go to *Klein Runware* (a click on the dot in its
title opens it). That costs money and needs a key: **Settings > Kleinod > API keys**.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Face Refine": Layout(
        nodes={
            "1": (0, 60, 310, 330),
            "2": (0, 450, 310, 210),
            "4": (0, 720, 310, 210),
            "3": (340, 60, 290, 690),
            "5": (660, 60, 290, 690),
            "6": (340, 830, 290, 170),
            "7": (340, 890, 290, 170),
            "8": (660, 830, 290, 170),
            "9": (660, 890, 290, 170),
            "10": (660, 950, 290, 170),
            "11": (1000, 60, 330, 720),
            "16": (1000, 850, 330, 290),
            "12": (1360, 60, 340, 1080),
            "13": (1750, 60, 340, 320),
            "14": (1750, 440, 340, 320),
            "15": (1750, 820, 340, 320),
        },
        groups=(
            Group("1  A picture with small faces (or your own: Load Image)", (-20, -20, 990, 1180)),
            Group("2  Find the faces and paint them anew", (980, -20, 740, 1180), GREEN),
            Group("3  Found, before, after", (1730, -20, 380, 1180), GREY),
        ),
        collapsed=("6", "7", "8", "9", "10"),
        notes=(
            Note(
                "Read me",
                (-380, 10, 340, 1130),
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
            "1": (0, 60, 330, 330),
            "2": (0, 450, 330, 360),
            "13": (0, 870, 330, 270),
            "3": (380, 60, 300, 190),
            "4": (380, 310, 300, 500),
            "10": (380, 870, 300, 270),
            "5": (730, 60, 340, 520),
            "6": (730, 650, 340, 300),
            "7": (1100, 60, 300, 720),
            "8": (1450, 60, 320, 720),
            "9": (1800, 60, 300, 860),
            "12": (1100, 850, 300, 290),
            "11": (1450, 850, 320, 290),
        },
        groups=(
            Group("1  Model with a LoRA", (-20, -20, 370, 1180)),
            Group("2  A picture to refer to", (360, -20, 340, 1180)),
            Group("3  The picture, accelerated", (710, -20, 710, 1180), GREEN),
            Group("4  Its face", (1430, -20, 690, 1180), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-370, 10, 330, 1130),
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
            "1": (0, 60, 310, 330),
            "2": (0, 450, 310, 300),
            "3": (360, 60, 340, 700),
            "4": (730, 60, 320, 700),
            "5": (1100, 60, 620, 700),
            "7": (360, 840, 690, 300),
            "6": (1100, 840, 620, 300),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 350, 800)),
            Group("2  One seed, every way", (340, -20, 730, 800), GREEN),
            Group("3  What it costs, what it keeps", (340, 790, 1400, 370), GREY),
            Group("4  The pictures, and where they differ", (1080, -20, 660, 800), GREY),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-350, 10, 310, 1130),
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
            "1": (0, 60, 350, 330),
            "2": (0, 450, 350, 300),
            "3": (380, 60, 330, 690),
            "4": (760, 60, 340, 940),
            "5": (1150, 60, 380, 130),
            "6": (1150, 260, 380, 490),
        },
        groups=(
            Group("1  My GPU", (-20, -20, 750, 1040)),
            Group("2  The Runware API", (740, -20, 380, 1040), GREEN),
            Group("3  One switch", (1130, -20, 420, 1040), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-430, 10, 390, 740),
                """\
# My GPU or the API

Press **Run**. One graph, one switch. **Off**: *My GPU* draws. **On**: *The Runware API* gets the same
request. Only the one that is wanted runs, so the switch off costs nothing.

Both take the same settings objects: *Klein Acceleration*, *Klein References*, *Klein LoRA Stack*
and *Klein Face Settings* can be connected to both at once.

The API needs a Runware key: **Settings > Kleinod > API keys**.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
}
