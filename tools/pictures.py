"""Makes the pictures of the help pages by really running shipped workflows: `python -m tools.pictures`."""

from __future__ import annotations

import io
import sys

from PIL import Image

from tools.launch.client import load_prompt
from tools.launch.environment import ROOT, RUNTIME, prepare
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER

DOCS = ROOT / "js" / "docs"
# Picture -> the workflow that shows it, and the title of the node there.
PICTURES = {"acceleration_chart.png": ("Klein - Accelerated", "What was skipped")}


def make_picture(server: Server, name: str) -> None:
    workflow, title = PICTURES[name]
    prompt = load_prompt(API_FOLDER / f"{workflow}.json")
    (node,) = [number for number, entry in prompt.items() if entry["_meta"]["title"] == title]
    image = server.client.run(prompt).outputs[node]["images"][0]
    picture = Image.open(io.BytesIO(server.client.fetch_image(image))).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)


def main(names: list[str]) -> int:
    with Server(prepare(), log=RUNTIME / "logs" / "pictures.log", device="cpu") as server:
        server.start()
        for name in names or PICTURES:
            make_picture(server, name)
            print((DOCS / name).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
