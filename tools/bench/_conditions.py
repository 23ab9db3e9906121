"""The acceleration bench's table of (condition x way): at which guidance, steps, size, solver, precision and
LoRA is a way no worse than what a user would have picked instead?

A level of ours is held against Euler with as many steps as it computed, in the mean and rounded up (the
solver's own run of as few steps where the condition names another solver), and against caches at their
defaults. Four numbers each: median, 5th percentile and worst of PSNR to the condition's own uncached
picture, and how many pictures the judge finds right. Work is counted in block executions. Where a condition
asks for it, release 1.0.0's presets stand beside today's.

Half of the single subjects are those that turned out hardest of a hundred, so medians are lower than over
ordinary ones, by every way.

Every way's numbers are written as they come, so that a run of hours can be stopped and gone on with; its
latents are kept beside them, to be decoded again where the decoder has changed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.bench._first_release import first_release
from tools.bench._pictures import MEASURED, Group, Kept, Painter, Size, measured
from tools.bench._rivals import easy_cache
from tools.bench.report import Row
from tools.nano import world
from tools.nano.exam import Question, paper
from tools.nano.judge import Judge

LEVELS = ("medium", "high", "highest")
SIZES = {"ci": Size(4, 0, 0, 0, 1), "full": Size(8, 4, 4, 4, 1)}
# Subjects whose pictures are easily drawn as others, and the papers that ask for them so.
HARD = {9001: ("clown", "ghost"), 9003: ("panda", "snowman")}


@dataclass(frozen=True)
class Condition:
    """kind: of the exam's questions. solver: core's name. options: of the solver. rule: of the sigmas. first:
    with release 1.0.0's presets beside today's.
    """

    name: str
    guidance: float = 4.0
    steps: int = 28
    kind: str = "single"
    solver: str = "euler"
    options: dict[str, float] = field(default_factory=dict)
    bfloat16: bool = False
    lora: bool = False
    rule: str = "native"
    first: bool = False

    @property
    def noisy(self) -> bool:
        """Whether the solver may add noise, which a batch would draw otherwise than a picture alone."""
        from kleinod.nodes.acceleration.solvers import LINEAR

        return f"sample_{self.solver}" not in LINEAR

    @property
    def plain(self) -> bool:
        """Euler on FLUX.2's own sigmas, which caches and other solvers are held against."""
        return self.solver == "euler" and self.rule == "native"


OWN = (
    Condition("guidance 4", first=True),
    Condition("20 steps", steps=20, first=True),
    Condition("50 steps", steps=50, first=True),
    Condition("style LoRA", lora=True, first=True),
    Condition("bf16 network", bfloat16=True, first=True),
    *(Condition(f"guidance {guidance:g}", guidance=guidance) for guidance in (7, 10, 5, 6, 2, 1)),
    *(Condition(f"{steps} steps", steps=steps) for steps in (12, 40)),
    Condition("192 wide", kind="pair"),
    Condition("one reference", kind="edit"),
    Condition("two references", kind="edit pair"),
    Condition("guidance 7, 20 steps", guidance=7, steps=20),
    Condition("guidance 7, 50 steps", guidance=7, steps=50),
)
UNITS = {"work": "of uncached", "PSNR median": "dB", "PSNR p5": "dB", "PSNR worst": "dB", "right": ""}
QUICK = ("guidance 4", "guidance 7", "12 steps", "DPM++ 2M")


def list_conditions() -> list[Condition]:
    """Our own, then every name of the API's schedulers that stands for another solver or other sigmas."""
    from kleinod.nodes.base.schedulers import SCHEDULERS

    found, seen = list(OWN), {("euler", (), "native"), ("ddim", (), "native")}
    for name, scheduler in SCHEDULERS.items():
        solver = scheduler.solver
        key = (solver.sampler, solver.options, scheduler.rule)
        if key not in seen:
            seen.add(key)
            found.append(
                Condition(name, solver=solver.sampler, options=dict(solver.options), rule=scheduler.rule)
            )
    return found


def list_hard() -> list[Question]:
    """The questions of HARD."""
    asked = [
        (question, world.NAMES[question.shown[0]], names)
        for offset, names in HARD.items()
        for question in paper(offset)[: len(world.NAMES)]
    ]
    return [question for question, name, names in asked if name in names]


