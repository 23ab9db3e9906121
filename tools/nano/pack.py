"""Put trained klein-nano files where the pack loads them: `python -m tools.nano.pack`.

The transformer was trained on the code's own channels only; here its input and output get FLUX.2's full
128, the extra columns and rows zero: the net neither reads nor moves channels that carry nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .codec import ROOT

CHANNELS = 128
METADATA = {
    "modelspec.title": "klein-nano",
    "modelspec.architecture": "flux-2-klein (nano)",
    "modelspec.license": "GPL-3.0-or-later; drawings: Noto Emoji, SIL Open Font License 1.1",
    "modelspec.description": "A tiny toy in FLUX.2 [klein]'s architecture; no substitute for real weights.",
}


def widen(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    kept = state["img_in.weight"].shape[1]
    wide = dict(state)
    wide["img_in.weight"] = torch.zeros(state["img_in.weight"].shape[0], CHANNELS)
    wide["img_in.weight"][:, :kept] = state["img_in.weight"]
    wide["final_layer.linear.weight"] = torch.zeros(CHANNELS, state["final_layer.linear.weight"].shape[1])
    wide["final_layer.linear.weight"][:kept] = state["final_layer.linear.weight"]
    return wide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--out", type=Path, default=ROOT / "nodes" / "model" / "nano_weights")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    total = 0
    for name in ("transformer", "text_encoder", "autoencoder"):
        state = load_file(str(options.folder / f"{name}.safetensors"))
        state = widen(state) if name == "transformer" else state
        target = options.out / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in state.items()}, str(target), METADATA)
        target.chmod(0o644)
        total += target.stat().st_size
        print(f"{target.relative_to(ROOT)}  {target.stat().st_size / 2**20:.2f} MiB")
    print(f"together {total / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
