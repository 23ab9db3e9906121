"""Train the drawing half of klein-nano's autoencoder: `python -m tools.nano.train_autoencoder --minutes 30`.

The linear code is fixed beforehand (`codec.fit`), so the transformer's training needs nothing of this.
Latents get some noise, as sampled latents are never exact. The loss is taken in pixels and on their
differences to the neighbours, which is where blur and borders of patches show.

`--polish` goes on with what is there, half of it on latents that the transformer and its LoRAs make
(`sampling.py`): for them the picture meant is known, only its place is looked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from .canvas import Canvas
from .codec import FITTED, ROOT, LinearCode, autoencoder
from .learner import Learner
from .sampling import Sampled, sample_pool

BATCH = {"cuda": 256, "cpu": 12}
NOISE = 0.15
RATE, POLISH_RATE = 1.5e-3, 4e-4
ENCODING = "to_code"
FILE = "autoencoder.safetensors"


class Decoder(nn.Module):
    """The autoencoder as a function from latents to pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.net = autoencoder.NanoAutoencoder()

    def forward(self, latent: Tensor) -> Tensor:
        return self.net.decode(latent)


def fresh() -> dict[str, Tensor]:
    """Names as in the file: the linear code and a net that adds nothing yet."""
    code = LinearCode.load(FITTED)
    model = autoencoder.NanoAutoencoder()
    model.set_linear_code(code.mean, code.basis, code.deviation)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def pixel_loss(made: Tensor, asked: Tensor) -> Tensor:
    error = made - asked
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 8 * error.square().mean() + 0.5 * edges


class Draughtsman:
    """Losses of the decoding half; everything but the encoder learns."""

    def __init__(self, state: dict[str, Tensor], canvas: Canvas, pool: Sampled | None = None) -> None:
        self.decoder = Decoder().to(canvas.device, memory_format=torch.channels_last)
        self.fixed = {n: t.to(canvas.device) for n, t in state.items() if n.startswith(ENCODING)}
        self.canvas, self.pool = canvas, pool
        self.batch = BATCH[canvas.device.type]

    def encode(self, pictures: Tensor) -> Tensor:
        code = torch.nn.functional.conv2d(
            pictures, self.fixed["to_code.weight"], self.fixed["to_code.bias"], stride=autoencoder.PATCH
        )
        return autoencoder.fold(code)

    def decode(self, learned: dict[str, Tensor], latent: Tensor) -> Tensor:
        return functional_call(self.decoder, {f"net.{n}": t for n, t in learned.items()}, (latent,))

    def drawn(self, learned: dict[str, Tensor]) -> Tensor:
        """Round trips of pictures that only the world's drawings are taken for."""
        with torch.no_grad():
            pictures = self.canvas.paint_freely(self.batch)
            latent = self.encode(pictures)
            strength = NOISE * torch.rand(len(latent), 1, 1, 1, device=latent.device)
            latent = latent + strength * torch.randn_like(latent)
        return pixel_loss(self.decode(learned, latent), pictures)

    def sampled(self, learned: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            latent, pictures = self.pool.batch(self.batch, self.canvas)
        return pixel_loss(self.decode(learned, latent), pictures)

    def round_trip(self, learned: dict[str, Tensor]) -> float:
        """dB on singles of the world at any pixel."""
        generator = torch.Generator().manual_seed(9)
        count = 256
        sprites = torch.randint(64, (count, 1), generator=generator)
        offsets = torch.randint(-4, 5, (count, 1, 2), generator=generator)
        colours = torch.randint(8, (count,), generator=generator)
        with torch.no_grad():
            x = self.canvas.paint(*(t.to(self.canvas.device) for t in (sprites, offsets, colours)))
            again = torch.cat([self.decode(learned, z) for z in self.encode(x).split(32)])
            return (10 * torch.log10(4 / (again.clamp(-1, 1) - x).square().mean())).item()


def train(
    folder: Path, seconds: float, device: str, seed: int, graphs: bool = True, polish: bool = False
) -> None:
    torch.manual_seed(seed)
    path = folder / FILE
    state = load_file(str(path)) if path.exists() else fresh()
    canvas = Canvas(device)
    pool = None
    if polish:
        pool = sample_pool(folder, canvas, seconds / 3)
        seconds -= seconds / 3
        if len(pool.latent) < 64:
            raise ValueError("Too few sampled latents show what was asked for: train the transformer first.")
    man = Draughtsman(state, canvas, pool)
    learned = {n: t.to(device) for n, t in state.items() if not n.startswith(ENCODING)}
    losses = {"drawn": man.drawn} | ({"sampled": man.sampled} if polish else {})
    learner = Learner(
        learned, losses, adam_rate=POLISH_RATE if polish else RATE, averaging=0.995, graphs=graphs
    )
    print(f"round trip before {man.round_trip(learner.averaged()):.2f} dB", flush=True)

    def keep() -> None:
        whole = {n: t.cpu() for n, t in (man.fixed | learner.averaged()).items()}
        save_file({n: whole[n].contiguous() for n in state}, str(path))

    shares = {"drawn": 0.35, "sampled": 0.65} if polish else {"drawn": 1.0}
    learner.run(seconds, shares, "autoencoder", seed, keep)
    keep()
    print(f"round trip after {man.round_trip(learner.averaged()):.2f} dB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--polish", action="store_true", help="go on, half on latents the transformer makes")
    options = parser.parse_args()
    train(options.folder, 60 * options.minutes, options.device, options.seed, polish=options.polish)


if __name__ == "__main__":
    main()
