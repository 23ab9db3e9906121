"""`run.py bench acceleration`: what each way to a faster picture costs and what it changes, on klein-nano.

Every row is the same pictures (32 prompts, two seeds each: text to image, edits with one and two references)
at guidance 4. Work is counted in real executions of the network's blocks, weighted by tokens. Quality is told
twice: against the uncached picture of the same seed and steps, which is what a cache promises to keep, and
against a picture of 200 steps, which is where all of them want to go: a better solver may leave the first for
the sake of the second. Dials without a budget (EasyCache's threshold and the like) are set on other prompts,
so that every rival is measured at the work of our presets.

`--quick` is a small run of a few minutes; `--steps 28` leaves out 50. Every row is written as it comes, so
`--resume` goes on after an interruption, and `--only REGEX` measures some rows again or in a second process.
Latents are kept beside the rows: `--again` decodes and compares those, where only the decoder has changed.

README's table and plot: `run.py bench acceleration --steps 28 --kinds single --prompts 25 --seeds 1 --plot
js/docs/acceleration_pareto.png`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.bench._conditions import SIZES, run_conditions
from tools.bench._pictures import CALIBRATION, MEASURED, Group, Kept, Painter, Size, file_name, measured
from tools.bench._rivals import Way, list_ways, tune
from tools.bench.report import Row, describe_machine
from tools.launch.environment import RUNTIME

CONVERGED = 200
QUICK = Size(single=3, pair=1, edit=1, edit_pair=1, seeds=1)
OUT = RUNTIME / "bench" / "acceleration"


@dataclass
class Score:
    """One row: a way, its cost as a share of the uncached run, and its pictures' distances."""

    steps: int
    name: str
    family: str
    work: float
    time: float
    dial: float | None = None
    patterns: list[str] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    latent: list[float] = field(default_factory=list)
    psnr_converged: list[float] = field(default_factory=list)
    ssim_converged: list[float] = field(default_factory=list)
    latent_converged: list[float] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return 1 / self.work


