"""How acceleration gets onto a MODEL, and how the reports of its runs come back.

A report cannot leave through ComfyUI's own sampler nodes, so it is put into a book that travels with the
MODEL. The book holds numbers only, of each sampler node's newest queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..base import seams
from ..base.notices import show
from ..base.sentences import Sentence, join
from ..base.values import Acceleration
from .availability import keep_available
from .patch import KEY, accelerate, check_settings
from .policies.registry import list_wanted
from .report import RunReport, StepRecord

WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")
get_executing_context = seams.find("comfy_execution.utils:get_executing_context")


@dataclass
class ReportBook:
    """Reports by the sampler node that ran, each node's newest queue only.

    tell: called with every report as it comes, to show it while the queue still runs.
    """

    tell: Callable[[RunReport], None] | None = None
    _pages: dict[str, tuple[str, list[RunReport]]] = field(default_factory=dict)

    def __call__(self, report: RunReport) -> None:
        context = get_executing_context() if get_executing_context else None
        node, queue = (context.node_id, context.prompt_id) if context else ("", "")
        if node not in self._pages or self._pages[node][0] != queue:
            self._pages[node] = (queue, [])
        self._pages[node][1].append(report)
        if self.tell is not None:
            self.tell(report)

    def read(self, nodes: Collection[str] | None = None) -> list[RunReport]:
        """The reports of these sampler nodes, of all where None; in the order in which they first ran."""
        return [
            report
            for node, (_, reports) in self._pages.items()
            if nodes is None or node in nodes
            for report in reports
        ]


def apply_acceleration(
    model: Any, acceleration: Acceleration, tell: Callable[[RunReport], None] | None = None
) -> Any:
    """A clone of `model` (ModelPatcher) that samples faster; the very `model` where nothing is to be skipped.

    Raises InputError where the settings cannot work on this model, whatever the run.
    """
    kept, off = keep_available(acceleration, model)
    if off:
        show(join("\n", off))
    return accelerate(model, kept, ReportBook(tell))


@dataclass(frozen=True)
class AcceleratedModel:
    """A model ready to be sampled, and where the reports of its runs arrive, one a run.

    off: a sentence for each thing asked for that this ComfyUI cannot do.
    """

    model: Any
    acceleration: Acceleration | None
    reports: list[RunReport] = field(default_factory=list)
    off: tuple[Sentence, ...] = ()

    def reports_of(self, sigmas: Tensor, runs: int) -> list[RunReport]:
        """One report for each of `runs` runs over `sigmas`, also where nothing was accelerated."""
        return self.reports or [report_plain_run(sigmas) for _ in range(runs)]


def watch_runs(model: Any, acceleration: Acceleration | None, sigmas: Tensor) -> AcceleratedModel:
    """`model` as Klein Sampler runs it over `sigmas`: with these settings, else with those it came with.

    Raises InputError, before anything is sampled, where the settings do not fit the model or the run.
    """
    acceleration, off = keep_available(acceleration, model)
    earlier = _wrapper_of(model)
    if acceleration is None or not list_wanted(acceleration):
        if earlier is None:
            return AcceleratedModel(model, None, off=tuple(off))
        acceleration = earlier.acceleration
    check_settings(model, acceleration, len(sigmas) - 1)
    reports: list[RunReport] = []

    def keep(report: RunReport) -> None:
        reports.append(report)
        if earlier is not None and earlier.on_report is not None:
            earlier.on_report(report)

    return AcceleratedModel(accelerate(model, acceleration, keep), acceleration, reports, tuple(off))


def is_accelerated(model: Any, acceleration: Acceleration | None) -> bool:
    """Whether a run of `model` with these settings, else with those it came with, may skip anything."""
    acceleration, _ = keep_available(acceleration, model)
    return _wrapper_of(model) is not None or bool(acceleration and list_wanted(acceleration))


def report_plain_run(sigmas: Tensor) -> RunReport:
    """The report of a run in which every step was computed."""
    levels = sigmas.tolist()[:-1]
    records = [StepRecord(i, sigma) for i, sigma in enumerate(levels)]
    return RunReport("no acceleration", len(levels), records)


def read_reports(model: Any, hidden: Any) -> list[RunReport]:
    """The reports of the sampler nodes that lie before the running node in its graph.

    hidden: the node's, with `prompt` and `unique_id`; None outside of a queue. All reports of the model where
    the graph is not known, or holds none of them (they come from nodes that another node made). None for a
    model that was not accelerated.
    """
    wrapper = _wrapper_of(model)
    if wrapper is None or not isinstance(wrapper.on_report, ReportBook):
        return []
    book = wrapper.on_report
    if hidden is None or not hidden.prompt:
        return book.read()
    return book.read(nodes_before(hidden.prompt, hidden.unique_id)) or book.read()


def nodes_before(prompt: Mapping[str, Any], node_id: str) -> set[str]:
    """Ids of all nodes whose results reach `node_id`."""
    found: set[str] = set()
    waiting = [node_id]
    while waiting:
        inputs = prompt.get(waiting.pop(), {}).get("inputs", {})
        links = {str(value[0]) for value in inputs.values() if isinstance(value, list) and len(value) == 2}
        waiting += links - found
        found |= links
    return found


def _wrapper_of(model: Any) -> Any:
    found = [] if seams.missing(seams.ACCELERATION) else model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY)
    return found[-1] if found else None
