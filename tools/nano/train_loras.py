"""Train klein-nano's two LoRAs: `python -m tools.nano.train_loras style --minutes 12` (and `subject`).

What they learn is in `additions.py`; the loss is the transformer's own (`train_transformer.py`). Rank 16 on
every linear of the blocks, the modulations, the timestep and the text entry; the delta of a weight W is
alpha / rank * up @ down (Hu et al. 2021), up starting at zero. Adam; the learning rate follows the clock.
The file is written in float16 with the names ai-toolkit and ComfyUI use for FLUX.2; its preview and its score
come from `run.py bench nano --loras --previews nodes/loras/built_in`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import additions, forward
from .codec import ROOT
from .train_transformer import SHAPE, Teacher, narrow

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
    """Trainable low-rank changes of a frozen state dict."""

    def __init__(self, base: dict[str, Tensor], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.base, self.down, self.up = base, {}, {}
        for module, (rows, columns) in adapted().items():
            self.down[module] = torch.randn(RANK, columns, generator=generator) * columns**-0.5
            self.up[module] = torch.zeros(rows, RANK)
        for parameter in self.parameters():
            parameter.requires_grad_()

    def parameters(self) -> list[Tensor]:
        return [*self.down.values(), *self.up.values()]

    def state(self) -> dict[str, Tensor]:
        """The base with the changes added: what `forward.transformer` takes."""
        changed = dict(self.base)
        for module in self.down:
            name = f"{module}.weight"
            changed[name] = self.base[name] + (ALPHA / RANK) * (self.up[module] @ self.down[module])
        return changed

    def file(self) -> dict[str, Tensor]:
        tensors = {}
        for module in self.down:
            for name, value in (("lora_A.weight", self.down), ("lora_B.weight", self.up)):
                tensors[f"{PREFIX}{module}.{name}"] = value[module].detach().to(torch.float16).contiguous()
            tensors[f"{PREFIX}{module}.alpha"] = torch.tensor(ALPHA)
        return tensors


class LoraTeacher(Teacher):
    """The transformer's teacher with the pictures of one LoRA."""

    def lora_loss(self, state: dict[str, Tensor], lora: str, kind: str) -> Tensor:
        return self.batch_loss(state, additions.make_batch(lora, kind, self.code, self.rng))


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


def rate_at(progress: float) -> float:
    return min(1.0, progress / 0.03, max(0.0, (1.0 - progress) / 0.7))


def train(lora: str, teacher: LoraTeacher, base: dict[str, Tensor], minutes: float, seed: int) -> Adapter:
    adapter = Adapter(base, seed)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=RATE, betas=(0.9, 0.98))
    kinds = list(additions.KINDS[lora])
    shares = [share for share, _ in additions.KINDS[lora].values()]
    recent: dict[str, list[float]] = {kind: [] for kind in kinds}
    step, started = 0, time.time()
    while (progress := (time.time() - started) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = RATE * rate_at(progress)
        kind = kinds[teacher.rng.choice(len(kinds), p=shares)]
        loss = teacher.lora_loss(adapter.state(), lora, kind)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        recent[kind] = recent[kind][-49:] + [loss.item()]
        step += 1
        if step % 50 == 0:
            report = " ".join(f"{k} {np.mean(v):.4f}" for k, v in recent.items() if v)
            print(f"{lora} step {step} {time.time() - started:.0f} s | {report}", flush=True)
    return adapter


def main() -> None:
    weights = ROOT / "nodes" / "model" / "nano_weights"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lora", choices=(additions.STYLE, additions.SUBJECT))
    parser.add_argument("--comfyui", type=Path, default=ROOT / ".runtime" / "comfyui")
    parser.add_argument("--weights", type=Path, default=weights, help="klein-nano's folder")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    base = narrow(load_file(str(options.weights / "transformer.safetensors")))
    teacher = LoraTeacher(options.comfyui, options.weights, options.seed)
    adapter = train(options.lora, teacher, base, options.minutes, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"klein-nano {options.lora}.safetensors"
    save_file(adapter.file(), str(path), metadata(options.lora))
    path.chmod(0o644)
    print(f"{path}  {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
