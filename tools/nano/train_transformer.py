"""Train klein-nano's transformer: `python -m tools.nano.train_transformer --minutes 90`.

Rectified flow on the linear code (`codec.py`): x = (1 - sigma) picture + sigma noise, target noise -
picture, sigma logistic around `SHIFT` as the sampler visits them. Examples come from `stock.py`, the loop is
`learner.py`'s. Seeded, and repeatable on one machine only where the clock is: the rate follows it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import codec, forward, stock
from .canvas import Canvas
from .codec import ROOT, load_pack_module
from .learner import Learner

SHIFT = 1.1
MUON_RATE, ADAM_RATE = 0.02, 2e-3
SHAPE = forward.Shape(channels=4 * codec.KEPT)
# Batch sizes with none, one and two references for pictures of 64 tokens; pairs take two thirds of them.
BATCH = {"cuda": (512, 256, 192), "cpu": (32, 16, 11)}
FILE = "transformer.safetensors"


def is_hidden(name: str) -> bool:
    return "_blocks." in name and name.endswith(".weight")


def sample_sigma(count: int, device: torch.device) -> Tensor:
    u = torch.rand(count, device=device).clamp(1e-4, 1 - 1e-4)
    return torch.sigmoid(torch.logit(u) + SHIFT)


class Teacher:
    """Makes batches and the loss on them."""

    def __init__(self, folder: Path, canvas: Canvas, model: str = stock.BASE) -> None:
        """folder: with the text encoder and the stock of plans."""
        text = load_pack_module("nano_text")
        weights = load_file(str(folder / "text_encoder.safetensors"))
        encoder = text.NanoTextEncoder(weights["vocabulary"])
        encoder.load_state_dict(weights)
        encoder.to(canvas.device).eval().requires_grad_(False)
        code = codec.LinearCode.load(codec.FITTED)
        self.weights = code.loss_weights().to(canvas.device)
        self.kernel, self.bias = (t.to(canvas.device) for t in code.kernel())
        self.canvas = canvas
        self.shelf = stock.Shelf(folder / stock.FILE, model, canvas, self.encode, encoder)
        self.batches = BATCH[canvas.device.type]
        self.rotations: dict[tuple, Tensor] = {}

    def encode(self, pictures: Tensor) -> Tensor:
        """`[B, 3, H, W]` in -1..1 -> `[B, 4 * KEPT, H/16, W/16]`."""
        code = torch.nn.functional.conv2d(pictures, self.kernel, self.bias, stride=codec.PATCH)
        return codec.fold(code)

    def losses(self, prepare=lambda state: state) -> dict:
        """One loss for each kind of example; `prepare` makes the transformer's weights of what learns."""
        return {kind: lambda state, kind=kind: self.loss(prepare(state), kind) for kind in self.shelf.columns}

    def size_of(self, kind: str) -> int:
        columns = self.shelf.columns[kind]
        count = columns["reference sprites"].shape[1] if "reference sprites" in columns else 0
        return self.batches[count] * (3 if columns["sprites"].shape[1] == 1 else 2) // 3

    def loss(self, state: dict[str, Tensor], kind: str) -> Tensor:
        batch = self.shelf.batch(kind, self.size_of(kind))
        sigma = sample_sigma(len(batch.text), self.canvas.device)
        clean = tokens(batch.latent)
        noise = torch.randn_like(clean)
        mixed = torch.lerp(clean, noise, sigma[:, None, None])
        # A little noise, so that references need not match the training code to the last bit.
        references = [tokens(r) for r in batch.references]
        references = [r + 0.05 * torch.randn_like(r) for r in references]
        sizes = tuple(tuple(x.shape[-2:]) for x in (batch.latent, *batch.references))
        velocity = self.velocity(state, torch.cat((mixed, *references), dim=1), batch.text, sigma, sizes)
        return ((velocity - (noise - clean)).square() * self.weights).mean()

    def velocity(
        self, state: dict[str, Tensor], x: Tensor, text: Tensor, sigma: Tensor, sizes: tuple
    ) -> Tensor:
        """sizes: rows and columns of the picture's latent, then of each reference's."""
        if sizes not in self.rotations:
            rotation = forward.rotary(forward.position_ids(text.shape[1], list(sizes)))
            self.rotations[sizes] = rotation.to(self.canvas.device)
        count = sizes[0][0] * sizes[0][1]
        return forward.transformer(state, SHAPE, x, text, sigma, self.rotations[sizes], count)


def tokens(latent: Tensor) -> Tensor:
    return latent.flatten(2).transpose(1, 2)


def narrow(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Packed weights (`pack.py`) without the channels that carry nothing; unpacked ones as they are."""
    kept = SHAPE.channels
    state["img_in.weight"] = state["img_in.weight"][:, :kept].contiguous()
    state["final_layer.linear.weight"] = state["final_layer.linear.weight"][:kept].contiguous()
    return state


def read_transformer(folder: Path, device: torch.device | str) -> dict[str, Tensor]:
    return {n: t.float().to(device) for n, t in narrow(load_file(str(folder / FILE))).items()}


def train(
    folder: Path, seconds: float, device: str, seed: int, graphs: bool = True, rate: float = 1.0
) -> None:
    """Goes on with the transformer of the folder where there is one."""
    torch.manual_seed(seed)
    path = folder / FILE
    state = read_transformer(folder, device) if path.exists() else forward.initial_state(SHAPE, seed)
    teacher = Teacher(folder, Canvas(device))
    learner = Learner(
        {name: state[name].to(device) for name in forward.parameter_shapes(SHAPE)},
        teacher.losses(),
        adam_rate=rate * ADAM_RATE,
        muon_rate=rate * MUON_RATE,
        hidden=is_hidden,
        graphs=graphs,
    )

    def keep() -> None:
        temporary = path.with_suffix(".part")
        save_file({n: t.cpu().contiguous() for n, t in learner.averaged().items()}, str(temporary))
        temporary.replace(path)

    learner.run(seconds, stock.kinds_of(stock.BASE), "transformer", seed, keep)
    keep()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    options = parser.parse_args()
    train(options.folder, 60 * options.minutes, options.device, options.seed, rate=options.rate)


if __name__ == "__main__":
    main()
