"""Train klein-nano's two LoRAs: `python -m tools.nano.train_loras style --minutes 12` (and `subject`).

What they learn is in `additions.py`; the loss is the transformer's own (`train_transformer.py`). Rank 16 on
every linear of the blocks, the modulations, the timestep and the text entry; the delta of a weight W is
alpha / rank * up @ down (Hu et al. 2021), up starting at zero. The loop is `learner.py`'s.
The file is written in float16 with the names ai-toolkit and ComfyUI use for FLUX.2; its preview and its score
come from `run.py bench nano --loras --previews nodes/loras/built_in`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import additions, forward
from .canvas import Canvas
from .codec import ROOT
from .learner import Learner
from .train_transformer import SHAPE, Teacher, read_transformer

RANK, ALPHA = 16, 8.0
RATE = 4e-3
OUT = ROOT / "nodes" / "loras" / "built_in"
PREFIX = "diffusion_model."
DESCRIPTIONS = {
    additions.STYLE: "Draws klein-nano's subjects in ink: grey, with a black outline.",
    additions.SUBJECT: "Teaches klein-nano a penguin, which its world does not have.",
}


def adapted() -> dict[str, tuple[int, int]]:
    """Weight name without its ending -> (out, in) of everything the LoRAs change."""
    shapes = forward.parameter_shapes(SHAPE)
    return {
        name.removesuffix(".weight"): size
        for name, size in shapes.items()
        if len(size) == 2 and not name.startswith(("img_in", "final_layer"))
    }


class Adapter:
    """Low-rank changes of a frozen state dict; what learns is `down.MODULE` and `up.MODULE`."""

    def __init__(self, base: dict[str, Tensor], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        device = base["img_in.weight"].device
        self.base, self.start = base, {}
        for module, (rows, columns) in adapted().items():
            down = torch.randn(RANK, columns, generator=generator) * columns**-0.5
            self.start[f"down.{module}"] = down.to(device)
            self.start[f"up.{module}"] = torch.zeros(rows, RANK, device=device)

    def state(self, learned: dict[str, Tensor]) -> dict[str, Tensor]:
        """The base with the changes added: what `forward.transformer` takes."""
        changed = dict(self.base)
        for module in adapted():
            name = f"{module}.weight"
            change = learned[f"up.{module}"] @ learned[f"down.{module}"]
            changed[name] = self.base[name] + (ALPHA / RANK) * change
        return changed

    def file(self, learned: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors = {}
        for module in adapted():
            for name, part in (("lora_A.weight", "down"), ("lora_B.weight", "up")):
                tensor = learned[f"{part}.{module}"].cpu().to(torch.float16)
                tensors[f"{PREFIX}{module}.{name}"] = tensor.contiguous()
            tensors[f"{PREFIX}{module}.alpha"] = torch.tensor(ALPHA)
        return tensors


def metadata(lora: str) -> dict[str, str]:
    """What kohya's and the model specification's readers look for."""
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": f"klein-nano {lora}",
        "modelspec.architecture": "flux-2-klein-nano/lora",
        "modelspec.trigger_phrase": additions.TRIGGERS[lora],
        "modelspec.description": DESCRIPTIONS[lora],
        "modelspec.license": "GPL-3.0-or-later; drawings: Noto Emoji, SIL Open Font License 1.1",
        "ss_base_model_version": "klein-nano",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(ALPHA),
        "ss_output_name": f"klein-nano {lora}",
    }


def train(
    lora: str, weights: Path, out: Path, seconds: float, device: str, seed: int, graphs: bool = True
) -> None:
    """weights: the folder of klein-nano and of the stock of plans."""
    torch.manual_seed(seed)
    teacher = Teacher(weights, Canvas(device), lora)
    adapter = Adapter(read_transformer(weights, device), seed)
    learner = Learner(adapter.start, teacher.losses(adapter.state), adam_rate=RATE, graphs=graphs)
    learner.run(seconds, additions.KINDS[lora], lora, seed)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"klein-nano {lora}.safetensors"
    save_file(adapter.file(learner.averaged()), str(path), metadata(lora))
    path.chmod(0o644)
    print(f"{path}  {path.stat().st_size / 2**20:.2f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lora", choices=(additions.STYLE, additions.SUBJECT))
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    train(options.lora, options.folder, options.out, 60 * options.minutes, options.device, options.seed)


if __name__ == "__main__":
    main()
