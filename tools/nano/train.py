"""Everything of klein-nano that is trained on pictures, one after the other: `python -m tools.nano.train`.

`--minutes` is shared out by `SHARES`. Needs the text encoder (`train_text`) and the plans (`stock`) in the
folder, and there it leaves the transformer, the autoencoder and both LoRAs for `pack`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from . import additions, train_autoencoder, train_loras, train_transformer
from .codec import ROOT

SHARES = {"autoencoder": 0.24, "transformer": 0.46, "loras": 0.14, "polish": 0.09, "again": 0.07}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--minutes", type=float, default=300)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="on a GPU, without CUDA graphs")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    started, total = time.time(), 60 * options.minutes
    spent = 0.0
    common = {"device": options.device, "seed": options.seed, "graphs": not options.eager}

    def slice_of(share: float) -> float:
        """Seconds for a part, less what the parts before it needed beyond theirs."""
        nonlocal spent
        spent += share * total
        return max(1.0, spent - (time.time() - started))

    folder = options.folder
    train_autoencoder.train(folder, slice_of(SHARES["autoencoder"]), **common)
    train_transformer.train(folder, slice_of(SHARES["transformer"]), **common)
    for lora in (additions.STYLE, additions.SUBJECT):
        train_loras.train(lora, folder, folder, slice_of(SHARES["loras"] / 2), **common)
    train_autoencoder.train(folder, slice_of(SHARES["polish"]), polish=True, **common)
    # Once more on drawings alone: what polishing takes from the round trip comes back.
    train_autoencoder.train(folder, slice_of(SHARES["again"]), **common)
    print(f"all done after {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
