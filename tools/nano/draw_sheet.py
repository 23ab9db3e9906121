"""Makes `drawings/sheet.png`, what the world is drawn from: `python -m tools.nano.draw_sheet FONT`.

FONT is NotoColorEmoji.ttf (Debian: fonts-noto-color-emoji). Needed once for each new drawing only: everything
else reads the sheet, so that no machine needs the font. Every character of `world` and `additions` gets a
cell of one strike of the font, untouched; the file's own text names the characters in the order of the cells.
"""

from __future__ import annotations

import sys

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from . import additions, world

COLUMNS = 11
COPYRIGHT = "Noto Emoji, copyright 2013-2017 Google Inc. and Arjen Nienhuis"
LICENCE = "SIL Open Font License 1.1, see OFL.txt"


def draw_sheet(font: str, characters: list[str]) -> Image.Image:
    """The characters in rows of `COLUMNS` cells, RGBA; ValueError for one that the font does not draw."""
    strike = ImageFont.truetype(font, world.STRIKE)
    width, height = world.CELL
    rows = -(-len(characters) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * width, rows * height), (0, 0, 0, 0))
    for place, character in enumerate(characters):
        cell = Image.new("RGBA", world.CELL, (0, 0, 0, 0))
        ImageDraw.Draw(cell).text((0, 0), character, font=strike, embedded_color=True, anchor="lt")
        if cell.getbbox() is None:
            raise ValueError(f"{font} draws nothing for {character!a}.")
        sheet.paste(cell, (place % COLUMNS * width, place // COLUMNS * height))
    return sheet


def main(font: str) -> None:
    characters = [*world.SUBJECTS.values(), additions.PENGUIN]
    text = PngImagePlugin.PngInfo()
    text.add_text(world.CHARACTERS, " ".join(f"{ord(character):x}" for character in characters))
    text.add_text("Copyright", COPYRIGHT)
    text.add_text("License", LICENCE)
    draw_sheet(font, characters).save(world.SHEET, pnginfo=text, optimize=True)
    print(f"{world.SHEET}: {len(characters)} drawings, {world.SHEET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
