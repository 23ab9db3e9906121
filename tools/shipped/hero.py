"""Makes the first picture of the README by really running shipped workflows: `python -m tools.shipped.hero`.

Everything on it comes out of klein-nano; prompts and step counts are read from the runs, never typed here.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from tools.launch.client import load_prompt
from tools.launch.environment import ROOT, RUNTIME, prepare
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER

FILE = ROOT / "js" / "docs" / "hero.jpg"

WIDTH, MARGIN, GAP = 1280, 28, 26
SIDE, SEAM, SMALL = 228, 4, 100
PAPER, TEXT, QUIET = "#15171c", "#f1efe9", "#a4abb9"
COMPUTED, REUSED, EDGE = "#f0b44c", "#1d3437", "#3fb7a9"
CAPTIONS = 94  # a line for what it is and one for what was asked, under a picture


@dataclass(frozen=True)
class Made:
    """What one workflow gave: the `pictures` it saved, in the order of its file; the rest by node."""

    pictures: list[Image.Image]
    prompt: dict[str, dict]
    outputs: dict[str, dict]

    def asked(self) -> str:
        """The last sentence of the workflow: that of the picture it is about."""
        inputs = [entry["inputs"] for entry in self.prompt.values()]
        texts = [fields.get("positive", fields.get("value")) for fields in inputs]
        return [text for text in texts if isinstance(text, str)][-1]

    def pattern(self) -> str:
        """A letter a step, C where it was computed, of the run that skipped some."""
        rows = [row for output in self.outputs.values() for row in output.get("kleinod_runs", [])]
        return rows[0]["pattern"]


def run_workflow(server: Server, name: str) -> Made:
    prompt = load_prompt(API_FOLDER / f"Klein - {name}.json")
    outputs = server.client.run(prompt).outputs
    images = [image for number in prompt for image in outputs.get(number, {}).get("images", [])]
    files = [io.BytesIO(server.client.fetch_image(image)) for image in images if image["type"] == "output"]
    return Made([Image.open(file).convert("RGB") for file in files], prompt, outputs)


def compose(text: Made, edit: Made, loras: Made, faces: Made, faster: Made) -> Image.Image:
    """Four pictures side by side over one run, step by step."""
    row = SIDE + CAPTIONS
    paper = Image.new("RGB", (WIDTH, MARGIN + row + SMALL + 62), PAPER)
    pen = ImageDraw.Draw(paper)
    panels = [
        (_fit(text.pictures[0], SIDE, SIDE), "Text to image", text.asked()),
        (_references(edit.pictures), "Edit with references", edit.asked()),
        (_halves(*loras.pictures), "LoRAs", "without and with"),
        (_rows(*faces.pictures), "Faces", "as found, painted again"),
    ]
    used = sum(picture.width for picture, _, _ in panels)
    apart = (WIDTH - 2 * MARGIN - used) / (len(panels) - 1)
    x = float(MARGIN)
    for picture, title, words in panels:
        left = round(x)
        paper.paste(picture, (left, MARGIN))
        _write(pen, (left, MARGIN + SIDE + 34), title, 27, TEXT)
        _write(pen, (left, MARGIN + SIDE + 64), words, 18, QUIET)
        x += picture.width + apart
    _draw_run(paper, pen, MARGIN + row, faster)
    return paper


def _draw_run(paper: Image.Image, pen: ImageDraw.ImageDraw, top: int, made: Made) -> None:
    """The plain picture, its steps, and the picture made with some of them left out."""
    plain, fast = (_fit(picture, SMALL, SMALL) for picture in made.pictures)
    right = WIDTH - MARGIN - SMALL
    paper.paste(plain, (MARGIN, top))
    paper.paste(fast, (right, top))
    pattern = made.pattern()
    first, last = MARGIN + SMALL + GAP, right - GAP
    width = (last - first + 6) / len(pattern)
    for index, kind in enumerate(pattern):
        x = first + index * width
        box = (round(x), top, round(x + width) - 7, top + SMALL - 1)
        computed = kind == "C"
        pen.rounded_rectangle(
            box, 5, fill=COMPUTED if computed else REUSED, outline=None if computed else EDGE, width=2
        )
    count = pattern.count("C")
    baseline = top + SMALL + 32
    _write(pen, (MARGIN, baseline), f"all {len(pattern)} steps", 20, QUIET)
    _write(pen, (WIDTH - MARGIN, baseline), f"{count} steps", 20, QUIET, "rs")
    _write(pen, (first, baseline), "Acceleration", 27, TEXT)
    words = f"{count} computed, {len(pattern) - count} foreseen. The report says which, and how far off."
    _write(pen, (first + 170, baseline), words, 20, QUIET)


def _references(pictures: list[Image.Image]) -> Image.Image:
    """Two references, one above the other, beside what was made of them."""
    first, second, made = pictures
    small = (SIDE - SEAM) // 2
    wide = SIDE * made.width // made.height
    panel = Image.new("RGB", (small + SEAM + wide, SIDE), PAPER)
    panel.paste(_fit(first, small, small), (0, 0))
    panel.paste(_fit(second, small, small), (0, SIDE - small))
    panel.paste(_fit(made, wide, SIDE), (small + SEAM, 0))
    return panel


def _halves(before: Image.Image, after: Image.Image) -> Image.Image:
    """The left half of one picture and the right half of the other."""
    panel = _fit(before, SIDE, SIDE)
    panel.paste(_fit(after, SIDE, SIDE).crop((SIDE // 2, 0, SIDE, SIDE)), (SIDE // 2, 0))
    seam = (SIDE // 2 - SEAM // 2, 0, SIDE // 2 + SEAM // 2 - 1, SIDE)
    ImageDraw.Draw(panel).rectangle(seam, fill=PAPER)
    return panel


def _rows(before: Image.Image, after: Image.Image) -> Image.Image:
    """One wide picture over the other, both whole."""
    half = (SIDE - SEAM) // 2
    panel = Image.new("RGB", (SIDE, SIDE), PAPER)
    for picture, top in ((before, 0), (after, SIDE - half)):
        panel.paste(ImageOps.fit(picture, (SIDE, half), Image.Resampling.LANCZOS), (0, top))
    return panel


def _fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _write(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: str, anchor: str = "ls"
) -> None:
    pen.text(at, text, fill=colour, font=ImageFont.load_default(size), anchor=anchor)


def main() -> int:
    with Server(prepare(), log=RUNTIME / "logs" / "hero.log", device="cpu") as server:
        server.start()
        names = ("Text to Image", "Edit with References", "LoRA Stack", "Face Refine", "Accelerated")
        picture = compose(*(run_workflow(server, name) for name in names))
    picture.save(FILE, quality=90, optimize=True, subsampling=0)
    print(FILE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
