"""What a stack tells: what of each file acts, and what does not and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..base.values import LoraRow, Loras
from .plan import FilePlan
from .rows import format_row
from .search import Found
from .stages import describe_boundary

_MOST_NAMES = 3


@dataclass(frozen=True)
class FileReport:
    """One file's lines. `number`: of its row."""

    number: int
    name: str
    applied: int
    total: int
    lines: tuple[str, ...]

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
        if row.stage != "both":
            norms = tuple(part.source for part in parts if len(part.shape) == 1)
            if norms:
                unused["norms cannot act in one stage only"] = norms
                parts = tuple(part for part in parts if len(part.shape) > 1)
        when = "" if row.stage == "both" else f", {row.stage} stage ({_stage_words(row)})"
        facts = [f"{len(parts)} of {plan.total} modules applied", _describe_kinds(parts)]
        facts += [_describe_ranks(plan), _describe_alphas(alphas, plan.alpha_source)]
        text = ", ".join(fact for fact in facts if fact)
        lines = [f"{number}. {found.name}, weight {row.weight:g}{when}: {text}."]
        if found.note:
            lines.append(f"   {found.note[0].upper()}{found.note[1:]}.")
        if words:
            lines.append(f"   Trigger words: {', '.join(map(_printable, words))}.")
        lines += [f"   Not used: {_list_names(names)}: {reason}." for reason, names in unused.items()]
        return cls(number, found.name, len(parts), plan.total, tuple(lines))


def write_report(
    rows: Loras, files: Sequence[FileReport], notes: Sequence[str], hashes: Mapping[str, str] | None = None
) -> str:
    """The node's report: a summary, the files, what was left out, and the rows to paste back."""
    by_number = {file.number: file for file in files}
    applied, total = sum(f.applied for f in files), sum(f.total for f in files)
    lines = [f"{len(files)} of {len(rows.rows)} LoRAs act: {applied} of {total} modules applied."]
    for number, row in enumerate(rows.rows, 1):
        if number in by_number:
            lines += by_number[number].lines
        elif not row.enabled:
            lines.append(f"{number}. {row.label}: off, not read.")
        elif row.weight == 0:
            lines.append(f"{number}. {row.label}: weight 0, not read.")
        elif not row.file:
            lines.append(f"{number}. {row.label}: exists at Runware only, not applied here.")
    lines += notes
    known = [replace(row, sha256=(hashes or {}).get(row.file, row.sha256)) for row in rows.rows]
    if any(row.sha256 for row in known):
        lines += ["", "Rows with their sha256, to paste back:", *map(format_row, known)]
    return "\n".join(lines)


def _stage_words(row: LoraRow) -> str:
    words = describe_boundary(row.boundary)
    return words if row.stage == "high" else f"not {words}"


def _describe_kinds(parts: Sequence[object]) -> str:
    names = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "diff": "whole differences"}
    counts = Counter(names[part.kind] + (" with DoRA" * ("magnitude" in part.keys)) for part in parts)
    return " and ".join(counts)


def _describe_ranks(plan: FilePlan) -> str:
    ranks = plan.ranks
    if not ranks:
        return ""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {ranks[0]} to {ranks[-1]}"


def _describe_alphas(alphas: Sequence[float | None], source: str) -> str:
    known = sorted({alpha for alpha in alphas if alpha is not None})
    if not known:
        return "no alpha (scale 1)"
    span = f"alpha {known[0]:g}" if len(known) == 1 else f"alpha {known[0]:g} to {known[-1]:g}"
    return span + (" from the metadata" if source == "metadata" else "")


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(_printable(name)[:80] for name in names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
