"""Train the drawing half of klein-nano's autoencoder: `python -m tools.nano.train_autoencoder --minutes 30`.

The linear code is fixed beforehand (`codec.fit`), so the transformer's training needs nothing of this.
Latents get some noise, as sampled latents are never exact. The loss is taken in pixels, on their differences
to the neighbours and on how much of these there is around a place, which is where blur and borders of patches
show.

`--polish` goes on with what is there, two thirds of it on latents that the transformer and its LoRAs make
(`sampling.py`): for them the picture meant is known, and it is bent to where the latent shows its parts
(`alignment.py`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from .alignment import displaced, displacement
from .canvas import Canvas
from .codec import FITTED, ROOT, LinearCode, autoencoder
from .learner import Learner, Loss
from .sampling import Sampled, read_pools, sample_pool

BATCH = {"cuda": 256, "cpu": 16}
NOISE, SAMPLED_NOISE = 0.15, 0.08
SHARES = {"drawn": 0.55, "single": 0.3, "pair": 0.15}  # of a polish
RATE, POLISH_RATE = 1.5e-3, 2.5e-4
CONTRAST, GRID = 1.0, 0.2  # weights in the loss
SHOWN = 14.0  # dB between a sampled picture and the bent drawing, below which it shows something else
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


def local_contrast(x: Tensor) -> Tensor:
    """Root mean square of the steps to the neighbours in every window of 8 pixels: `[B, 1, H/4, W/4]`."""
    across = functional.pad(x.diff(dim=3), (0, 1)).square().mean(1, keepdim=True)
    down = functional.pad(x.diff(dim=2), (0, 0, 0, 1)).square().mean(1, keepdim=True)
    return (functional.avg_pool2d(across + down, 8, 4) + 4e-4).sqrt()


def grid_excess(made: Tensor, asked: Tensor) -> Tensor:
    """What steps across the lines of the patch grid are larger than the drawing's."""
    total = made.new_zeros(())
    for axis in (2, 3):
        lines = torch.arange(autoencoder.PATCH, made.shape[axis], autoencoder.PATCH, device=made.device)
        steps = ((x.index_select(axis, lines) - x.index_select(axis, lines - 1)).abs() for x in (made, asked))
        ours, theirs = (step.mean(1) for step in steps)
        total = total + (ours - theirs).relu().mean()
    return total


def pixel_loss(made: Tensor, asked: Tensor) -> Tensor:
    """The contrast is asked for apart from its place: where that is uncertain, differences alone would rather
    have none."""
    error = made - asked
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    contrast = (local_contrast(made) - local_contrast(asked)).abs().mean()
    plain = error.abs().mean() + 4 * error.square().mean() + 0.5 * edges
    return plain + CONTRAST * contrast + GRID * grid_excess(made, asked)


class Draughtsman:
    """Losses of the decoding half; everything but the encoder learns."""

    def __init__(self, state: dict[str, Tensor], canvas: Canvas, pools: dict[str, Sampled]) -> None:
        self.decoder = Decoder().to(canvas.device, memory_format=torch.channels_last)
        self.fixed = {n: t.to(canvas.device) for n, t in state.items() if n.startswith(ENCODING)}
        self.canvas, self.batch = canvas, BATCH[canvas.device.type]
        start = {n: t.to(canvas.device) for n, t in state.items() if not n.startswith(ENCODING)}
        self.examples = {kind: self.bent(start, pool) for kind, pool in pools.items()}

    def encode(self, pictures: Tensor) -> Tensor:
        code = torch.nn.functional.conv2d(
            pictures, self.fixed["to_code.weight"], self.fixed["to_code.bias"], stride=autoencoder.PATCH
        )
        return autoencoder.fold(code)

    def decode(self, learned: dict[str, Tensor], latent: Tensor) -> Tensor:
        return functional_call(self.decoder, {f"net.{n}": t for n, t in learned.items()}, (latent,))

    @torch.no_grad()
    def bent(self, start: dict[str, Tensor], pool: Sampled) -> tuple[Sampled, Tensor]:
        """The latents that show what they mean, and where the parts of its drawing lie in the picture that
        the decoder makes of them so far."""
        fields, kept = [], []
        for part in torch.arange(len(pool), device=self.canvas.device).split(32):
            made = self.decode(start, pool.latent[part]).clamp(-1, 1)
            drawn = pool.drawn(self.canvas, part)
            field = displacement(made, drawn)
            error = (made - displaced(drawn, field)).square().mean((1, 2, 3))
            near = 10 * torch.log10(4 / error) > SHOWN
            fields.append(field[near])
            kept.append(part[near])
        return pool.rows(torch.cat(kept)), torch.cat(fields)

    def drawn(self, learned: dict[str, Tensor]) -> Tensor:
        """Round trips of pictures that only the world's drawings are taken for."""
        with torch.no_grad():
            pictures = self.canvas.paint_freely(self.batch)
            latent = self.noised(self.encode(pictures), NOISE)
        return pixel_loss(self.decode(learned, latent), pictures)

    def sampled(self, kind: str) -> Loss:
        """Pictures that latents of the transformer mean, bent to where these show them."""
        pool, fields = self.examples[kind]

        def loss(learned: dict[str, Tensor]) -> Tensor:
            with torch.no_grad():
                rows = torch.randint(len(pool), (self.batch,), device=self.canvas.device)
                latent = self.noised(pool.latent[rows], SAMPLED_NOISE)
                pictures = displaced(pool.drawn(self.canvas, rows), fields[rows])
            return pixel_loss(self.decode(learned, latent), pictures)

        return loss

    @staticmethod
    def noised(latent: Tensor, most: float) -> Tensor:
        strength = most * torch.rand(len(latent), 1, 1, 1, device=latent.device)
        return latent + strength * torch.randn_like(latent)

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
    pools = {}
    if polish:
        pools = read_pools(folder, device)
        if not pools:
            pools = sample_pool(folder, canvas, seconds / 3)
            seconds -= seconds / 3
    man = Draughtsman(state, canvas, pools)
    counts = {kind: len(pool) for kind, (pool, _) in man.examples.items()}
    if min(counts.values(), default=64) < 64:
        raise ValueError(f"Too few latents show what was asked for, train the transformer first: {counts}.")
    learned = {n: t.to(device) for n, t in state.items() if not n.startswith(ENCODING)}
    losses = {"drawn": man.drawn} | {kind: man.sampled(kind) for kind in pools}
    learner = Learner(
        learned, losses, adam_rate=POLISH_RATE if polish else RATE, averaging=0.995, graphs=graphs
    )
    print(f"round trip before {man.round_trip(learner.averaged()):.2f} dB", flush=True)

    def keep() -> None:
        whole = {n: t.cpu() for n, t in (man.fixed | learner.averaged()).items()}
        save_file({n: whole[n].contiguous() for n in state}, str(path))

    shares = SHARES if polish else {"drawn": 1.0}
    learner.run(seconds, shares, "autoencoder", seed, keep)
    keep()
    print(f"round trip after {man.round_trip(learner.averaged()):.2f} dB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--polish", action="store_true", help="go on, most of it on latents the transformer makes"
    )
    options = parser.parse_args()
    train(options.folder, 60 * options.minutes, options.device, options.seed, polish=options.polish)


if __name__ == "__main__":
    main()
