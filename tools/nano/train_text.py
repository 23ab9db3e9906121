"""Train klein-nano's text encoder on sentences alone: `python -m tools.nano.train_text --comfyui DIR`.

Objective: from the eight output tokens, three linear heads read the slots of `language.Meaning` (tokens 0-2
the left thing, 3-5 the right one, 6-7 the background), with a little noise on the tokens so that meanings
lie apart.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from .codec import ROOT, load_pack_module
from .language import COLOUR_CLASSES, THINGS, Meaning, random_meaning, say

TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def load_tokenizer(comfyui: Path):
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(str(comfyui / "comfy" / "text_encoders" / "qwen25_tokenizer"))


class Sentences:
    """Token ids of sentences, remembered by text."""

    def __init__(self, tokenizer, pad: int) -> None:
        self.tokenizer, self.pad, self.known = tokenizer, pad, {}

    def ids(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.tokenizer(TEMPLATE.format(text))["input_ids"]
        return self.known[text]

    def batch(self, texts: list[str]) -> torch.Tensor:
        rows = [self.ids(text) for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])


class SlotHeads(nn.Module):
    """Linear readers of the slots, used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(width, THINGS), nn.Linear(width, THINGS)
        self.colour = nn.Linear(width, COLOUR_CLASSES)

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        return [self.left(tokens[:, 0:3]), self.right(tokens[:, 3:6]), self.colour(tokens[:, 6:8])]


def labels(meanings: list[Meaning]) -> list[torch.Tensor]:
    return [torch.tensor([getattr(m, slot) for m in meanings]) for slot in ("left", "right", "colour")]


def train(comfyui: Path, out: Path, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    text = load_pack_module("nano_text")
    sentences = Sentences(load_tokenizer(comfyui), text.PAD_TOKEN)
    seen: set[int] = set()
    for _ in range(20000):
        seen.update(sentences.ids(say(random_meaning(rng), rng)))
    encoder = text.NanoTextEncoder(torch.tensor(sorted(seen)))
    heads = SlotHeads(text.CONTEXT_WIDTH)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    started = time.time()
    for step in range(steps):
        meanings = [random_meaning(rng) for _ in range(96)]
        tokens = encoder(sentences.batch([say(m, rng) for m in meanings]))
        tokens = tokens + 0.3 * torch.randn_like(tokens)
        loss = torch.zeros(())
        for logits, label in zip(heads(tokens), labels(meanings), strict=True):
            loss = loss + functional.cross_entropy(
                logits.flatten(0, 1), label.repeat_interleave(logits.shape[1])
            )
        # Conditioning near unit scale keeps txt_in's learning rate meaningful.
        loss = loss + 0.01 * (tokens.square().mean() - 1).square()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(f"{step:6d} loss {loss.item():.4f} {time.time() - started:.0f} s", flush=True)
    print(
        "slots read right on fresh sentences:",
        evaluate(encoder, heads, sentences, np.random.default_rng(seed + 1)),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, str(out))


@torch.no_grad()
def evaluate(encoder, heads, sentences: Sentences, rng: np.random.Generator) -> float:
    meanings = [random_meaning(rng) for _ in range(2000)]
    tokens = encoder(sentences.batch([say(m, rng) for m in meanings]))
    right = torch.ones(len(meanings), dtype=torch.bool)
    for logits, label in zip(heads(tokens), labels(meanings), strict=True):
        right &= logits.mean(1).argmax(-1) == label
    return right.float().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", type=Path, default=ROOT / ".runtime" / "comfyui")
    parser.add_argument("--out", type=Path, default=ROOT / ".runtime" / "nano" / "text_encoder.safetensors")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    train(arguments.comfyui, arguments.out, arguments.steps, arguments.seed)
