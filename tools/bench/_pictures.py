"""klein-nano's pictures for the acceleration bench: prompts, noise, one sampling run, and the work it took.

Pictures of one shape are sampled as a batch where a method decides nothing by looking at them, which changes
nothing but the time; methods that do decide get each picture alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.launch.environment import ROOT, RUNTIME
from tools.launch.pack import enable_comfyui, load_pack
from tools.nano.exam import Question, paper

GUIDANCE = 4.0
# Papers of the exam: what is measured, and what dials are set by. Every paper begins with the same subjects
# in the same words, so the first of each kind are kept for dials, never measured. Edits have few sentences
# ("image 1 on a red background"): theirs differ in the pictures they show.
MEASURED, CALIBRATION = 9001, 9002
RESERVED = 12
BATCH = 16


@dataclass(frozen=True)
class Size:
    """How many prompts of each kind, and how many seeds for each."""

    single: int = 20
    pair: int = 4
    edit: int = 4
    edit_pair: int = 4
    seeds: int = 2

    @classmethod
    def of(cls, prompts: int, seeds: int = 2) -> Size:
        """Five of eight are single subjects, one each a pair, an edit, and an edit with two references."""
        part = max(1, prompts // 8)
        return cls(max(1, prompts - 3 * part), part, part, part, seeds)


@dataclass(frozen=True)
class Group:
    """Pictures of one shape. positive, negative: conditioning `[N, ...]`; noise `[N, 128, h, w]`."""

    kind: str
    positive: Any
    negative: Any
    noise: Any

    def __len__(self) -> int:
        return len(self.noise)

    @property
    def tokens(self) -> int:
        return self.noise.shape[2] * self.noise.shape[3]

    def part(self, rows: slice) -> Group:
        return Group(self.kind, _rows(self.positive, rows), _rows(self.negative, rows), self.noise[rows])


def _rows(conditioning: list, rows: slice) -> list:
    [[text, extra]] = conditioning
    extra = dict(extra)
    if "reference_latents" in extra:
        extra["reference_latents"] = [latent[rows] for latent in extra["reference_latents"]]
    return [[text[rows], extra]]


class Painter:
    """klein-nano with its prompts. Everything is float32 and runs on one thread a process."""

    def __init__(self) -> None:
        enable_comfyui(Path(os.environ["COMFYUI_PATH"]))
        load_pack(ROOT)
        import torch
        from kleinod.nodes.model.nano import WEIGHTS, load_nano

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.torch = torch
        self.model, self.clip, self.vae = load_nano()
        weights = b"".join(
            hashlib.sha256(file.read_bytes()).digest() for file in sorted(WEIGHTS.glob("*.s*"))
        )
        self.fingerprint = hashlib.sha256(weights).hexdigest()[:12]

    def groups(self, offset: int, size: Size) -> list[Group]:
        """The first prompts of each kind on paper `offset`, every seed of each."""
        chosen = self.chosen(offset, size)
        return [self.group(kind, asked, size.seeds) for kind, asked in chosen.items() if asked]

    def chosen(self, offset: int, size: Size) -> dict[str, list[Question]]:
        """The questions behind `groups`, by kind."""
        questions = paper(offset)
        wanted = {"single": size.single, "pair": size.pair, "edit": size.edit, "edit pair": size.edit_pair}
        found = {}
        for kind, count in wanted.items():
            chosen = [question for question in questions if question.kind == kind]
            if offset == MEASURED:
                dials = [one for one in paper(CALIBRATION) if one.kind == kind][:RESERVED]
                reserved = {one.prompt for one in dials} if kind in ("single", "pair") else set()
                chosen = [one for one in chosen[RESERVED:] if one.prompt not in reserved]
            found[kind] = chosen[:count]
        return found

    def group(self, kind: str, questions: Sequence[Question], seeds: int) -> Group:
        torch = self.torch
        texts, noises, references = [], [], []
        with torch.inference_mode():
            for question in questions:
                text = self._encode(question.prompt)
                latents = [
                    self.vae.encode(torch.from_numpy(picture)[None].float() / 255)
                    for picture in question.reference_pictures()
                ]
                for seed in range(seeds):
                    generator = torch.Generator().manual_seed(question.seed + seed)
                    noises.append(torch.randn(1, 128, 8, question.width // 16, generator=generator))
                    texts.append(text)
                    references.append(latents)
            empty = self._encode("").repeat(len(texts), 1, 1)
        extra = {}
        if references[0]:
            extra["reference_latents"] = [torch.cat(latents) for latents in zip(*references, strict=True)]
        return Group(kind, [[torch.cat(texts), extra]], [[empty, dict(extra)]], torch.cat(noises))

    def _encode(self, prompt: str) -> Any:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))[0][0]

    def sample(
        self,
        model: Any,
        group: Group,
        sampler: Any,
        sigmas: Any,
        alone: bool = False,
        guidance: float = GUIDANCE,
    ) -> Any:
        """Latents `[N, 128, h, w]`."""
        import comfy.samplers

        step = 1 if alone else BATCH
        made = []
        for first in range(0, len(group), step):
            part = group.part(slice(first, first + step))
            guider = comfy.samplers.CFGGuider(model)
            guider.set_conds(part.positive, part.negative)
            guider.set_cfg(guidance)
            with self.torch.inference_mode():
                empty = self.torch.zeros_like(part.noise)
                made.append(
                    guider.sample(part.noise, empty, sampler, sigmas.clone(), disable_pbar=True, seed=1)
                )
        return self.torch.cat(made)

    def decode(self, latents: Any) -> Any:
        with self.torch.inference_mode():
            return self.vae.decode(latents)

    def reference(self, group: Group, steps: int) -> Any:
        """Uncached Euler latents of `steps` steps, kept on disk: they change with the weights only."""
        import comfy.samplers

        torch = self.torch
        key = hashlib.sha256(group.noise.numpy().tobytes() + group.positive[0][0].numpy().tobytes())
        file = RUNTIME / "bench" / f"{self.fingerprint}-{key.hexdigest()[:16]}-{steps}.pt"
        if file.is_file():
            return torch.load(file, weights_only=True)
        sampler = comfy.samplers.sampler_object("euler")
        made = self.sample(self.model, group, sampler, native(steps, group), alone=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(made, file)
        return made


@dataclass(frozen=True)
class Kept:
    """What a sampling run left, on disk: enough to decode and judge its pictures once more, by another
    decoder, without sampling them again.

    again: take what is there in place of sampling.
    """

    folder: Path
    again: bool = False

    def get(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """`make()`'s tensors and numbers, or those of an earlier call by this name."""
        import torch

        file = self.folder / f"{file_name(name)}.pt"
        if self.again and file.is_file():
            return torch.load(file, weights_only=True)
        made = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save(made, file)
        return made


def file_name(name: str) -> str:
    """A way's name without what a file's may not hold."""
    return re.sub(r"[^A-Za-z0-9 .+]", "", name)


def native(steps: int, group: Group) -> Any:
    from kleinod.nodes.sampling.schedule import build_schedule

    return build_schedule("native", steps, group.tokens).sigmas


@dataclass
class Meter:
    """What ran while it was on. work: block executions weighted by their tokens. seconds: of this process's
    processor, which other programs on the machine do not lengthen.
    """

    work: int = 0
    seconds: float = 0.0


@contextmanager
def measured(model: Any) -> Iterator[Meter]:
    """Counts real executions of the network's blocks, by PyTorch's own hooks."""
    meter, network = Meter(), model.model.diffusion_model

    def note(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        image = args[0] if args else kwargs["img"]
        length = image.shape[1] + (kwargs["txt"].shape[1] if "txt" in kwargs else 0)
        meter.work += image.shape[0] * length

    blocks = [*network.double_blocks, *network.single_blocks]
    handles = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks]
    started = time.process_time()
    try:
        yield meter
    finally:
        meter.seconds = time.process_time() - started
        for handle in handles:
            handle.remove()
