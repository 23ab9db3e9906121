"""Makes `workflows/NAME.jpg` by really running the workflow: `python -m tools.shipped.thumbnails [NAME ...]`.

One picture fills the square, whole. Two are shown as a before and an after, half of each; wide ones whole,
one above the other. Of three, two are small and stand above the third, which was made from them. Four
become a sheet. What an API would draw is drawn by klein-nano here: the emulator stamps its pictures, and a
real one costs money.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from tools.launch.client import ComfyClient, load_prompt
from tools.launch.emulator import run_emulator
from tools.launch.environment import ROOT, RUNTIME, prepare
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER, ORDER
from tools.shipped.recipes import Painter, fill_defaults

SIDE = 512
SEAM = 4


def compose(pictures: list[Image.Image]) -> Image.Image:
    """A square of one, two (before and after), three (two and what was made of them) or four pictures,
    `SIDE` pixels wide.
    """
    if len(pictures) == 1:
        return _fit(pictures[0], SIDE)
    if len(pictures) == 2 and any(picture.width >= 1.5 * picture.height for picture in pictures):
        # Cut to a square, a wide picture loses what stands at its sides: two of them make the square.
        sheet = Image.new("RGB", (SIDE, SIDE), "white")
        size = (SIDE, (SIDE - SEAM) // 2)
        for index, picture in enumerate(pictures):
            corner = picture.getpixel((0, 0))
            fitted = ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=corner)
            sheet.paste(fitted, (0, index * (size[1] + SEAM)))
        return sheet
    if len(pictures) == 2:
        before, after = (_fill(picture, SIDE) for picture in pictures)
        before.paste(after.crop((SIDE // 2, 0, SIDE, SIDE)), (SIDE // 2, 0))
        seam = (SIDE // 2 - SEAM // 2, 0, SIDE // 2 + SEAM // 2 - 1, SIDE)
        ImageDraw.Draw(before).rectangle(seam, fill="white")
        return before
    if len(pictures) == 3:
        return _stack(pictures)
    if len(pictures) != 4:
        raise ValueError(f"A thumbnail is made of one to four pictures; the workflow saved {len(pictures)}.")
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    cell = (SIDE - SEAM) // 2
    for index, picture in enumerate(pictures):
        sheet.paste(_fill(picture, cell), (index % 2 * (cell + SEAM), index // 2 * (cell + SEAM)))
    return sheet


def make_thumbnail(server: Server, name: str) -> Path:
    prompt = fill_defaults(server.client, draw_locally(load_prompt(API_FOLDER / f"{name}.json")))
    pictures = fetch_saved(server.client, prompt, server.client.run(prompt).outputs)
    path = ROOT / "workflows" / f"{name}.jpg"
    path.write_bytes(encode(compose(pictures)))
    return path


def draw_locally(prompt: dict) -> dict:
    """The prompt itself where a Klein Sampler draws; else klein-nano draws what the remote node orders."""
    kinds = {node["class_type"]: node["inputs"] for node in prompt.values()}
    order = kinds.get("KleinodRunware") or kinds.get("KleinodBFL")
    if order is None or "KleinodSampler" in kinds:
        return prompt
    graph = Painter()
    words = graph.write(order.get("positive_prompt") or order["prompt"])
    picture = graph.paint(words, seed=order["seed"], results=order.get("number_results", 1))
    graph.add("SaveImage", images=[picture, 0], filename_prefix="thumbnail")
    return graph.nodes


def fetch_saved(client: ComfyClient, prompt: dict, outputs: dict[str, dict]) -> list[Image.Image]:
    """What a run saved, in the order of the file: which of two branches runs first is ComfyUI's choice."""
    images = [image for number in prompt for image in outputs.get(number, {}).get("images", [])]
    files = [io.BytesIO(client.fetch_image(image)) for image in images if image["type"] == "output"]
    return [Image.open(file).convert("RGB") for file in files]


def encode(thumbnail: Image.Image) -> bytes:
    file = io.BytesIO()
    thumbnail.save(file, "JPEG", quality=88, optimize=True)
    return file.getvalue()


def _stack(pictures: list[Image.Image]) -> Image.Image:
    """The largest picture over the whole width, the two it was made from above it."""
    *given, made = sorted(pictures, key=lambda picture: picture.width * picture.height)
    height = SIDE * made.height // made.width
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(made.resize((SIDE, height), Image.Resampling.LANCZOS), (0, SIDE - height))
    side = SIDE - height - 2 * SEAM
    for index, picture in enumerate(given):
        middle = SIDE * (1 + 2 * index) // 4
        square.paste(_fill(picture, side), (middle - side // 2, SEAM))
    return square


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """The whole picture in a square of its corner's colour: a sheet cut off at both ends says nothing."""
    scale = side / max(picture.size)
    small = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
    )
    square = Image.new("RGB", (side, side), picture.getpixel((0, 0)))
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


def _fill(picture: Image.Image, side: int) -> Image.Image:
    """Cut the middle square and scale it."""
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    square = picture.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def main(names: list[str]) -> int:
    environment, log = prepare(), RUNTIME / "logs" / "thumbnails.log"
    with (
        run_emulator(environment) as variables,
        Server(environment, log=log, device="cpu", variables=variables) as server,
    ):
        server.start()
        for name in names or ORDER:
            print(make_thumbnail(server, name).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
