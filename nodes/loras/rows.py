"""The text form of a LoRA stack: one row a line, as a person would write it.

    style.safetensors 0.8
    people/anna v2.safetensors 1.2 high air=civitai:123@456
    sketch.safetensors -0.5 off sha256=<64 digits>
    <lora:film:0.7>
    # a remark

First the file (quotes are allowed, the ending may be left out), then in any order: the weight (1 where none
stands), the stage (`high`, `low`; else both), `off`, `air=` and `sha256=`. It is what the node stores, so a
workflow saved without any of our scripts stays readable, and a row's script only rewrites lines.
"""

from __future__ import annotations

import re

from ..base.errors import InputError
from ..base.sentences import say
from ..base.values import BOTH_STAGES, LORA_STAGES, LORA_WEIGHT, LoraRow, Loras, StageBoundary

MAX_ROWS = 64

_TAG = re.compile(r"<lora:(?P<name>[^:<>]+)(?::(?P<weight>[^:<>]*))?(?::[^<>]*)?>", re.IGNORECASE)
_QUOTED = re.compile(r"""(["'])(?P<name>.+?)\1(?:\s+|$)""")
_NAMED = re.compile(r"(?P<name>.+?\.(?:safetensors|sft))(?:\s+|$)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)$")


def parse_rows(text: str, boundary: StageBoundary | None = None) -> Loras:
    """The rows that `text` spells. Raises ValueError naming the line and what is wrong with it."""
    rows: list[LoraRow] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if _TAG.search(line):
                rows.extend(_read_tags(line, boundary or StageBoundary()))
            else:
                rows.append(_read_line(line, boundary or StageBoundary()))
        except ValueError as error:
            raise InputError(say("rows, line %1: %2", number, error)) from None
    if len(rows) > MAX_ROWS:
        raise InputError(say("rows holds %1 LoRAs, but at most %2 fit. Remove some.", len(rows), MAX_ROWS))
    return Loras(tuple(rows))


def format_row(row: LoraRow) -> str:
    """The line of a row; `parse_rows` reads it back as the same row (boundaries aside)."""
    name = row.file
    plain = _NAMED.match(name)
    if name and (plain is None or plain["name"] != name or name[0] in "\"'#<"):
        name = f"'{name}'" if '"' in name else f'"{name}"'
    words = [name] if name else []
    words.append(f"{row.weight:.10g}")
    if row.stage != BOTH_STAGES:
        words.append(row.stage)
    if not row.enabled:
        words.append("off")
    if row.air:
        words.append(f"air={row.air}")
    if row.sha256:
        words.append(f"sha256={row.sha256}")
    return " ".join(words)


def _read_tags(line: str, boundary: StageBoundary) -> list[LoraRow]:
    """`<lora:name:weight>` as pasted from a prompt; words around the tags are none of a stack's business."""
    rows = []
    for tag in _TAG.finditer(line):
        weight = (tag["weight"] or "1").strip()
        if not _NUMBER.match(weight):
            raise InputError(
                say("'%1' in %2 is no weight. Write a number %3.", weight, tag[0], LORA_WEIGHT.span)
            )
        rows.append(LoraRow(tag["name"].strip().replace("\\", "/"), float(weight), boundary=boundary))
    return rows


def _read_line(line: str, boundary: StageBoundary) -> LoraRow:
    match = _QUOTED.match(line) or _NAMED.match(line)
    if match:
        name, words = match["name"], line[match.end() :].split()
    else:
        name, words = _split_from_the_right(line.split())
    fields: dict[str, object] = {}
    for word in words:
        field, value = _read_word(word)
        if field in fields:
            raise InputError(say("'%1' says %2 a second time. Keep one of them.", word, field))
        fields[field] = value
    return LoraRow(file=name.replace("\\", "/"), boundary=boundary, **fields)  # type: ignore[arg-type]


def _split_from_the_right(words: list[str]) -> tuple[str, list[str]]:
    """A name without its ending stops where the fields begin."""
    end = len(words)
    while end > 0 and _is_field(words[end - 1]):
        end -= 1
    return " ".join(words[:end]), words[end:]


def _is_field(word: str) -> bool:
    try:
        _read_word(word)
    except ValueError:
        return False
    return True


def _read_word(word: str) -> tuple[str, object]:
    lower = word.lower()
    if _NUMBER.match(word):
        return "weight", float(word)
    if lower in LORA_STAGES:
        return "stage", lower
    if lower in ("on", "off"):
        return "enabled", lower == "on"
    if lower.startswith("air="):
        return "air", word[4:]
    if lower.startswith("sha256="):
        return "sha256", lower[7:]
    raise InputError(
        say(
            "'%1' is not understood after the file's name. Write a weight, high, low, off, air=... or "
            "sha256=..., in quotes what belongs to the name.",
            word,
        )
    )
