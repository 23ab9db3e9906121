"""`run.py bench nano`: how well klein-nano draws what it is asked for.

The exam of `tools/nano/exam.py` (200 requests and seeds never trained on) runs through the pack's own
nodes, the edits through Klein References, at 28 steps and guidance 4; singles and pairs once more at
guidance 1. `tools/nano/judge.py` scores, which knows the drawings but never saw a generated picture.
Drawing the references needs Debian's fonts-noto-color-emoji.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT
from tools.launch.pack import enable_comfyui, load_pack
from tools.nano import world
from tools.nano.exam import Question, paper
from tools.nano.judge import Judge

GOALS = {"single": 90, "pair": 70, "edit": 80}


class Painter:
    """klein-nano behind Klein Loader, Klein References, Klein Prompt and Klein Sampler."""

    def __init__(self) -> None:
        import os

        enable_comfyui(Path(os.environ["COMFYUI_PATH"]))
        load_pack(ROOT)
        import torch
        from kleinod.nodes.model.choices import AUTOMATIC, NANO
        from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
        from kleinod.nodes.references.nodes import KleinodReferences
        from kleinod.nodes.references.prepare import Preparation
        from kleinod.nodes.sampling.engine import sample_pictures
        from kleinod.nodes.sampling.request import SamplingRequest

        self.torch, self.sample, self.request = torch, sample_pictures, SamplingRequest
        self.prompt, self.references = KleinodPrompt, KleinodReferences
        self.preparation = {name: [value] for name, value in asdict(Preparation()).items()}
        loaded = KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto")
        self.model, self.clip, self.vae = loaded.args[:3]

    def paint(self, question: Question, guidance: float) -> np.ndarray:
        positive, negative = self.prompt.execute(
            self.clip, question.prompt, "", self.refer(question), self.vae
        ).args[:2]
        request = self.request(question.width, world.SIZE, 28, guidance, question.seed)
        with self.torch.inference_mode():
            made = self.sample(self.model, positive, negative, self.vae, request)
        return (made.image[0].numpy() * 255 + 0.5).astype(np.uint8)

    def refer(self, question: Question) -> object | None:
        """The question's pictures through Klein References, in their order; None where it has none."""
        pictures = {
            f"image_{number}": [self.torch.from_numpy(picture)[None].float() / 255]
            for number, picture in enumerate(question.reference_pictures(), start=1)
        }
        return self.references.execute(pictures, **self.preparation).args[0] if pictures else None


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench nano")
    parser.add_argument(
        "--offset", type=int, default=0, help="another number gives another exam of the same kind"
    )
    parser.add_argument("--every", type=int, default=1, help="ask every n-th question only, for a quick look")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of 64 pictures to this file")
    options = parser.parse_args(argv)
    questions = paper(options.offset)[:: options.every]
    painter, judge = Painter(), Judge()
    guided, seconds = [], []
    for number, question in enumerate(questions):
        started = time.perf_counter()
        guided.append(painter.paint(question, 4.0))
        seconds.append(time.perf_counter() - started)
        if number % 20 == 19:
            print(f"  {number + 1} of {len(questions)} pictures", flush=True)
    plain = [q for q in questions if not q.references]
    unguided = [painter.paint(question, 1.0) for question in plain]
    rows = score(judge, questions, guided)
    with_guidance = right_share(judge, plain, guided[: len(plain)])
    without = right_share(judge, plain, unguided)
    rows += [
        Row("everything right at guidance 1 (singles and pairs)", without, "%", n=len(plain)),
        Row(
            "everything right at guidance 4 (singles and pairs)",
            with_guidance,
            "%",
            n=len(plain),
            goal=f"> {without}",
        ),
        row_of_samples(
            "one guided 28-step single",
            [s for s, q in zip(seconds, questions, strict=True) if q.kind == "single"],
            "s",
            "<= 15",
        ),
    ]
    if options.sheet:
        write_sheet(questions, guided, options.sheet)
    return rows


def score(judge: Judge, questions: list[Question], pictures: list[np.ndarray]) -> list[Row]:
    rows = []
    seen = [judge.subjects(p, len(q.shown)) for p, q in zip(pictures, questions, strict=True)]
    for kind, name in (
        ("single", "subject right"),
        ("pair", "both subjects right"),
        ("edit", "reference kept"),
    ):
        right = [
            tuple(s) == q.shown
            for s, q in zip(seen, questions, strict=True)
            if q.kind.split()[0] == kind and (kind != "edit" or q.references)
        ]
        if right:
            rows.append(Row(name, 100 * float(np.mean(right)), "%", n=len(right), goal=f">= {GOALS[kind]}"))
    order = [tuple(s) == q.shown for s, q in zip(seen, questions, strict=True) if q.kind == "edit pair"]
    if order:
        rows.append(Row("two references in the order asked", 100 * float(np.mean(order)), "%", n=len(order)))
    ground = [judge.background(p) == q.colour for p, q in zip(pictures, questions, strict=True)]
    rows.append(Row("background right", 100 * float(np.mean(ground)), "%", n=len(ground), goal=">= 90"))
    return rows


def right_share(judge: Judge, questions: list[Question], pictures: list[np.ndarray]) -> float:
    right = [
        tuple(judge.subjects(p, len(q.shown))) == q.shown and judge.background(p) == q.colour
        for p, q in zip(pictures, questions, strict=True)
    ]
    return 100 * float(np.mean(right))


def write_sheet(questions: list[Question], pictures: list[np.ndarray], path: Path) -> None:
    """64 pictures, pairs and edits cut to their middle: 40 singles, 12 pairs, 12 edits."""
    chosen = []
    for kind, count in (("single", 40), ("pair", 12), ("edit", 12)):
        chosen += [p for p, q in zip(pictures, questions, strict=True) if q.kind.split()[0] == kind][:count]
    sheet = Image.new("RGB", (8 * world.PAIR_WIDTH // 3 * 2, 8 * world.SIZE), "white")
    for i, picture in enumerate(chosen[:64]):
        left = (picture.shape[1] - world.SIZE) // 2
        cell = Image.fromarray(
            picture[:, left : left + world.SIZE] if picture.shape[1] == world.SIZE else picture
        )
        if cell.width != world.SIZE:
            cell = cell.resize((world.SIZE, world.SIZE * 2 // 3), Image.LANCZOS)
        x, y = i % 8 * world.SIZE, i // 8 * world.SIZE
        sheet.paste(cell, (x, y + (world.SIZE - cell.height) // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
