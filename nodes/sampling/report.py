"""The text that says what a run really did."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..base.schedulers import Solver
from .request import SamplingRequest
from .schedule import SCHEDULE, Schedule
from .timing import Timing


@dataclass(frozen=True)
class Report:
    """What happened in one run. `schedule` is None where nothing was sampled, `solver` where it is foreign.

    size: pixels (width, height). batch: pictures of one result. from_picture: it started from a latent or an
    image. acceleration: a line a run (or one for all), empty where nothing was accelerated. skipped: what
    was left out, in the words that fit under the node. reads_negative: the negative prompt ran in every step.
    asked: results that were asked for, where the user stopped the run after the request's number of them.
    """

    request: SamplingRequest
    size: tuple[int, int]
    batch: int = 1
    from_picture: bool = False
    schedule: Schedule | None = None
    solver: Solver | None = None
    timing: Timing = Timing()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    acceleration: tuple[str, ...] = ()
    skipped: str = ""
    reads_negative: bool = False
    asked: int = 0

    def with_warnings(self, *warnings: str) -> Report:
        return replace(self, warnings=(*self.warnings, *warnings))

    @property
    def headline(self) -> str:
        """What fits under a node: a line, one on acceleration, and the warnings."""
        count = self.request.results * self.batch
        words = [f"{count} {'picture' if count == 1 else 'pictures'}", f"{self.size[0]}x{self.size[1]}"]
        if self.asked:
            words[0] = f"{self._results()}: stopped"
        if self.schedule is not None:
            words.append(f"{self.timing.step:.2f} s a step")
            seeds = self.request.seeds
            words.append(f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}")
        warnings = (f"Warning: {text}" for text in self.warnings)
        return "\n".join([", ".join(words), *([self.skipped] if self.skipped else []), *warnings])

    def text(self) -> str:
        """Lines `title  text`, then one line a note and a warning."""
        each = f", {self.batch} pictures each" if self.batch > 1 else ""
        stopped = ": stopped, those that were done are handed on" if self.asked else ""
        lines = [
            ("size", f"{self.size[0]}x{self.size[1]}"),
            ("results", f"{self._results()}{each}{stopped}"),
        ]
        if self.schedule is not None:
            lines += self._sampling_lines(self.schedule)
        lines.append(("seeds", ", ".join(f"{i}: {seed}" for i, seed in enumerate(self.request.seeds, 1))))
        if self.schedule is not None:
            lines.append(("time", self._time()))
        lines += [("acceleration", text) for text in self.acceleration]
        lines += [("note", text) for text in (*self._scheduler_notes(), *self.notes)]
        lines += [("warning", text) for text in self.warnings]
        return "\n".join(f"{title:<13}{text}" for title, text in lines)

    def _results(self) -> str:
        count = self.request.results
        return f"{count} of {self.asked}" if self.asked else str(count)

    def _sampling_lines(self, schedule: Schedule) -> list[tuple[str, str]]:
        recipe, solver = self.request.recipe, self.solver
        sampler = f"{recipe.name} -> {solver.sampler}" if solver else "the given sampler"
        sigmas = "the given sigmas" if schedule.mu is None else f"{recipe.rule} sigmas"
        flag = f" ({recipe.flag})" if solver and schedule.mu is not None else ""
        lines = [
            ("scheduler", f"{sampler}, {sigmas}{flag}"),
            ("steps", f"{schedule.steps} steps{self._calls(schedule)}"),
            ("sigmas", " ".join(f"{float(sigma):.4f}" for sigma in schedule.sigmas)),
        ]
        if schedule.mu is not None:
            lines.insert(2, ("mu", f"{schedule.mu:.4f} ({self.request.mu})"))
        if self.from_picture and schedule.mu is not None:
            lines.append(("strength", self._strength(schedule)))
        return lines

    def _scheduler_notes(self) -> list[str]:
        recipe = self.request.recipe
        if self.solver is None:
            return []
        if self.solver is not recipe.solver:
            return [f"{recipe.solver.sampler} cannot take so few steps; {self.solver.sampler} ran instead."]
        return [recipe.note] if recipe.note else []

    def _calls(self, schedule: Schedule) -> str:
        if self.solver is None:
            return ""
        text = f", {self.solver.model_calls(schedule.steps)} model calls a result"
        if self.request.guided or self.reads_negative:
            text += (
                f", each with the prompt and with the negative prompt (guidance {self.request.guidance:g})"
            )
        return text

    def _strength(self, schedule: Schedule) -> str:
        request = self.request
        text = f"{request.strength:g} ({request.strength_mode}): starts at sigma {schedule.start:.4f}"
        if request.strength_mode == SCHEDULE:
            text += f", the last {schedule.steps} of {request.steps} steps"
        return text

    def _time(self) -> str:
        timing = self.timing
        return (
            f"{timing.step:.3f} s a step, {timing.sampling:.2f} s sampling, {timing.decoding:.2f} s decoding"
        )
