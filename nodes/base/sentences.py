"""Sentences that stand on nodes, in a form that the page can say in its language.

The server speaks English: it does not know who looks, and reports go into files. The page knows each
sentence by its pattern (locales/*/main.json, `kleinod`) and puts its own in the place, with the same values:
js/lib/sentences.js. So what is shown under a node is a `Sentence`, and `say` makes it: mypy holds the code
to that, and tests/contract/test_locales.py the languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NewType

Sentence = NewType("Sentence", str)
"""English, of a pattern that every language has; of a plain string only for numbers, names and errors."""


def say(english: str, *values: object) -> Sentence:
    """A pattern with its values in the place of %1, %2 ... The pattern is a literal, collected from the code.

    In a part of a line, without a full stop, no value but a last one behind a colon or in brackets holds
    ", ", "; " or ". ": there the page cuts the line.
    """
    return Sentence(re.sub(r"%(\d)", lambda mark: str(values[int(mark[1]) - 1]), english))


def join(separator: str, sentences: Iterable[Sentence]) -> Sentence:
    """separator: a line end, ", ", "; ", or a space after a full stop."""
    return Sentence(separator.join(sentences))
