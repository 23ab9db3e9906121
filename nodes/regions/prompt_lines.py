"""One prompt a region: lines of a text, in the order the regions are painted."""

from __future__ import annotations

import re
from dataclasses import dataclass

SKIP = "[SKIP]"
SHARED = "[PROMPT]"
_SEPARATOR = re.compile(r"\[SEP\]|\n", re.IGNORECASE)


@dataclass(frozen=True)
class PromptLines:
    """Line n belongs to region n of every picture. Empty or missing: the shared prompt. [SKIP]: leave that
    region alone. [PROMPT] inside a line stands for the shared prompt's text. [SEP] separates like a new
    line."""

    lines: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> PromptLines:
        return cls(tuple(_SEPARATOR.split(text.rstrip()))) if text.strip() else cls()

    def skips(self, number: int) -> bool:
        """Whether region `number`, counted from 0, is left alone."""
        return self._line(number).upper() == SKIP

    def for_region(self, number: int, shared: str) -> str | None:
        """The region's own prompt, or None where it takes the shared one."""
        line = self._line(number)
        return line.replace(SHARED, shared).strip() if line else None

    def _line(self, number: int) -> str:
        return self.lines[number].strip() if number < len(self.lines) else ""
