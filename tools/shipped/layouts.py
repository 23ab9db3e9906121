"""How the shipped workflows look: places, groups and the note; `tools/shipped/templates.py` applies it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tools.launch.weights import SET

Place = tuple[int, int, int, int]
"""x, y, width, height in canvas units; the title bar of a node lies 30 above y."""

# Group colours in which ComfyUI's titles can be read on its dark and on its light page.
BLUE, GREEN, GREY = "#3f789e", "#4d7c59", "#717171"

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
    """`nodes`: the place of every node by its id in the API twin. `fixed_seeds`: Run keeps the seeds, because
    the graph compares pictures. `own_files`: the page picks the user's own files when it opens it, if they
    are there.

    Neither renderer draws text below 57%, and js/kleinod.templates.js opens a template as large as the page
    allows: 2100 x 1050 units, the note included, are legible as a whole on a page of 1280 x 720. Of a larger
    graph such a page shows the beginning. No node is collapsed: Nodes 2.0 counts it with its full height.
    """

    nodes: dict[str, Place]
    groups: tuple[Group, ...] = ()
    notes: tuple[Note, ...] = ()
    models: tuple[dict[str, str], ...] = MODELS
    fixed_seeds: bool = False
    own_files: bool = False
    view: dict[str, object] = field(default_factory=lambda: {"scale": 0.8, "offset": [80, 120]})


_LINKS = "\n".join(f"- [{model['name']}]({model['url']}) in models/{model['directory']}" for model in MODELS)

_REAL_WEIGHTS = f"""\
## Use the real FLUX.2 [klein]

This workflow starts with **klein-nano**, a tiny model that is built in. It knows 64 drawn things on 8
colours and is here so that Run works at once, on any machine. For real pictures:

1. Download these files (4B Base, Apache 2.0):
{_LINKS}
2. Press **Use my files** on **Klein Loader**: it picks them and sets size, steps and guidance.
"""

LAYOUTS = {
    "Klein - Text to Image": Layout(
        nodes={
            "1": (0, 60, 340, 330),
            "2": (0, 450, 340, 300),
            "3": (400, 60, 320, 750),  # room for the live preview
            "4": (750, 60, 420, 750),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 380, 850)),
            Group("2  Picture", (380, -20, 810, 850), GREEN),
        ),
        own_files=True,
        notes=(
            Note(
                "Read me",
                (-390, 10, 350, 820),
                """\
# Text to image

Press **Run**. Four pictures appear on the right, each from its own seed.

**Try**: **a red apple on a yellow background**, **a panda on a pink background**, **a rocket next to a star
on a purple background** (width 192), or guidance 1 instead of 4, which switches the guidance off.

