"""Many plans of examples as tensors, so that a step of training picks its rows where the net is.

`python -m tools.nano.stock` writes `stock.npz` (the only part that needs ComfyUI, for Klein's tokenizer); the
trainers read it, on any machine with torch.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import additions, examples, world
from .canvas import sprite
from .codec import ROOT, load_pack_module
from .train_text import Sentences, load_tokenizer

SIZES = {"single": 16000, "pair": 40000, "pair with reference": 24000}
OTHERS = 8000
BASE = "base"
FILE = "stock.npz"


def kinds_of(model: str) -> dict[str, float]:
    """Kinds and shares of what is trained: `BASE` for the transformer, else a LoRA."""
    return examples.KINDS if model == BASE else additions.KINDS[model]


def _columns(plans: list[examples.Plan]) -> dict[str, np.ndarray]:
    def offsets(placements) -> list[tuple[int, int]]:
        return [(p.dx, p.dy) for p in placements]

    columns = {
        "sprites": [[sprite(p.subject, plan.inked) for p in plan.placed] for plan in plans],
        "offsets": [offsets(plan.placed) for plan in plans],
        "colour": [plan.colour for plan in plans],
        "told": [world.COLOURS[plan.colour] in plan.sentence for plan in plans],
    }
    if plans[0].references:
        columns |= {
            "reference sprites": [[sprite(p.subject, False) for p, _ in plan.references] for plan in plans],
            "reference offsets": [offsets(p for p, _ in plan.references) for plan in plans],
            "reference grounds": [[ground for _, ground in plan.references] for plan in plans],
        }
    return {name: np.asarray(rows, np.int16) for name, rows in columns.items()}


def make(comfyui: Path, path: Path, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    sentences = Sentences(load_tokenizer(comfyui), load_pack_module("nano_text").PAD_TOKEN)
    arrays = {"empty": sentences.batch([""]).numpy().astype(np.int32)}
    for model in (BASE, additions.STYLE, additions.SUBJECT):
        for kind in kinds_of(model):
            count = int(share * (SIZES.get(kind, OTHERS) if model == BASE else OTHERS))
            plans = [
                examples.plan(kind, rng) if model == BASE else additions.plan(model, kind, rng)
                for _ in range(count)
            ]
            for name, values in _columns(plans).items():
                arrays[f"{model}/{kind}/{name}"] = values
            ids = sentences.batch([plan.sentence for plan in plans])
            arrays[f"{model}/{kind}/tokens"] = ids.numpy().astype(np.int32)
            print(f"{model} {kind}: {count}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


@dataclass(frozen=True)
class Batch:
    """latent `[B, C, h, w]`, references each `[B, C, 8, 8]`, text `[B, 8, 192]`."""

    latent: Tensor
    references: list[Tensor]
    text: Tensor


class Shelf:
    """The plans of one model on one device, drawn and encoded on demand."""

    def __init__(self, path: Path, model: str, canvas, encode, text_encoder) -> None:
        """encode: pictures `[B, 3, H, W]` in -1..1 -> latents; text_encoder: token ids -> conditioning."""
        self.canvas, self.encode = canvas, encode
        self.columns: dict[str, dict[str, Tensor]] = {}
        self.text: dict[str, Tensor] = {}
        self.told: dict[str, Tensor] = {}  # whose sentence names the background
        with np.load(path) as file:
            for kind in kinds_of(model):
                prefix = f"{model}/{kind}/"
                self.columns[kind] = {
                    name.removeprefix(prefix): torch.from_numpy(file[name].astype(np.int64)).to(canvas.device)
                    for name in file.files
                    if name.startswith(prefix)
                }
                self.told[kind] = self.columns[kind].pop("told").bool()
                # The encoder does not learn any more: every sentence is read once.
                tokens = self.columns[kind].pop("tokens")
                with torch.no_grad():
                    self.text[kind] = torch.cat([text_encoder(part) for part in tokens.split(2048)])
            self.empty = text_encoder(torch.from_numpy(file["empty"].astype(np.int64)).to(canvas.device))

    def batch(self, kind: str, size: int) -> Batch:
        columns = self.columns[kind]
        rows = torch.randint(len(self.text[kind]), (size,), device=self.canvas.device)
        with torch.no_grad():
            latent = self.encode(
                self.canvas.paint(columns["sprites"][rows], columns["offsets"][rows], columns["colour"][rows])
            )
            references = [
                self.encode(
                    self.canvas.paint(
                        columns["reference sprites"][rows, k : k + 1],
                        columns["reference offsets"][rows, k : k + 1],
                        columns["reference grounds"][rows, k],
                    )
                )
                for k in range(columns["reference sprites"].shape[1] if "reference sprites" in columns else 0)
            ]
        return Batch(latent, references, self.text[kind][rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", type=Path, default=ROOT / ".runtime" / "comfyui")
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the full number of plans")
    options = parser.parse_args()
    make(options.comfyui, options.folder / FILE, options.seed, options.share)


if __name__ == "__main__":
    main()
