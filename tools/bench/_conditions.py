"""The acceleration bench's table of (condition x way): at which guidance, steps, size, solver, precision and
LoRA is a way no worse than what a user would have picked instead?

A level of ours is held against Euler with as many steps as it computed, in the mean and rounded up (the
solver's own run of as few steps where the condition names another solver), and against caches at their
defaults. Three numbers each: the median and the 5th percentile of PSNR to the condition's own uncached
picture, and how many pictures the judge finds right. Work is counted in block executions. Where a condition
asks for it, release 1.0.0's presets stand beside today's.

Every way's numbers are written as they come, so that a run of hours can be stopped and gone on with.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.bench._first_release import first_release
from tools.bench._pictures import MEASURED, Group, Painter, Size, measured
from tools.bench._rivals import easy_cache
from tools.bench.report import Row
from tools.nano.exam import Question
from tools.nano.judge import Judge

LEVELS = ("medium", "high", "highest")
SIZES = {"ci": Size(4, 0, 0, 0, 1), "full": Size(16, 6, 4, 2, 1)}


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
UNITS = {"work": "of uncached", "PSNR median": "dB", "PSNR p5": "dB", "right": ""}
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


class Desk:
    """Pictures of a condition by one way, judged."""

    def __init__(self, painter: Painter, size: Size) -> None:
        self._painter = painter
        self._judge = Judge()
        self._groups = {group.kind: group for group in painter.groups(MEASURED, size)}
        self._size = size

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
        solver = comfy.samplers.ksampler(condition.solver, dict(condition.options))
        base, whole = self._paint(model, group, solver, condition)
        yield "uncached", self._numbers(base, base, group, 1.0)
        counts = []
        for level in LEVELS:
            reports: list[Any] = []
            fast = accelerate(model, Acceleration(level), reports.append)
            pixels, work = self._paint(fast, group, solver, condition, alone=True)
            counts.append(math.ceil(statistics.fmean(report.computed for report in reports)))
            yield level, self._numbers(pixels, base, group, work / whole)
        for count in sorted(set(counts) - {condition.steps}, reverse=True):
            pixels, work = self._paint(model, group, solver, condition, count)
            yield f"{count} steps", self._numbers(pixels, base, group, work / whole)
        if not condition.plain:
            return
        for level in LEVELS if condition.first else ():
            with first_release(level):
                fast = accelerate(model, Acceleration(level, forecast_error_limit=10.0))
                pixels, work = self._paint(fast, group, solver, condition)
            yield f"1.0.0's {level}", self._numbers(pixels, base, group, work / whole)
        for count in sorted(set(counts), reverse=True):
            sampler = comfy.samplers.KSAMPLER(sample_fast)
            pixels, work = self._paint(model, group, sampler, condition, count, rule="fast")
            yield f"Kleinod Fast, {count} steps", self._numbers(pixels, base, group, work / whole)
        for name, wrapped, alone in (
            ("reuse every 2nd step", _reuse_every(model, 2), False),
            ("EasyCache 0.2", easy_cache("EasyCacheNode")(model, None, []), True),
            ("LazyCache 0.2", easy_cache("LazyCacheNode")(model, None, []), True),
        ):
            pixels, work = self._paint(wrapped, group, solver, condition, alone=alone)
            yield name, self._numbers(pixels, base, group, work / whole)

    def _paint(
        self,
        model: Any,
        group: Group,
        sampler: Any,
        condition: Condition,
        steps: int = 0,
        rule: str = "",
        alone: bool = False,
    ) -> tuple[Any, int]:
        from kleinod.nodes.sampling.schedule import build_schedule

        count = steps or condition.steps
        sigmas = build_schedule(rule or condition.rule, count, group.tokens).sigmas
        with measured(self._painter.model) as meter:
            latents = self._painter.sample(model, group, sampler, sigmas, alone, condition.guidance)
        return self._painter.decode(latents), meter.work

    def _numbers(self, pixels: Any, base: Any, group: Group, work: float) -> dict[str, float]:
        from kleinod.nodes.study import metrics

        values = sorted(metrics.psnr(pixels, base).tolist())
        right = 0
        for picture, question in zip(pixels, self._questions(group.kind), strict=True):
            view = (picture.clamp(0, 1).numpy() * 255).round().astype("uint8")
            right += self._judge.subjects(view, len(question.shown)) == list(question.shown)
        return {
            "work": work,
            "PSNR median": statistics.median(values),
            "PSNR p5": values[round(0.05 * (len(values) - 1))],
            "right": right,
            "pictures": len(values),
        }

    def _questions(self, kind: str) -> list[Question]:
        return self._painter.chosen(MEASURED, self._size)[kind]

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


def run_conditions(painter: Painter, size: Size, out: Path, only: str = "", quick: bool = False) -> list[Row]:
    """Rows of every condition; a goal wherever a level of ours stands beside a run of as few steps.

    out: a file of one JSON line a way, to which this adds what it lacks. only: a regular expression of the
    conditions' names.
    """
    import re

    desk = Desk(painter, size)
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
        f"PSNR {numbers['PSNR median']:.1f} / {numbers['PSNR p5']:.1f}  "
        f"right {numbers['right']:.0f} of {numbers['pictures']:.0f}"
    )


def list_rows(condition: str, found: dict[str, dict[str, float]]) -> list[Row]:
    rows = []
    for way, numbers in found.items():
        rival = find_rival(numbers, found) if way in LEVELS else None
        for label, unit in UNITS.items():
            goal = f">= {rival[label]:.2f}" if rival and label in ("PSNR p5", "right") else None
            name = f"{condition} | {way} | {label}"
            rows.append(Row(name, numbers[label], unit, None, int(numbers["pictures"]), goal))
    return rows


def find_rival(numbers: dict[str, float], found: dict[str, dict[str, float]]) -> dict[str, float] | None:
    """The run of fewer steps that does as much work."""
    fewer = [other for way, other in found.items() if way.endswith("steps") and way[0].isdigit()]
    return min(fewer, key=lambda other: abs(other["work"] - numbers["work"]), default=None)
