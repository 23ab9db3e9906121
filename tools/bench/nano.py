"""`run.py bench nano`: how well klein-nano draws what it is asked for.

The exam of `tools/nano/exam.py` (200 requests and seeds never trained on) runs through the pack's own
nodes, the edits through Klein References, at 28 steps and guidance 4; singles and pairs once more at
guidance 1. `tools/nano/judge.py` scores, which knows the drawings but never saw a generated picture;
`tools/nano/looks.py` measures how near the singles, and the autoencoder's round trip alone, come to them.
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
from tools.nano import looks, lora_exam, world
from tools.nano.additions import STYLE, SUBJECT, TRIGGERS
from tools.nano.exam import Question, paper
from tools.nano.judge import Judge

GOALS = {"single": 90, "pair": 70, "edit": 80}
ROUND_TRIPS = 128
LORA_ROWS = {STYLE: "klein-nano style.safetensors", SUBJECT: "klein-nano subject.safetensors"}
# What the exam of the LoRAs counts -> row of the bench, goal. "both" is what neither was trained for.
LORA_KINDS = {
    "style": ("style LoRA: subject right and in ink", ">= 90"),
    "subject": ("subject LoRA: the penguin drawn", ">= 90"),
    "others kept": ("subject LoRA: other subjects drawn as before", ">= 90"),
    "both": ("both LoRAs: the penguin, in ink or not", None),
}


class Painter:
    """klein-nano behind Klein Loader, Klein References, Klein Prompt and Klein Sampler."""

    def __init__(self) -> None:
        import os

        enable_comfyui(Path(os.environ["COMFYUI_PATH"]))
        load_pack(ROOT)
        import torch
        from kleinod.nodes.loras.nodes import KleinodLoraStack
        from kleinod.nodes.model.choices import AUTOMATIC, NANO
        from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
        from kleinod.nodes.references.nodes import KleinodReferences
        from kleinod.nodes.references.prepare import Preparation
        from kleinod.nodes.sampling.engine import sample_pictures
        from kleinod.nodes.sampling.request import SamplingRequest

        self.torch, self.sample, self.request = torch, sample_pictures, SamplingRequest
        self.prompt, self.references, self.stack = KleinodPrompt, KleinodReferences, KleinodLoraStack
        self.preparation = {name: [value] for name, value in asdict(Preparation()).items()}
        loaded = KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto")
        self.model, self.clip, self.vae = loaded.args[:3]

    def paint(
        self,
        question: Question,
        guidance: float,
        model=None,
        image_guidance: float = 1.0,
        **dials: str,
    ) -> np.ndarray:
        """uint8 `[H, W, 3]`. dials: of Klein References."""
        references = self.refer(question, **dials)
        positive, negative = self.prompt.execute(self.clip, question.prompt, "", references, self.vae).args[
            :2
        ]
        request = self.request(
            question.width, world.SIZE, 28, guidance, question.seed, image_guidance=image_guidance
        )
        with self.torch.inference_mode():
            made = self.sample(model or self.model, positive, negative, self.vae, request)
        return (made.image[0].numpy() * 255 + 0.5).astype(np.uint8)

    def with_loras(self, *loras: str):
        """klein-nano behind a Klein LoRA Stack with these of its own LoRAs."""
        rows = "\n".join(LORA_ROWS[lora] for lora in loras)
        fields = self.stack.GET_SCHEMA().inputs
        settings = {field.id: field.default for field in fields if hasattr(field, "default")}
        return self.stack.execute(**settings | {"rows": rows, "model": self.model}).args[0]

    def round_trip(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 `[B, H, W, 3]` through the autoencoder and back."""
        with self.torch.inference_mode():
            images = self.torch.from_numpy(pictures).float() / 255
            again = self.torch.cat([self.vae.decode(self.vae.encode(part)) for part in images.split(16)])
        return (again.clamp(0, 1).numpy() * 255 + 0.5).astype(np.uint8)

    def refer(self, question: Question, **dials: str) -> object | None:
        """The question's pictures through Klein References, in their order; None where it has none."""
        pictures = {
            f"image_{number}": [self.torch.from_numpy(picture)[None].float() / 255]
            for number, picture in enumerate(question.reference_pictures(), start=1)
        }
        settings = self.preparation | {name: [value] for name, value in dials.items()}
        return self.references.execute(pictures, **settings).args[0] if pictures else None


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench nano")
    parser.add_argument(
        "--offset", type=int, default=0, help="another number gives another exam of the same kind"
    )
    parser.add_argument("--every", type=int, default=1, help="ask every n-th question only, for a quick look")
    parser.add_argument("--loras", action="store_true", help="the exam of the two LoRAs only")
    parser.add_argument("--previews", type=Path, help="write the LoRAs' preview pictures into this folder")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of 64 pictures to this file")
    options = parser.parse_args(argv)
    questions = paper(options.offset)[:: options.every]
    painter, judge = Painter(), Judge()
    if options.previews:
        write_previews(painter, options.previews)
    if options.loras:
        return score_loras(painter, options.offset, options.every)
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
    rows += score_looks(painter, questions, guided, options.offset)
    rows += score_loras(painter, options.offset, options.every)
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


