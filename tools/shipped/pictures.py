"""Makes the pictures of the help pages, `js/docs/*.{jpg,png}`: `python -m tools.shipped.pictures [NAME ...]`.

Every picture is what the nodes really give on klein-nano and the emulated services. `recipes.py` says
what runs; here its results are laid on a sheet with captions, or nodes are photographed on ComfyUI's page.
The help panel is some 280 pixels wide at first, so sheets have two columns and large letters.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tools.browser import Studio, open_studio
from tools.launch.client import ComfyClient
from tools.launch.emulator import run_emulator
from tools.launch.environment import ROOT, RUNTIME, prepare
from tools.launch.server import Server
from tools.shipped.recipes import DRAWINGS, PHOTOGRAPHS, SHEETS, Cell, Photograph, fill_defaults

DOCS = ROOT / "js" / "docs"
WIDTH = 560  # twice the width of the help panel as it opens
GAP = 8
LETTERS = 25
PAPER, INK = "#1e1e1e", "#e6e6e6"

_SCALE, _OFFSET = 1.6, (100, 110)  # beside ComfyUI's own bars
_MARGIN = 18

_LAY_OUT = """
async ([prompt, width, heights, opened]) => {
  await window.app.loadApiJson(prompt, "Help");
  const graph = JSON.parse(JSON.stringify(window.app.graph.serialize()));
  for (const node of graph.nodes) {
    const height = heights[node.id];
    Object.assign(node, { pos: [height ? 0 : -900, 0], size: [width, height ?? 200] });
    node.showAdvanced = String(node.id) === opened;
    node.widgets_values = node.widgets_values?.map((value) => (value === "randomize" ? "fixed" : value));
  }
  await window.app.loadGraphData(graph, true, true, null);
}
"""
_LOOK = """
([scale, x, y]) => {
  const canvas = window.app.canvas;
  canvas.links_render_mode = -1;
  Object.assign(canvas.ds, { scale, offset: [x, y] });
  canvas.setDirty(true, true);
}
"""
# Nodes are as high as what they show, so each is laid below the one before it once the page has drawn them.
_STACK = """
(ids) => {
  let y = 0;
  for (const id of ids) {
    const node = window.app.graph.getNodeById(id);
    node.pos = [node.pos[0], y];
    y += document.querySelector(`[data-node-id="${id}"]`).offsetHeight + 22;
  }
  window.app.canvas.setDirty(true, true);
}
"""
# Where nodes really are, as elements of the page: they grow with what they show.
_OUTLINE = """
(ids) => {
  const boxes = ids.map((id) => document.querySelector(`[data-node-id="${id}"]`).getBoundingClientRect());
  return [Math.min(...boxes.map((box) => box.left)), Math.min(...boxes.map((box) => box.top)),
    Math.max(...boxes.map((box) => box.right)), Math.max(...boxes.map((box) => box.bottom))];
}
"""


def lay_sheet(pictures: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Pictures in rows of `columns`, each with its caption below it, `WIDTH` pixels wide."""
    cell = (WIDTH - GAP * (columns - 1)) // columns
    font = ImageFont.load_default(LETTERS)
    rows = []
    for start in range(0, len(pictures), columns):
        row = []
        for caption, picture in pictures[start : start + columns]:
            height = round(picture.height * cell / picture.width)
            lines = wrap_caption(caption, font, cell)
            row.append((picture.resize((cell, height), Image.Resampling.LANCZOS), lines))
        tall = max(picture.height for picture, _ in row)
        rows.append((row, tall, max(len(lines) for _, lines in row) * (LETTERS + 5)))
    total = sum(tall + words + GAP + 6 for _, tall, words in rows)
    sheet = Image.new("RGB", (WIDTH, total), PAPER)
    draw, y = ImageDraw.Draw(sheet), 0
    for row, tall, words in rows:
        for column, (picture, lines) in enumerate(row):
            x = column * (cell + GAP)
            sheet.paste(picture, (x, y))
            for number, line in enumerate(lines):
                place = (x + cell // 2, y + tall + 4 + number * (LETTERS + 5))
                draw.text(place, line, INK, font, anchor="ma")
        y += tall + words + GAP + 6
    return sheet


def wrap_caption(caption: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    too_long = [line for line in lines if font.getlength(line) > width]
    if too_long:
        raise ValueError(f"The caption {too_long[0]!r} does not fit under a picture {width} pixels wide.")
    return lines if caption else []


def make_sheet(client: ComfyClient, name: str) -> Path:
    recipe = SHEETS[name]()
    prompt = fill_defaults(client, recipe.prompt)
    outputs = client.run(prompt).outputs
    pictures = [(_say(cell, outputs), _fetch(client, outputs, cell)) for cell in recipe.cells]
    path = DOCS / name
    lay_sheet(pictures, recipe.columns).save(path, quality=85, optimize=True, progressive=True)
    return path


def keep_drawing(client: ComfyClient, name: str) -> Path:
    """A picture that a node drew itself, as it is."""
    recipe = DRAWINGS[name]()
    outputs = client.run(fill_defaults(client, recipe.prompt)).outputs
    (cell,) = recipe.cells
    picture = _fetch(client, outputs, cell)
    path = DOCS / name
    if path.suffix == ".png":
        picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    else:
        picture.thumbnail((3 * WIDTH // 2, 3 * WIDTH), Image.Resampling.LANCZOS)
        picture.save(path, quality=85, optimize=True, progressive=True)
    return path


def take_photograph(studio: Studio, name: str) -> Path:
    """The nodes of a small graph after its run, cut out of the page."""
    photograph = PHOTOGRAPHS[name]()
    _show(studio, photograph)
    studio.press_run()
    studio.page.mouse.move(1000, 1800)  # nothing there answers to a pointer
    studio.page.wait_for_timeout(2500)  # pictures and lines of text come after the run's end
    studio.page.evaluate(_STACK, list(photograph.shown))
    studio.page.wait_for_timeout(500)
    left, top, right, bottom = studio.page.evaluate(_OUTLINE, list(photograph.shown))
    clip = {
        "x": left - _MARGIN,
        "y": top - _MARGIN,
        "width": right - left + 2 * _MARGIN,
        "height": bottom - top + 2 * _MARGIN,
    }
    picture = Image.open(io.BytesIO(studio.page.screenshot(clip=clip))).convert("RGB")
    path = DOCS / name
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _show(studio: Studio, photograph: Photograph) -> None:
    prompt = fill_defaults(studio.client, photograph.prompt)
    opened = list(photograph.shown)[0] if photograph.advanced else None
    studio.page.evaluate(_LAY_OUT, [prompt, photograph.width, photograph.shown, opened])
    studio.page.evaluate(_LOOK, [_SCALE, *_OFFSET])
    studio.page.wait_for_timeout(800)


def _say(cell: Cell, outputs: dict[str, dict]) -> str:
    return cell.caption(outputs) if callable(cell.caption) else cell.caption


def _fetch(client: ComfyClient, outputs: dict[str, dict], cell: Cell) -> Image.Image:
    image = outputs[cell.node]["images"][cell.index]
    return Image.open(io.BytesIO(client.fetch_image(image))).convert("RGB")


def main(names: list[str]) -> int:
    environment, log = prepare(tests=True), RUNTIME / "logs" / "pictures.log"
    wanted = names or [*SHEETS, *DRAWINGS, *PHOTOGRAPHS]
    with (
        run_emulator(environment) as variables,
        Server(environment, log=log, device="cpu", variables=variables) as server,
    ):
        server.start()
        for name in wanted:
            if name not in PHOTOGRAPHS:
                maker = make_sheet if name in SHEETS else keep_drawing
                print(maker(server.client, name).relative_to(ROOT), flush=True)
        photographs = [name for name in wanted if name in PHOTOGRAPHS]
        if photographs:
            with open_studio(server.client, 1700, 1900) as studio:
                studio.open(vue_nodes=True)
                for name in photographs:
                    print(take_photograph(studio, name).relative_to(ROOT), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