The **report** output of the sampler tells what really ran: connect it to *Preview as Text*.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Image to Image": Layout(
        nodes={
            "1": (0, 60, 340, 330),
            "2": (0, 450, 340, 250),
            "4": (0, 760, 340, 250),
            "3": (400, 60, 330, 580),
            "6": (400, 700, 330, 310),
            "5": (790, 60, 330, 580),
            "7": (790, 700, 330, 310),
        },
        groups=(
            Group("1  Model and prompts", (-20, -20, 380, 1050)),
            Group("2  A picture to start from", (380, -20, 370, 1050)),
            Group("3  The same picture, repainted", (770, -20, 370, 1050), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-430, 10, 390, 1000),
                """\
# Image to image

*First picture* paints; *Repainted picture* takes it as **image** and repaints it with another prompt.

**Your own picture**: add *Load Image* and connect it to **image** of *Repainted picture*; then delete
*First picture*. Width and height are taken from the picture.

**strength** is a noise level: 0 returns the picture, 0.6 keeps the composition, 0.8 keeps colours and places,
1 keeps nothing. **strength_mode** *schedule* counts as other programs do; with FLUX.2 even 0.3 is then 77%
noise.

**Upscale**: put ComfyUI's *Upscale Image By* in front of **image**, say in the prompt what the picture shows,
and lower **strength** to about 0.2. Made for the real weights, up to 2048 pixels; klein-nano falls apart
above 256.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Accelerated": Layout(
        nodes={
            "1": (0, 60, 330, 330),
            "2": (0, 450, 330, 300),
            "3": (390, 60, 310, 580),
            "6": (390, 700, 310, 310),
            "5": (760, 60, 310, 580),
            "7": (760, 700, 310, 310),
            "8": (1130, 60, 460, 430),
            "10": (1130, 550, 460, 460),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 370, 1050)),
            Group("2  Every step computed", (370, -20, 350, 1050)),
            Group("3  The same picture, accelerated", (740, -20, 350, 1050), GREEN),
            Group("4  What was skipped", (1110, -20, 500, 1050), GREY),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-410, 10, 370, 1000),
                """\
# The same picture, faster

Press **Run**. Both pictures come from one seed. On the left every step is computed; on the right **Klein
Sampler** has *medium* under **acceleration** and leaves out the steps that can be foreseen. The chart shows
which, and how far off each forecast would have been.

**Try**: *high*, or *low* for a final picture; or, without any cache, **scheduler** *Kleinod Fast* with 14
steps.

**Every dial** is in *Klein Acceleration*: connect it to **acceleration_settings**. There is **speed** from 1
to 5, and **guidance_interval** 2, which also spares every second negative prompt. *Klein - Compare
Acceleration* measures all of them.

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
            "3": (390, 60, 310, 580),
            "4": (390, 700, 310, 310),
            "5": (760, 60, 450, 400),
            "8": (760, 520, 450, 490),
            "6": (1240, 60, 310, 580),
            "7": (1240, 700, 310, 310),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 370, 1050)),
            Group("2  Without LoRAs", (370, -20, 350, 1050)),
            Group("3  The same picture with LoRAs", (740, -20, 830, 1050), GREEN),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-440, 10, 400, 1000),
                """\
# LoRAs

Press **Run**. Both pictures come from one seed; the right one has klein-nano's *ink* LoRA in it. The text
below the stack tells what of each file was used.

**Rows**: switch on or off, click the name to search another file, drag the weight sideways (or click and
type), drag \u2261 to reorder, **i** for trigger words, rank and a preview. **Text** shows the rows as text;
**&lt;lora:name:0.8&gt;** can be pasted there.

**Try**:
- switch on *klein-nano subject* and ask for **a penguin on a blue background**: klein-nano alone knows none;
- weight 0.5, or -1;
- stage **low**: the drawing stays, only its late, fine steps turn to ink; **high**: the other way round.

**Your own LoRAs** go into **models/loras**, in any format; press **R** to refresh. One made for another model
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
            "2": (0, 450, 310, 250),
            "4": (0, 760, 310, 250),
            "3": (340, 60, 280, 580),
            "12": (340, 700, 280, 310),
            "5": (650, 60, 280, 580),
            "13": (650, 700, 280, 310),
            "6": (990, 60, 340, 674),
            "8": (990, 776, 340, 234),
            "9": (1390, 60, 280, 580),
            "14": (1390, 700, 280, 310),
        },
        groups=(
            Group("1  Two pictures to refer to (or your own: Load Image)", (-20, -20, 970, 1050)),
            Group("2  What to do with them", (970, -20, 380, 1050), GREEN),
            Group("3  The edited picture", (1370, -20, 320, 1050), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-370, 10, 330, 1000),
                """\
# Edit with references

Press **Run**. Two pictures are painted, then *Edited picture* puts both into a new one:
**image 1 next to image 2 on a blue background**. The numbers are the sockets of **Klein References**; its
sheet shows them.

**Try**: **image 2 next to image 1 on a blue background**, or **image 1 on a pink background** with the edited
picture's width at 128.

**Your own pictures**: connect *Load Image* to **image_1**, **image_2** ...; a new socket appears when the
last one is taken. Sizes may differ, batches count as several. Nothing is enlarged, stretched or dropped; the
sheet says what was cut.

**An edit of one picture**: connect **width** and **height** of Klein References to the sampler. The result
then lies exactly over the picture of **match_image**.

