"""What one Klein LoRA Stack is asked to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..base.errors import InputError
from ..base.sentences import say
from ..base.values import LoraRow, Loras, StageBoundary
from .rows import parse_rows

NO_LORA = "none"
STOP, SKIP = "stop with an error", "skip the row"
MISSING_POLICIES = (STOP, SKIP)
INTO, BESIDE = "into the weights", "beside the weights"
APPLICATIONS = (INTO, BESIDE)


@dataclass(frozen=True)
class StackRequest:
    """rows: this node's own, in order. skips_missing: a row without its file is left out and reported."""

    rows: Loras = Loras()
    skips_missing: bool = False
    bypass: bool = False

    @classmethod
    def read(
        cls,
        rows: str,
        lora: str,
        weight: float,
        stage: str,
        missing_files: str,
        stage_boundary: str,
        boundary_at: float,
        apply: str,
    ) -> StackRequest:
        """From the node's widgets. Raises ValueError naming the widget or line at fault."""
        boundary = StageBoundary(stage_boundary, boundary_at)
        own = parse_rows(rows, boundary).rows
        if lora != NO_LORA:
            own += (LoraRow(lora, weight, stage, boundary=boundary),)
        return cls(Loras(own), missing_files == SKIP, apply == BESIDE)


def rows_of_stack(lora_stack: Iterable[Any] | None) -> tuple[LoraRow, ...]:
    """Rows of a LORA_STACK: a list of (name, weight for the model, weight for the text encoder), as other
    packs pass it.

    Klein's LoRAs act on the transformer only, so the third number is not used.
    """
    rows = []
    for entry in lora_stack or ():
        if not isinstance(entry, (tuple, list)) or len(entry) < 2 or not isinstance(entry[0], str):
            raise InputError(
                say(
                    "lora_stack holds %1, but each entry must be (name, weight, weight). Connect "
                    "the LORA_STACK output of a LoRA stacker.",
                    str(entry)[:80],
                )
            )
        if entry[0] not in ("", "None", NO_LORA):
            rows.append(LoraRow(entry[0].replace("\\", "/"), float(entry[1])))
    return tuple(rows)


def stack_of_rows(loras: Loras) -> list[tuple[str, float, float]]:
    """The rows that act and have a file, as a LORA_STACK; their stages cannot be said in it."""
    return [(row.file, row.weight, row.weight) for row in loras.rows if row.acts and row.file]
