"""The part of `run.py bench edits` on what references weigh: likeness and prompt against each of the dials.

klein-nano paints "image 1 on a ... background"; the judge of `tools/nano` says whether the subject is that
of the reference (likeness) and whether the background is the asked one (prompt), which the reference's is
not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tools.bench.nano import Painter
from tools.bench.report import Row
from tools.nano.exam import Question, paper
from tools.nano.judge import Judge

GUIDANCE = 4.0
OFFSET = 171
"""Of an exam that nothing was chosen by."""
WEIGHTS = ("0", "0.1", "0.25", "0.5", "0.75", "1", "1.5", "2")
SPANS = ("0-25", "0-50", "0-75", "25-100", "50-100", "75-100")
DIALS = (
    *(("weight", weight, {"weights": weight}, 1.0) for weight in WEIGHTS),
    *(("steps", span, {"steps": span}, 1.0) for span in SPANS),
    *(("image guidance", f"{scale:g}", {}, scale) for scale in (0, 0.5, 1.5, 2, 3)),
)
"""Dial, its value, what Klein References gets, and Klein Sampler's image_guidance."""


def measure_references(count: int) -> list[Row]:
    """Every value of every dial on `count` edits, as rows."""
    painter, judge = Painter(), Judge()
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    found: dict[str, list[tuple[bool, bool]]] = {}
    for question in list_questions(count):
        for dial, value, given, scale in DIALS:
            picture = painter.paint(question, GUIDANCE, image_guidance=scale, **given)
            alike = tuple(judge.subjects(picture, 1)) == question.shown
            obeyed = judge.background(picture) == question.colour
            found.setdefault(f"{dial} {value}", []).append((alike, obeyed))
    rows = []
    for name, answers in found.items():
        for title, column in (("likeness", 0), ("prompt", 1)):
            share = 100 * float(np.mean([answer[column] for answer in answers]))
            rows.append(Row(f"references, {name}: {title}", share, "%", n=len(answers)))
    return rows


def list_questions(count: int) -> Iterator[Question]:
    edits = [question for question in paper(OFFSET) if question.kind == "edit"]
    for index in range(count):
        question = edits[index % len(edits)]
        yield replace(question, seed=question.seed + index)
