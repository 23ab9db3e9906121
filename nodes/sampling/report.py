"""The text that says what a run really did."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..base.schedulers import Solver
from ..base.sentences import Sentence, join, say
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
    notes: tuple[Sentence, ...] = ()
    warnings: tuple[Sentence, ...] = ()
    acceleration: tuple[str, ...] = ()
    skipped: Sentence = Sentence("")
    reads_negative: bool = False
    asked: int = 0

    def with_warnings(self, *warnings: Sentence) -> Report:
        return replace(self, warnings=(*self.warnings, *warnings))

    @property
    def headline(self) -> Sentence:
        """What fits under a node: a line, one on acceleration, and the warnings."""
        count = self.request.results * self.batch
        words = [say("1 picture") if count == 1 else say("%1 pictures", count)]
        if self.asked:
            words = [say("%1 of %2: stopped", self.request.results, self.asked)]
        words.append(Sentence("{}x{}".format(*self.size)))
        if self.schedule is not None:
            words.append(say("%1 s a step", f"{self.timing.step:.2f}"))
            seeds = self.request.seeds
            one = len(seeds) == 1
            words.append(say("seed %1", seeds[0]) if one else say("seeds %1 to %2", seeds[0], seeds[-1]))
        warnings = (say("Warning: %1", text) for text in self.warnings)
        return join("\n", [join(", ", words), *([self.skipped] if self.skipped else []), *warnings])

    def text(self) -> str:
        """Lines `title  text`, then one line a note and a warning."""
        results = [Sentence(str(self.request.results))]
        if self.asked:
            done, asked = self.request.results, self.asked
            results = [say("%1 of %2: stopped, those that were done are handed on", done, asked)]
        if self.batch > 1:
            results.append(say("%1 pictures each", self.batch))
        lines = [
            (say("size"), Sentence("{}x{}".format(*self.size))),
            (say("results"), join(", ", results)),
        ]
        if self.schedule is not None:
            lines += self._sampling_lines(self.schedule)
        seeds = ", ".join(f"{i}: {seed}" for i, seed in enumerate(self.request.seeds, 1))
        lines.append((say("seeds"), Sentence(seeds)))
        if self.schedule is not None:
            lines.append((say("time"), self._time()))
        lines += [(say("acceleration"), Sentence(text)) for text in self.acceleration]
        lines += [(say("note"), text) for text in (*self._scheduler_notes(), *self.notes)]
        lines += [(say("warning"), text) for text in self.warnings]
        return "\n".join(f"{title:<13}{text}" for title, text in lines)

    def _sampling_lines(self, schedule: Schedule) -> list[tuple[Sentence, Sentence]]:
        recipe, solver = self.request.recipe, self.solver
        sampler = Sentence(f"{recipe.name} -> {solver.sampler}") if solver else say("the given sampler")
        sigmas = say("the given sigmas") if schedule.mu is None else say("%1 sigmas", recipe.rule)
        flag = Sentence(f" ({recipe.flag})" if solver and schedule.mu is not None else "")
        lines = [
            (say("scheduler"), join("", [sampler, Sentence(", "), sigmas, flag])),
            (say("steps"), join(", ", [say("%1 steps", schedule.steps), *self._calls(schedule)])),
            (Sentence("sigmas"), Sentence(" ".join(f"{float(sigma):.4f}" for sigma in schedule.sigmas))),
        ]
        if schedule.mu is not None:
            lines.insert(2, (Sentence("mu"), Sentence(f"{schedule.mu:.4f} ({self.request.mu})")))
        if self.from_picture and schedule.mu is not None:
            lines.append((say("strength"), self._strength(schedule)))
        return lines

    def _scheduler_notes(self) -> list[Sentence]:
        recipe = self.request.recipe
        if self.solver is None:
            return []
        if self.solver is not recipe.solver:
            names = recipe.solver.sampler, self.solver.sampler
            return [say("%1 cannot take so few steps; %2 ran instead.", *names)]
        return [Sentence(recipe.note)] if recipe.note else []

    def _calls(self, schedule: Schedule) -> list[Sentence]:
        if self.solver is None:
            return []
        words = [say("%1 model calls a result", self.solver.model_calls(schedule.steps))]
        if self.request.guided or self.reads_negative:
            guidance = f"{self.request.guidance:g}"
            words.append(say("each with the prompt and with the negative prompt (guidance %1)", guidance))
        return words

    def _strength(self, schedule: Schedule) -> Sentence:
        request = self.request
        strength, start = f"{request.strength:g}", f"{schedule.start:.4f}"
        words = [say("%1 (%2): starts at sigma %3", strength, request.strength_mode, start)]
        if request.strength_mode == SCHEDULE:
            words.append(say("the last %1 of %2 steps", schedule.steps, request.steps))
        return join(", ", words)

    def _time(self) -> Sentence:
        timing = self.timing
        return join(
            ", ",
            [
                say("%1 s a step", f"{timing.step:.3f}"),
                say("%1 s sampling", f"{timing.sampling:.2f}"),
                say("%1 s decoding", f"{timing.decoding:.2f}"),
            ],
        )
