"""What references cost: tokens, the work of a step, memory.

Every reference token goes through every block with the picture's own. A block of width H does 26 H^2
multiplications-and-additions a token in its linear layers and 4 H for each pair of tokens in attention,
double and single blocks alike, so the ratio of two steps does not depend on how many blocks there are.
"""

from __future__ import annotations

from ..base.flux2 import CELL, KLEIN_4B, TEXT_TOKENS
from ..base.references import References
from ..base.sentences import Sentence, say

HIDDEN_4B = KLEIN_4B.hidden
# ComfyUI's own estimate for FLUX.2 (`supported_models.Flux2`, `BaseModel.memory_required`): MiB per token and
# branch at 2 bytes a number, for the width of klein 4B.
MEBIBYTES_PER_TOKEN = 3.1 * 4 * HIDDEN_4B / 2604 * 0.02


def count_tokens(size: tuple[int, int]) -> int:
    """Tokens of a picture (width, height) in pixels."""
    return (size[0] // CELL) * (size[1] // CELL)


def step_factor(
    canvas_tokens: int, reference_tokens: int, hidden: int = HIDDEN_4B, text_tokens: int = TEXT_TOKENS
) -> float:
    """How many times as long a step takes as without references: 2.2 for 1 megapixel beside 1 on 4B."""

    def work(tokens: int) -> int:
        return tokens * (26 * hidden + 4 * tokens)

    plain = canvas_tokens + text_tokens
    return work(plain + reference_tokens) / work(plain)


def extra_mebibytes(reference_tokens: int, branches: int = 2) -> float:
    """Graphics memory that references add while sampling with klein 4B; guidance runs two branches."""
    return reference_tokens * MEBIBYTES_PER_TOKEN * branches


def describe_cost(references: References) -> list[Sentence]:
    """Sentences about a picture as large as the matched reference, made with FLUX.2 [klein] 4B."""
    width, height = references.canvas
    tokens, own = references.tokens, count_tokens(references.canvas)
    factor = step_factor(own, tokens)
    memory = [f"{extra_mebibytes(tokens, branches) / 1024:.1f}" for branches in (2, 1)]
    return [
        say(
            "%1 reference tokens beside %2 of a %3 picture and %4 of text",
            f"{tokens:,}",
            f"{own:,}",
            f"{width}x{height}",
            TEXT_TOKENS,
        ),
        say("each step takes about %1 times as long as without references (klein 4B)", f"{factor:.1f}"),
        say("about %1 GB more graphics memory with guidance and %2 GB without", *memory),
    ]