class Study:
    """The pictures of one bench run and what every way is compared with."""

    def __init__(self, painter: Painter, size: Size, kept: Kept) -> None:
        self.painter = painter
        self.kept = kept
        self.groups = painter.groups(MEASURED, size)
        self.calibration = painter.groups(CALIBRATION, Size(2, 1, 0, 0, 1))
        self._baselines: dict[tuple[int, str, bool], tuple[float, float]] = {}

    def measure(self, way: Way, steps: int) -> Score:
        from kleinod.nodes.study import metrics

        def sample(group: Group) -> dict[str, Any]:
            reports: list = []
            dial = score.dial
            if way.tunable and dial is None:
                dial = tune(way, painter, self.calibration, steps)
            with measured(painter.model) as meter:
                latents = way.sample(painter, group, steps, dial, reports)
            patterns = [report.pattern for report in reports]
            return {"latents": latents, "dial": dial, "patterns": patterns, **asdict(meter)}

        painter = self.painter
        groups = self._groups_of(way)
        score = Score(steps, way.name, way.family, 0.0, 0.0)
        work = seconds = whole_work = whole_seconds = 0.0
        for group in groups:
            made = self.kept.get(f"{steps} {way.name} {group.kind}", lambda group=group: sample(group))
            got, score.dial = made["latents"], made["dial"]
            score.patterns += made["patterns"][:2]
            work, seconds = work + made["work"], seconds + made["seconds"]
            base_work, base_seconds = self._baseline(group, steps, way.alone)
            whole_work, whole_seconds = whole_work + base_work, whole_seconds + base_seconds
            pixels = painter.decode(got)
            for against, suffix in ((steps, ""), (CONVERGED, "_converged")):
                wanted = painter.reference(group, against)
                picture = painter.decode(wanted)
                getattr(score, "psnr" + suffix).extend(metrics.psnr(pixels, picture).tolist())
                getattr(score, "ssim" + suffix).extend(metrics.ssim(pixels, picture).tolist())
                getattr(score, "latent" + suffix).extend(metrics.latent_error(got, wanted).tolist())
            score.kinds += [group.kind] * len(group)
        score.work, score.time = work / whole_work, seconds / whole_seconds
        return score

    def has_work(self, way: Way) -> bool:
        """Whether there are pictures for a way: some are for edits only."""
        return bool(self._groups_of(way))

    def _groups_of(self, way: Way) -> list[Group]:
        return [group for group in self.groups if not way.edits_only or group.kind.startswith("edit")]

    def _baseline(self, group: Group, steps: int, alone: bool) -> tuple[float, float]:
        """Work and seconds of the group uncached, sampled as the way samples: alone by its first picture."""
        from tools.bench._rivals import EULER

        key = (steps, group.kind, alone)
        if key not in self._baselines:
            part = group.part(slice(0, 1)) if alone else group

            def run() -> dict[str, Any]:
                with measured(self.painter.model) as meter:
                    EULER.sample(self.painter, part, steps, None, [])
                return asdict(meter)

            made = self.kept.get(f"{steps} {group.kind} cost" + (" alone" if alone else ""), run)
            share = len(group) / len(part)
            self._baselines[key] = made["work"] * share, made["seconds"] * share
        return self._baselines[key]


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench acceleration")
    parser.add_argument("--quick", action="store_true", help="few pictures and the most telling rows only")
    parser.add_argument("--steps", type=int, action="append", help="28 and 50, where not given")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the plots, the table and the data")
    parser.add_argument("--prompts", type=int, help="how many, of all kinds; 32 where not given")
    parser.add_argument("--seeds", type=int, default=2, help="of each prompt; 2 where not given")
    parser.add_argument("--kinds", help="comma-separated; default: single,pair,edit,edit pair")
    parser.add_argument("--only", default="", metavar="REGEX", help="measure only rows whose name matches")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are in the folder already")
    parser.add_argument(
        "--again", action="store_true", help="decode and compare the kept latents instead of sampling"
    )
    parser.add_argument("--plot", type=Path, help="also write the plot of the first number of steps here")
    parser.add_argument(
        "--conditions",
        choices=["ci", "full"],
        help="instead: every way at other guidances, steps, sizes, solvers, with the judge's count",
    )
    options = parser.parse_args(argv)
    painter = Painter()
    if options.conditions:
        size = SIZES[options.conditions] if options.prompts is None else Size.of(options.prompts, seeds=1)
        file = options.out / "conditions.jsonl"
        if not options.resume:
            file.unlink(missing_ok=True)
        return run_conditions(painter, size, file, options.only, options.conditions == "ci", options.again)
    size = QUICK if options.quick else Size.of(options.prompts or 32, options.seeds)
    study = Study(painter, size, Kept(options.out / "latents", options.again))
    if options.kinds:
        study.groups = [group for group in study.groups if group.kind in options.kinds.split(",")]
    print("Prompts:", ", ".join(f"{len(group)} x {group.kind}" for group in study.groups), flush=True)
    ways = [
        (steps, way)
        for steps in options.steps or ([28] if options.quick else [28, 50])
        for way in list_ways(steps, few=options.quick or steps != 28)
        if study.has_work(way)
    ]
    rows = options.out / "rows"
    if not options.resume and not options.only:
        shutil.rmtree(rows, ignore_errors=True)
    rows.mkdir(parents=True, exist_ok=True)
    for steps, way in ways:
        file = rows / f"{steps} {file_name(way.name)}.json"
        wanted = re.search(options.only, way.name) is not None
        if wanted and not (options.resume and file.is_file()):
            score = study.measure(way, steps)
            file.write_text(json.dumps(asdict(score)), encoding="utf-8")
            print(describe(score), flush=True)
    scores = read_scores(rows, [(steps, way.name) for steps, way in ways])
    write(scores, options.out)
    if options.plot is not None:
        shutil.copyfile(options.out / f"pareto-{ways[0][0]}.png", options.plot)
    print(f"\nTable, data and plots: {options.out}\n")
    return [row for score in scores for row in rows_of(score, scores)]


def read_scores(folder: Path, order: Sequence[tuple[int, str]]) -> list[Score]:
    """The rows measured so far, in this order."""
    found = [Score(**json.loads(file.read_text(encoding="utf-8"))) for file in folder.glob("*.json")]
    known = {(score.steps, score.name): score for score in found}
    return [known[key] for key in order if key in known]


def low(values: Sequence[float]) -> float:
    """The fifth percentile."""
    ordered = sorted(values)
    at = 0.05 * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def describe(score: Score) -> str:
    cells = [f"{score.steps}  {score.name:<40} work {score.work:5.3f} time {score.time:5.3f}"]
    for label, values, digits in (
        ("PSNR", score.psnr, 1),
        ("SSIM", score.ssim, 4),
        ("200: PSNR", score.psnr_converged, 1),
    ):
        numbers = (statistics.median(values), low(values), min(values))
        cells.append(f"{label} " + " ".join(f"{number:.{digits}f}" for number in numbers))
    if score.dial is not None:
        cells.append(f"dial {score.dial:.3f}")
    return "  ".join(cells)