**By the Runware API**: *Klein Runware* takes the same Klein References. See *Klein - Local or Remote*.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Reference Control": Layout(
        nodes={
            "1": (0, 60, 310, 330),
            "2": (0, 450, 310, 250),
            "4": (0, 760, 310, 250),
            "3": (340, 60, 280, 580),
            "10": (340, 700, 280, 110),
            "11": (340, 870, 280, 110),
            "5": (650, 60, 280, 580),
            "16": (650, 700, 280, 150),
            "17": (650, 910, 280, 50),
            "6": (990, 60, 340, 722),
            "8": (990, 842, 340, 234),
            "9": (1390, 60, 280, 580),
            "14": (1390, 700, 280, 310),
        },
        groups=(
            Group("1  Two references, and where they act", (-20, -20, 970, 1050)),
            Group("2  How much, when, where", (970, -20, 380, 1110), GREEN),
            Group("3  The picture", (1370, -20, 320, 1110), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-370, 10, 330, 1060),
                """\
# Reference control

Press **Run**. Two pictures are painted, and **Klein References** says for each how much it counts
(**weights**), in which part of the steps (**steps**) and where on the new picture (**place_1**, **place_2**).

**Try**: weights **1, 0.25** (image 2 fades), **0, 1** (image 1 is gone), or steps **0-50, 50-100**. Empty,
both count in full. Swap the two places, and each acts where the other should be: nothing is left of both.

**Klein Sampler** has **image_guidance** beside it (advanced): above 1 the picture follows all references more
than the model does, below 1 less.

**Your own pictures**: connect *Load Image* to **image_1** and **image_2**, and a mask of any size to a place;
an empty mask means everywhere.

"""
                + _REAL_WEIGHTS,
            ),
        ),
        fixed_seeds=True,
    ),
    "Klein - Inpaint": Layout(
        nodes={
            "1": (0, 60, 320, 330),
            "2": (0, 450, 320, 250),
            "6": (0, 760, 320, 190),
            "3": (350, 60, 300, 580),
            "4": (350, 700, 300, 110),
            "5": (350, 870, 300, 110),
            "7": (710, 60, 340, 960),
            "8": (1110, 60, 330, 300),
            "9": (1110, 420, 330, 300),
            "10": (1110, 780, 330, 240),
        },
        groups=(
            Group("1  A picture and its mask (or your own: Load Image)", (-20, -20, 690, 1060)),
            Group("2  Paint what the mask marks", (690, -20, 380, 1060), GREEN),
            Group("3  Before, after", (1090, -20, 370, 1060), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-400, 10, 360, 1010),
                """\
# Inpaint

Press **Run**. A fox and a frog are painted; the mask marks the frog, and **Klein Inpaint** puts a panda in
its place. Outside the mask not a bit of the picture changes.

**Your own picture**: *Load Image*, then *Open in MaskEditor*, and connect **image** and **mask**. Several
marked places are painted each; **region_prompts** has one line for each, from left to right.

**area** *crop* paints the place enlarged to **megapixels**, for detail; *whole picture* shows the model all
of it, for prompts such as **a fox next to a panda**. The place as it is counts as **image 1**, so *make the
hat of image 1 red* works. If the old shows through, choose *crop without the masked part* as
**crop_reference**.

**References** (Klein References) follow as image 2, image 3: put this thing there.

**The distilled Klein**: 4 steps, guidance 1.

"""
                + _REAL_WEIGHTS
                + "3. Choose **crop** as area.\n",
            ),
        ),
    ),
    "Klein - Outpaint": Layout(
        nodes={
            "1": (0, 60, 320, 330),
            "2": (0, 450, 320, 250),
            "4": (0, 760, 320, 210),
            "3": (350, 60, 300, 580),
            "8": (350, 700, 300, 270),
            "7": (710, 60, 340, 960),
            "9": (1110, 60, 400, 560),
            "10": (1110, 680, 400, 340),
        },
        groups=(
            Group("1  A picture that is cut off (or your own: Load Image)", (-20, -20, 690, 1060)),
            Group("2  Paint what lies beyond its edges", (690, -20, 380, 1060), GREEN),
            Group("3  The larger picture", (1090, -20, 440, 1060), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-400, 10, 360, 1010),
                """\
# Outpaint

Press **Run**. The right third of a picture is cut off, and **Klein Outpaint** paints it again from what is
left. The old part stays bit for bit, but for an **overlap** of 8 pixels in which old turns into new.

**Your own picture**: connect *Load Image* to **image** of Klein Outpaint, and say in **prompt** what the
whole new picture shows.

**extend** *pixels a side* adds left, top, right and bottom; *aspect* makes it 16:9 or any other shape; *size*
takes width and height. **anchor** tells where the old picture lies.

**Large pictures**: choose *crop* as **area**, so that only the new part and as much around it is painted.

**The distilled Klein**: 4 steps, guidance 1.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Edit and Keep": Layout(
        nodes={
            "1": (0, 60, 300, 330),
            "2": (0, 450, 300, 250),
            "3": (330, 60, 270, 580),
            "11": (0, 760, 300, 110),
            "12": (0, 930, 300, 110),
            "13": (330, 700, 270, 190),
            "4": (660, 60, 300, 654),
            "5": (660, 756, 300, 254),
            "6": (990, 60, 270, 580),
            "8": (990, 700, 270, 310),
            "7": (1320, 60, 340, 540),
            "9": (1320, 660, 340, 340),
        },
        groups=(
            Group("1  A picture and its mask (or your own: Load Image)", (-20, -20, 640, 1080)),
            Group("2  Edit it as a whole", (640, -20, 640, 1080)),
            Group("3  Keep all but the change", (1300, -20, 380, 1080), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-380, 10, 340, 1020),
                """\
# Edit and keep

Press **Run**. The frog is replaced by words alone, and the whole picture is painted anew: the fox has
changed, too. **Klein Keep** takes only the change from the edit and leaves the rest of the original bit for
bit.

**Your own picture**: connect *Load Image* to **image_1** of Klein References and to **original** of Klein
Keep, and **width** and **height** of Klein References to *Edited picture*.

**Without a mask** Klein Keep finds the change by itself, after it has measured and undone shift, zoom and
tint. klein-nano draws everything anew, so here a mask says what may change.

**Paid edits**: put Klein Keep behind *Klein Runware* or *Klein BFL* in the same way. The blueprint *Klein -
Edit with Runware* has it inside.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Face Refine": Layout(
        nodes={
            "1": (0, 60, 300, 330),
            "2": (0, 450, 300, 250),
            "4": (0, 760, 300, 250),
            "3": (330, 60, 280, 540),
            "5": (640, 60, 280, 540),
            "8": (330, 660, 280, 180),
            "9": (640, 660, 280, 150),
            "10": (640, 870, 280, 140),
            "11": (980, 60, 310, 560),
            "16": (980, 680, 310, 330),
            "12": (1320, 60, 310, 950),
            "13": (1690, 60, 290, 270),
            "14": (1690, 390, 290, 302),
            "15": (1690, 752, 290, 302),
        },
        groups=(
            Group("1  A picture with small faces (or your own: Load Image)", (-20, -20, 960, 1050)),
            Group("2  Find the faces and paint them anew", (960, -20, 690, 1050), GREEN),
            Group("3  Found, before, after", (1670, -20, 330, 1090), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-400, 10, 360, 1000),
                """\
# Face refine

Press **Run**. A small picture of two faces is enlarged, so the faces are mush; **Klein Face Refiner** finds
them, paints each at full size with the face itself as reference, and blends it in. Outside the masks not a
bit changes.

**What was found** shows the faces with their numbers; **face_prompts** has one line for each number. An empty
line takes the prompt of the picture, **[SKIP]** leaves a face alone.

**Your own picture**: connect *Load Image* to **image** and empty **face_prompts**. In Klein Face Settings
choose the preset **Klein** (or **Klein distilled**) and an inpaint_size of **1024**. As **detector** take a
YOLO face file from **models/ultralytics/bbox**; the built-in one knows only klein-nano's faces. Boxes of
core's MediaPipe nodes fit **bounding_boxes**, and any mask fits **mask**.

**Another person appears**: lower strength, or connect *Klein References* with pictures of the person.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Everything": Layout(
        nodes={
            "1": (0, 60, 310, 330),
            "2": (0, 450, 310, 560),
            "3": (370, 60, 290, 250),
            "4": (370, 370, 290, 640),
            "5": (720, 60, 300, 654),
            "6": (720, 756, 300, 254),
            "7": (1050, 60, 290, 620),
            "12": (1050, 740, 290, 270),
            "8": (1400, 60, 290, 588),
            "11": (1400, 708, 290, 302),
            "9": (1720, 60, 290, 950),
        },
        groups=(
            Group("1  Model with a LoRA", (-20, -20, 350, 1050)),
            Group("2  A picture to refer to", (350, -20, 330, 1050)),
            Group("3  The picture, accelerated", (700, -20, 660, 1050), GREEN),
            Group("4  Its face", (1380, -20, 650, 1050), GREEN),
        ),
        notes=(
            Note(
                "Read me",
                (-370, 10, 330, 1000),
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
            "2": (0, 450, 310, 250),
            "3": (370, 60, 330, 680),
            "4": (730, 60, 310, 680),
            "5": (1100, 60, 560, 680),
            "7": (370, 830, 670, 330),
            "6": (1070, 830, 590, 330),
        },
        groups=(
            Group("1  Model and prompt", (-20, -20, 350, 740)),
            Group("2  One seed, every way", (350, -20, 710, 780), GREEN),
            Group("3  The pictures, and where they differ", (1080, -20, 600, 780), GREY),
            Group("4  What it costs, what it keeps", (350, 770, 1330, 410), GREY),
        ),
        fixed_seeds=True,
        notes=(
            Note(
                "Read me",
                (-410, 10, 370, 1000),
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
            "1": (0, 60, 360, 230),
            "2": (420, 60, 400, 950),
            "3": (880, 60, 500, 560),
            "4": (880, 690, 500, 320),
        },
        groups=(Group("Klein through the Runware API", (-20, -20, 1420, 1050), GREEN),),
        notes=(
            Note(
                "Read me",
                (-460, 10, 420, 640),
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
            "3": (480, 640, 520, 220),
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
            "7": (0, 60, 260, 110),
            "8": (0, 220, 260, 90),
            "9": (0, 360, 260, 82),
            "10": (0, 474, 260, 82),
            "11": (0, 588, 260, 82),
            "12": (0, 702, 260, 82),
            "13": (0, 816, 260, 82),
            "14": (0, 928, 260, 82),
            "1": (320, 60, 300, 280),
            "2": (320, 390, 300, 234),
            "3": (650, 60, 280, 530),
            "4": (990, 60, 320, 950),
            "5": (320, 720, 300, 130),
            "6": (650, 720, 280, 296),
        },
        groups=(
            Group("1  The request, once for both", (-20, -20, 300, 1050)),
            Group("2  My GPU", (300, -20, 650, 660)),
            Group("3  The Runware API", (970, -20, 360, 1050), GREEN),
            Group("4  The switch, and what came", (300, 650, 650, 380), GREY),
        ),
        notes=(
            Note(
                "Read me",
                (-400, 10, 360, 1000),
                """\
# My GPU or the API

Press **Run**. One request, one switch. **Off**: *On my GPU* draws it. **On**: *By the Runware API* gets the
same words, size, steps, guidance, seed and number of results, because both read them from group 1. Only the
one that is wanted runs, so the switch off costs nothing.

*Klein Acceleration*, *Klein References*, *Klein LoRA Stack* and *Klein Face Settings* can be connected to
both at once.

The API needs a Runware key: **Settings > Kleinod > API keys**. A picture costs as much as the line on its
node says.

"""
                + _REAL_WEIGHTS,
            ),
        ),
    ),
    "Klein - Your Other Machine": Layout(
        nodes={
            "1": (0, 60, 360, 230),
            "2": (420, 60, 400, 950),
            "3": (880, 60, 500, 560),
            "4": (880, 690, 500, 320),
        },
        groups=(Group("Klein on another machine of yours", (-20, -20, 1420, 1050), GREEN),),
        notes=(
            Note(
                "Read me",
                (-460, 10, 420, 880),
                """\
# Your other machine draws

This laptop asks, the workstation under the desk draws, and nobody is paid.

**On the machine that draws** (ComfyUI with Kleinod and your weights), once:

1. Start ComfyUI with **--listen**, in a network that you trust.
2. **Settings > Kleinod > API that answers**: switch it on, under *Who may ask* tick **other machines, too**
   and save, then make a **new key**.

**Here**, once:

3. **Settings > Kleinod > API keys > Own servers**: name **workstation**, its address such as
   192.168.1.20:8188, the key. Without https tick the box that allows it. **Save**, **Test**.
4. Press **Run**. The line under the node says where it was drawn.

*Klein Acceleration*, *Klein LoRA Stack*, *Klein References* and *Klein Face Settings* plug in as into the
local nodes: the other machine does what they say.

**model** is Runware's id of the weights: as it stands, those of 4B Base. Where they are not there, the other
machine says what to download.

**More than one card there?** Start python3 run.py cluster on it instead: same address, same key, and the
results are split over all cards. **Klein Jobs** says which one drew what.
""",
            ),
        ),
    ),
}