class Desk:
    """Pictures of a condition by one way, judged."""

    def __init__(self, painter: Painter, size: Size, kept: Kept) -> None:
        self._painter = painter
        self._judge = Judge()
        self._kept = kept
        self._questions = dict(painter.chosen(MEASURED, size))
        hard = list_hard()
        self._questions["single"] = [*hard, *self._questions["single"]][: max(size.single, len(hard))]
        self._groups = {
            kind: painter.group(kind, asked, size.seeds) for kind, asked in self._questions.items() if asked
        }

    def measure(self, condition: Condition) -> Iterator[tuple[str, dict[str, float]]]:
        """(way, numbers) of one condition, the uncached run first."""
        import comfy.samplers
        from kleinod.nodes.acceleration.patch import accelerate
        from kleinod.nodes.base.values import Acceleration
        from kleinod.nodes.sampling.fast import sample_fast

        group = self._groups.get(condition.kind)
        if group is None:
            return
        model = self._model(condition)
        options = dict(condition.options)
        ready = comfy.samplers.ksampler if options else comfy.samplers.sampler_object
        solver = ready(condition.solver, options) if options else ready(condition.solver)
        base, whole, _ = self._paint("uncached", model, group, solver, condition)
        yield "uncached", self._numbers(base, base, group, 1.0)
        counts = []
        for level in LEVELS:
            reports: list[Any] = []
            fast = accelerate(model, Acceleration(level), reports.append)
            pixels, work, calls = self._paint(
                level, fast, group, solver, condition, alone=True, reports=reports
            )
            counts.append(math.ceil(calls))
            yield level, self._numbers(pixels, base, group, work / whole)
        for count in sorted(set(counts) - {condition.steps}, reverse=True):
            name = f"{count} steps"
            pixels, work, _ = self._paint(name, model, group, solver, condition, count)
            yield name, self._numbers(pixels, base, group, work / whole)
        if not condition.plain:
            return
        for level in LEVELS if condition.first else ():
            with first_release(level):
                fast = accelerate(model, Acceleration(level, forecast_error_limit=10.0))
                name = f"1.0.0's {level}"
                pixels, work, _ = self._paint(name, fast, group, solver, condition)
            yield name, self._numbers(pixels, base, group, work / whole)
        for count in sorted(set(counts), reverse=True):
            sampler, name = comfy.samplers.KSAMPLER(sample_fast), f"Kleinod Fast, {count} steps"
            pixels, work, _ = self._paint(name, model, group, sampler, condition, count, rule="fast")
            yield name, self._numbers(pixels, base, group, work / whole)
        for name, wrapped, alone in (
            ("reuse every 2nd step", _reuse_every(model, 2), False),
            ("EasyCache 0.2", easy_cache("EasyCacheNode")(model, None, []), True),
            ("LazyCache 0.2", easy_cache("LazyCacheNode")(model, None, []), True),
        ):
            pixels, work, _ = self._paint(name, wrapped, group, solver, condition, alone=alone)
            yield name, self._numbers(pixels, base, group, work / whole)

    def _paint(
        self,
        way: str,
        model: Any,
        group: Group,
        sampler: Any,
        condition: Condition,
        steps: int = 0,
        rule: str = "",
        alone: bool = False,
        reports: Sequence[Any] = (),
    ) -> tuple[Any, int, float]:
        """Pixels, the work they took, and the steps that `reports` say were computed, in the mean."""
        from kleinod.nodes.sampling.schedule import build_schedule

        count = steps or condition.steps
        sigmas = build_schedule(rule or condition.rule, count, group.tokens).sigmas

        def sample() -> dict[str, Any]:
            with measured(self._painter.model) as meter:
                latents = self._painter.sample(
                    model, group, sampler, sigmas, alone or condition.noisy, condition.guidance
                )
            calls = statistics.fmean(report.computed for report in reports) if reports else count
            return {"latents": latents, "work": meter.work, "calls": calls}

        made = self._kept.get(f"{condition.name} {way}", sample)
        return self._painter.decode(made["latents"]), made["work"], made["calls"]

    def _numbers(self, pixels: Any, base: Any, group: Group, work: float) -> dict[str, float]:
        from kleinod.nodes.study import metrics

        values = sorted(metrics.psnr(pixels, base).tolist())
        right = 0
        for picture, question in zip(pixels, self._questions[group.kind], strict=True):
            view = (picture.clamp(0, 1).numpy() * 255).round().astype("uint8")
            right += self._judge.subjects(view, len(question.shown)) == list(question.shown)
        return {
            "work": work,
            "PSNR median": statistics.median(values),
            "PSNR p5": values[round(0.05 * (len(values) - 1))],
            "PSNR worst": values[0],
            "right": right,
            "pictures": len(values),
        }

    def _model(self, condition: Condition) -> Any:
        model = self._painter.model
        if condition.bfloat16:
            import torch

            model = model.clone()
            model.set_model_compute_dtype(torch.bfloat16)
        if condition.lora:
            import comfy.sd
            import comfy.utils

            (file, *_) = sorted((Path(__file__).parents[2] / "nodes/loras/built_in").glob("*.safetensors"))
            model, _ = comfy.sd.load_lora_for_models(
                model, None, comfy.utils.load_torch_file(str(file)), 1.0, 0.0
            )
        return model