# Per preset at 28 steps, the least that was promised: name of the row -> quantity -> goal.
GOALS = {
    "forecast low": {"speed": ">= 1.3", "SSIM median": ">= 0.99"},
    "forecast medium": {"speed": ">= 1.7", "SSIM median": ">= 0.98", "SSIM p5": ">= 0.95"},
    "forecast high": {"speed": ">= 2.3", "SSIM median": ">= 0.95"},
    "forecast highest": {"speed": ">= 3", "SSIM median": ">= 0.90"},
}


def rows_of(score: Score, scores: Sequence[Score]) -> list[Row]:
    """The numbers of one way, with the goals that are set for it."""
    n = len(score.psnr)
    numbers = {"work": (score.work, "of uncached"), "time": (score.time, "of uncached")}
    numbers["speed"] = (score.speed, "x")
    for label, values, unit in (
        ("PSNR", score.psnr, "dB"),
        ("SSIM", score.ssim, ""),
        ("latent error", score.latent, ""),
        ("PSNR to 200 steps", score.psnr_converged, "dB"),
        ("SSIM to 200 steps", score.ssim_converged, ""),
        ("latent error to 200 steps", score.latent_converged, ""),
    ):
        worst = max(values) if "error" in label else min(values)
        fifth = -low([-v for v in values]) if "error" in label else low(values)
        numbers |= {
            f"{label} median": (statistics.median(values), unit),
            f"{label} p5": (fifth, unit),
            f"{label} worst": (worst, unit),
        }
    goals = dict(GOALS.get(score.name, {})) if score.steps == 28 else {}
    goals |= _goals_against_rivals(score, scores)
    return [
        Row(f"{score.steps} | {score.name} | {label}", value, unit, None, n, goals.get(label))
        for label, (value, unit) in numbers.items()
    ]


def _goals_against_rivals(score: Score, scores: Sequence[Score]) -> dict[str, str]:
    """A preset must beat every rival that does no less work; S at half the calls must beat uncached Euler."""
    here = [other for other in scores if other.steps == score.steps]
    if score.family == "forecast":
        rivals = [
            statistics.median(other.psnr)
            for other in here
            if other.family in ("rival cache", "fewer steps") and other.work <= score.work * 1.03
        ]
        return {"PSNR median": f"> {max(rivals):.2f}"} if rivals else {}
    if score.name == f"Kleinod Fast, {score.steps // 2} steps":
        euler = next(other for other in here if other.name == "uncached")
        return {"PSNR to 200 steps median": f">= {statistics.median(euler.psnr_converged):.2f}"}
    return {}


def write(scores: Sequence[Score], folder: Path) -> None:
    """results.json (every picture's numbers), table.md, and one plot for each number of steps and target."""
    from tools.bench._pareto import draw

    folder.mkdir(parents=True, exist_ok=True)
    data = {"machine": describe_machine(), "scores": [asdict(score) for score in scores]}
    (folder / "results.json").write_text(json.dumps(data) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(table(scores), encoding="utf-8")
    for steps in sorted({score.steps for score in scores}):
        here = [score for score in scores if score.steps == steps]
        draw(here, steps, converged=False).save(folder / f"pareto-{steps}.png")
        draw(here, steps, converged=True).save(folder / f"pareto-{steps}-converged.png")


def table(scores: Sequence[Score]) -> str:
    """Markdown: median / 5th percentile / worst of every measure."""
    lines = [
        "| steps | way | work | time | PSNR dB | SSIM | latent error | PSNR to 200 steps | SSIM to 200 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for score in scores:
        cells = [
            " / ".join(f"{number:.{digits}f}" for number in (statistics.median(v), low(v), min(v)))
            for v, digits in (
                (score.psnr, 1),
                (score.ssim, 4),
                ([-e for e in score.latent], 3),
                (score.psnr_converged, 1),
                (score.ssim_converged, 4),
            )
        ]
        cells[2] = cells[2].replace("-", "")
        lines.append(
            f"| {score.steps} | {score.name} | {score.work:.3f} | {score.time:.3f} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines) + "\n"
