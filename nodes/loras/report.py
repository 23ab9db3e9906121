"""What a stack tells: what of each file acts, and what does not and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..base.sentences import Sentence, join, say
from ..base.values import BOTH_STAGES, HIGH_STAGE, LoraRow, Loras
from .parts import BOFT, DIFF, GLORA, LOHA, LOKR, LORA, OFT, SET
from .plan import FilePlan, PlannedPart
from .rows import format_row
from .search import Found
from .stages import describe_boundary

_MAX_NAMES = 3
KINDS = {
    LORA: "LoRA",
    LOHA: "LoHa",
    LOKR: "LoKr",
    DIFF: say("whole differences"),
    OFT: "OFT",
    BOFT: "BOFT",
    GLORA: "GLoRA",
    SET: say("whole weights"),
}
ONLY_SAMPLING = say("Acts while sampling only: a node that merges or saves the model does not get it.")


@dataclass(frozen=True)
class FileReport:
    """One file's lines. `number`: of its row. unused: what of it was not applied, and why, a line each."""

    number: int
    name: str
    applied: int
    total: int
    lines: tuple[str, ...]
    unused: tuple[Sentence, ...] = ()

    @classmethod
    def of(
        cls,
        number: int,
        row: LoraRow,
        found: Found,
        plan: FilePlan,
        alphas: Sequence[float | None],
        words: Sequence[str] = (),
    ) -> FileReport:
        parts = plan.parts
        unused = dict(plan.unused)
        if row.stage != BOTH_STAGES:
            norms = tuple(part.source for part in parts if len(part.shape) == 1)
            if norms:
                unused[say("norms cannot act in one stage only")] = norms
                parts = tuple(part for part in parts if len(part.shape) > 1)
        name = [Sentence(found.name), say("weight %1", f"{row.weight:g}")]
        if row.stage != BOTH_STAGES:
            name.append(say("%1 stage (%2)", row.stage, _stage_words(row)))
        facts = [say("%1 of %2 modules applied", len(parts), plan.total), _describe_kinds(parts)]
        facts += [_describe_ranks(plan), _describe_alphas(alphas, plan.alpha_source)]
        text = join(", ", (fact for fact in facts if fact))
        lines = [f"{number}. {join(', ', name)}: {text}."]
        if found.note:
            lines.append(f"   {found.note[0].upper()}{found.note[1:]}.")
        if words:
            lines.append("   " + say("Trigger words: %1", ", ".join(map(_printable, words))))
        told = tuple(Sentence(f"{_list_names(names)}: {reason}.") for reason, names in unused.items())
        lines += ["   " + say("Not used: %1", line) for line in told]
        if row.stage != BOTH_STAGES:
            lines.append("   " + ONLY_SAMPLING)
        return cls(number, found.name, len(parts), plan.total, tuple(lines), told)


def write_headline(rows: Loras, files: Sequence[FileReport], notes: Sequence[Sentence]) -> Sentence:
    """What stands under the node: how much acts, and each thing that does not."""
    lines = [_sum_up(rows, files)]
    lines += [say("Not used of %1: %2", file.name, line) for file in files for line in file.unused]
    return join("\n", [*lines, *notes])


def write_report(
    rows: Loras,
    files: Sequence[FileReport],
    notes: Sequence[Sentence],
    hashes: Mapping[str, str] | None = None,
) -> str:
    """The node's report: a summary, the files, what was left out, and the rows to paste back."""
    by_number = {file.number: file for file in files}
    lines: list[str] = [_sum_up(rows, files)]
    for number, row in enumerate(rows.rows, 1):
        if number in by_number:
            lines += by_number[number].lines
        elif not row.enabled:
            lines.append(f"{number}. {row.label}: " + say("off, not read"))
        elif row.weight == 0:
            lines.append(f"{number}. {row.label}: " + say("weight 0, not read"))
        elif not row.file:
            lines.append(f"{number}. {row.label}: " + say("exists at Runware only, not applied here"))
    lines += notes
    known = [replace(row, sha256=(hashes or {}).get(row.file, row.sha256)) for row in rows.rows]
    if any(row.sha256 for row in known):
        lines += ["", say("Rows with their sha256, to paste back:"), *map(format_row, known)]
    return "\n".join(lines)


def _sum_up(rows: Loras, files: Sequence[FileReport]) -> Sentence:
    applied, total = sum(f.applied for f in files), sum(f.total for f in files)
    return say("%1 of %2 LoRAs act: %3 of %4 modules applied.", len(files), len(rows.rows), applied, total)


def _stage_words(row: LoraRow) -> Sentence:
    words = describe_boundary(row.boundary)
    return words if row.stage == HIGH_STAGE else say("not %1", words)


def _describe_kinds(parts: Sequence[PlannedPart]) -> Sentence:
    return join(" + ", Counter(_name_kind(part) for part in parts))


def _name_kind(part: PlannedPart) -> Sentence:
    kind = KINDS[part.kind]
    return say("%1 with DoRA", kind) if "magnitude" in part.keys else Sentence(kind)


def _describe_ranks(plan: FilePlan) -> Sentence:
    ranks = plan.ranks
    if not ranks:
        return Sentence("")
    return say("rank %1", ranks[0]) if len(ranks) == 1 else say("rank %1 to %2", ranks[0], ranks[-1])


def _describe_alphas(alphas: Sequence[float | None], source: str) -> Sentence:
    known = sorted({alpha for alpha in alphas if alpha is not None})
    if not known:
        return say("no alpha (scale 1)")
    low, high = f"{known[0]:g}", f"{known[-1]:g}"
    span = say("alpha %1", low) if len(known) == 1 else say("alpha %1 to %2", low, high)
    return say("%1 from the metadata", span) if source == "metadata" else span


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(_printable(name)[:80] for name in names[:_MAX_NAMES])
    more = len(names) - _MAX_NAMES
    return say("%1 and %2 more", shown, more) if more > 0 else shown


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