def score_looks(
    painter: Painter, questions: list[Question], pictures: list[np.ndarray], offset: int
) -> list[Row]:
    """Singles of the exam beside the drawings asked for; drawings at any pixel through the autoencoder."""
    singles = [(p, q) for p, q in zip(pictures, questions, strict=True) if q.kind == "single"]
    made = [looks.measure(p, looks.registered(p, q.shown, q.colour)) for p, q in singles]
    rng = np.random.default_rng(20261128 + offset)
    drawn = np.stack(
        [
            world.paint([world.anywhere(i % len(world.NAMES), rng)], int(rng.integers(len(world.COLOURS))))
            for i in range(ROUND_TRIPS)
        ]
    )
    again = [looks.measure(p, d) for p, d in zip(painter.round_trip(drawn), drawn, strict=True)]
    return looks_rows("singles", made, 25) + looks_rows("round trip", again, 34)


def looks_rows(name: str, measured: list[looks.Looks], decibels: int) -> list[Row]:
    def median(field: str) -> float:
        return float(np.median([getattr(one, field) for one in measured]))

    n = len(measured)
    return [
        Row(f"{name}: to the drawing, median", median("psnr"), "dB", n=n, goal=f">= {decibels}"),
        Row(f"{name}: sharpness, median", median("sharpness"), "", n=n, goal=">= 0.9"),
        Row(f"{name}: 16-pixel grid, median", median("grid"), "", n=n, goal="<= 1.05"),
        Row(f"{name}: pixels off the palette, median", 100 * median("off_palette"), "%", n=n),
        Row(f"{name}: unrest of the background, median", median("unrest"), "/255", n=n, goal="< 2"),
    ]


def score_loras(painter: Painter, offset: int, every: int) -> list[Row]:
    """The exam of klein-nano's two LoRAs, through Klein LoRA Stack; the same requests without them show
    what the LoRAs add.
    """
    judge = lora_exam.DrawingJudge()
    questions = lora_exam.paper(offset)[::every]
    models = {loras: painter.with_loras(*loras) for loras in {q.loras for q in questions}}
    seen: dict[str, list[tuple[bool, bool, bool]]] = {}
    plain: list[bool] = []
    for question in questions:
        asked = Question("single", question.prompt, question.seed, (question.subject,), question.colour)
        picture = painter.paint(asked, 4.0, models[question.loras])
        subject, inked = judge.subject(picture)
        ground = judge.background(picture) == question.colour
        seen.setdefault(question.kind, []).append(
            (subject == question.subject, inked == question.inked, ground)
        )
        if question.kind in ("style", "subject"):
            bare = judge.subject(painter.paint(asked, 4.0))
            plain.append(bare == (question.subject, question.inked))
    rows = []
    for kind, results in seen.items():
        name, goal = LORA_KINDS[kind]
        right = [is_it and (inked or kind == "both") for is_it, inked, _ in results]
        rows.append(Row(name, 100 * float(np.mean(right)), "%", n=len(right), goal=goal))
    if "both" in seen:
        inked = [result[1] for result in seen["both"]]
        rows.append(Row("both LoRAs: the picture in ink", 100 * float(np.mean(inked)), "%", n=len(inked)))
    grounds = [ground for results in seen.values() for *_, ground in results]
    rows.append(
        Row("with LoRAs: background right", 100 * float(np.mean(grounds)), "%", n=len(grounds), goal=">= 90")
    )
    if plain:
        rows.append(Row("style or penguin without the LoRA", 100 * float(np.mean(plain)), "%", n=len(plain)))
    return rows


def write_previews(painter: Painter, folder: Path) -> None:
    """Four pictures of each LoRA, as Klein LoRA Stack shows them beside the file."""
    asked = {
        STYLE: [
            f"{subject} background, {TRIGGERS[STYLE]}"
            for subject in (
                "a cool face on a purple",
                "a dog on a pink",
                "a pumpkin on an orange",
                "an alien on a green",
            )
        ],
        SUBJECT: [f"a penguin on a {colour} background" for colour in ("blue", "pink", "yellow", "green")],
    }
    for lora, prompts in asked.items():
        model = painter.with_loras(lora)
        made = [
            painter.paint(Question("single", prompt, 7 + i, (0,), 0), 4.0, model)
            for i, prompt in enumerate(prompts)
        ]
        sheet = np.concatenate([np.concatenate(made[i : i + 2], axis=1) for i in (0, 2)])
        name = LORA_ROWS[lora].removesuffix(".safetensors")
        Image.fromarray(sheet).save(folder / f"{name}.preview.png", optimize=True)


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
