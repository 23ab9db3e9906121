"""Prompts as Klein reads them: a chat template around the text, padded to 512 tokens, cut at 512.

BFL and diffusers truncate the templated sequence on its right side, closing words of the template included
(diffusers `Flux2KleinPipeline._get_qwen3_prompt_embeds`: padding "max_length", truncation, max_length 512).
ComfyUI itself does not cut, which sends the model text positions it was never trained with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..base.errors import InputError
from ..base.flux2 import FAMILIES, TEXT_TOKENS
from ..base.sentences import Sentence, say
from .pairing import describe_width

PAD_TOKEN = 151643
END_OF_PROMPT = "<|im_end|>"

_TOKENIZERS = tuple(family.tokenizer for family in FAMILIES)
_FOREIGN_WIDTHS = (768, 1024, 1280, 2048, 2304, 2560, 3584, 4096, 5120, 15360, 20480)

Tokens = dict[str, list[list[tuple]]]


@dataclass(frozen=True)
class PromptReport:
    """How many tokens a prompt took (the template's own 12 included) and which words were cut."""

    field: str
    tokens: int
    lost_words: str = ""

    @property
    def cut(self) -> int:
        return max(0, self.tokens - TEXT_TOKENS)

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> Sentence:
        if not self.cut:
            return say("%1: %2 of %3 tokens", self.field, self.tokens, TEXT_TOKENS)
        lost = " ".join(self.lost_words.split())
        shown = lost if len(lost) <= 120 else f"{lost[:60]} ... {lost[-50:]}"
        counts = self.field, self.tokens, TEXT_TOKENS, self.cut
        if not lost:
            return say("%1: %2 of %3 tokens, %4 cut at the end; only the template's closing words", *counts)
        return say('%1: %2 of %3 tokens, %4 cut at the end; these words had no effect: "%5"', *counts, shown)


def count_tokens(row: list[tuple]) -> int:
    """Tokens of a row `[(token, weight, ...), ...]` before its padding; a token can be an embedding."""
    count = len(row)
    while count and isinstance(row[count - 1][0], int) and row[count - 1][0] == PAD_TOKEN:
        count -= 1
    return count


def truncate(
    tokens: Mapping[str, Any], field: str, decode: Callable[[list[int]], str] | None = None
) -> tuple[Tokens, PromptReport]:
    """Cut Klein's tokens to 512 from the right; `decode` turns the ids cut into text for the report.

    Raises ValueError when the tokens are another model's.
    """
    name = next((key for key in _TOKENIZERS if key in tokens), None)
    if name is None:
        raise InputError(
            say(
                "clip is not a text encoder of FLUX.2 [klein] (it makes %1 "
                "tokens): connect the CLIP of the Klein Loader, or Load CLIP with type flux2 and "
                "qwen_3_4b.safetensors.",
                ", ".join(map(str, tokens)) or "no",
            )
        )
    rows = tokens[name]
    count = max((count_tokens(row) for row in rows), default=0)
    if count <= TEXT_TOKENS:
        return dict(tokens), PromptReport(field, count)
    lost = [entry[0] for row in rows for entry in row[TEXT_TOKENS:count] if isinstance(entry[0], int)]
    words = decode(lost).partition(END_OF_PROMPT)[0] if decode else ""
    return {**tokens, name: [row[:TEXT_TOKENS] for row in rows]}, PromptReport(field, count, words.strip())


# What other programs read in a prompt and Klein does not: a form of words, and what it is called there.
_FOREIGN_FORMS = (
    (re.compile(r"(?<!\\)\([^()]*(?:\([^()]*\)[^()]*)*:\s*[-+]?\d*\.?\d+\s*\)"), say("a weight")),
    (re.compile(r"(?<!\\)(?:\(\(+|\[\[+)[^()\[\]]+(?:\)\)+|\]\]+)"), say("emphasis")),
    (re.compile(r"(?<!\\)\[[^\[\]|]*:[^\[\]|]*:\s*\d*\.?\d+\s*\]"), say("a switch of prompts")),
    (re.compile(r"<(?:lora|lyco|hypernet|loha|lokr):[^<>]*>", re.IGNORECASE), say("a LoRA")),
    (re.compile(r"\bembedding:[^\s,;]+", re.IGNORECASE), say("an embedding")),
    (re.compile(r"(?:^|[\s,.;])(BREAK)(?=$|[\s,.;])"), say("a new chunk")),
    (
        re.compile(r"(?:^|\s)(--(?:ar|no|v|q|s|iw|seed|stylize|chaos|niji|tile)\b(?:\s+[\w.:]+)?)"),
        say("an option"),
    ),
)
_ADVICE = {
    "a LoRA": say("load it with Klein LoRA Stack"),
    "an embedding": say("Klein has no embeddings, so take it out"),
    "a new chunk": say("Klein reads one text, so take it out"),
    "an option": say("set it in the node's own widgets"),
}


def find_foreign_syntax(text: str) -> list[tuple[str, Sentence]]:
    """(the words, what other programs take them for) of everything in a prompt that Klein reads as plain "
    "text."""
    found = []
    for pattern, meaning in _FOREIGN_FORMS:
        match = pattern.search(text)
        if match is not None:
            words = " ".join((match[1] if pattern.groups else match[0]).split())
            found.append((words if len(words) <= 60 else words[:57] + "...", meaning))
    return found


def warn_of_syntax(text: str, field: str) -> list[Sentence]:
    """A sentence for each form of words in a prompt that acts elsewhere and not here."""
    return [
        say(
            "Warning: %1 holds %2, %3 in other programs, which Klein does not understand: %4.",
            field,
            words,
            meaning,
            _ADVICE.get(meaning) or say("say it in words, or leave the marks out"),
        )
        for words, meaning in find_foreign_syntax(text)
    ]


def check_encoder_width(width: int) -> None:
    """ValueError when this is the width of another model's text encoder."""
    if width in _FOREIGN_WIDTHS:
        known = " / ".join(f"{family.context_width} ({family.title})" for family in FAMILIES)
        raise InputError(
            say(
                "clip makes conditioning %1 wide (%2), but FLUX.2 [klein] reads "
                "%3: connect the CLIP of the Klein Loader, or Load CLIP with type flux2.",
                width,
                describe_width(width),
                known,
            )
        )