def _reuse_every(model: Any, interval: int) -> Any:
    """What CacheDiT's node does on Klein: after 3 steps every other answer is the last one again."""
    from comfy.patcher_extension import WrappersMP

    state: dict[str, Any] = {"call": 0}

    def reuse(executor: Any, x: Any, timestep: Any, *rest: Any, **named: Any) -> Any:
        sigma = float(timestep.flatten()[0])
        if sigma >= state.get("sigma", 0.0):
            state["call"] = 0
        call, state["call"], state["sigma"] = state["call"], state["call"] + 1, sigma
        if call >= 3 and (call - 3) % interval:
            return x - sigma * state["velocity"]
        denoised = executor(x, timestep, *rest, **named)
        state["velocity"] = (x - denoised) / sigma
        return denoised

    wrapped = model.clone()
    wrapped.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "bench.reuse", reuse)
    return wrapped


def run_conditions(
    painter: Painter, size: Size, out: Path, only: str = "", quick: bool = False, again: bool = False
) -> list[Row]:
    """Rows of every condition; a goal wherever a way of ours stands beside a run of as few steps.

    out: a file of one JSON line a way, to which this adds what it lacks. only: a regular expression of the
    conditions' names. again: judge the kept latents anew.
    """
    import re

    desk = Desk(painter, size, Kept(out.parent / "latents", again))
    table = read_table(out)
    rows: list[Row] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    for condition in list_conditions():
        if not re.search(only, condition.name) or (quick and condition.name not in QUICK):
            continue
        known = table.get(condition.name, {})
        if not known.pop("", None):
            known = {}
            for way, numbers in desk.measure(condition):
                known[way] = numbers
                _note(out, condition.name, way, numbers)
                print(describe(condition.name, way, numbers), flush=True)
            _note(out, condition.name, "", {})
        rows += list_rows(condition.name, known)
    return rows


def _note(file: Path, condition: str, way: str, numbers: dict[str, float]) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"condition": condition, "way": way, **numbers}) + "\n")


def read_table(*files: Path) -> dict[str, dict[str, dict[str, float]]]:
    """condition -> way -> numbers; a way without a name, holding 1, closes a condition that is whole."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        for line in lines:
            numbers = json.loads(line)
            condition, way = numbers.pop("condition"), numbers.pop("way")
            table.setdefault(condition, {})[way] = numbers or {"whole": 1}
    return table


def describe(condition: str, way: str, numbers: dict[str, float]) -> str:
    return (
        f"{condition:<24} {way:<24} work {numbers['work']:.3f}  "
        f"PSNR {numbers['PSNR median']:.1f} / {numbers['PSNR p5']:.1f} / {numbers['PSNR worst']:.1f}  "
        f"right {numbers['right']:.0f} of {numbers['pictures']:.0f}"
    )


def list_rows(condition: str, found: dict[str, dict[str, float]]) -> list[Row]:
    rows = []
    for way, numbers in found.items():
        ours = way in LEVELS or way.startswith("Kleinod Fast")
        rival = find_rival(numbers, found) if ours else None
        for label, unit in UNITS.items():
            goal = f">= {rival[label]:.2f}" if rival and label in ("PSNR p5", "right") else None
            name = f"{condition} | {way} | {label}"
            rows.append(Row(name, numbers[label], unit, None, int(numbers["pictures"]), goal))
    return rows


def find_rival(numbers: dict[str, float], found: dict[str, dict[str, float]]) -> dict[str, float] | None:
    """The run of fewer steps that does as much work."""
    fewer = [other for way, other in found.items() if way.endswith("steps") and way[0].isdigit()]
    return min(fewer, key=lambda other: abs(other["work"] - numbers["work"]), default=None)
