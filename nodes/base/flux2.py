"""Numbers of FLUX.2 [klein] that more than one room needs: each stands here and nowhere else.

From Black Forest Labs' reference code and Runware's and BFL's API documents (FLUX.2 [klein] 4B Base).
"""

from __future__ import annotations

from dataclasses import dataclass

from .sentences import say

CELL = 16
"""Pixels of one latent cell's side: 8 of the VAE, times a patch of 2."""
LATENT_CHANNELS = 128
"""32 channels of the VAE, a patch of 2 x 2 folded into one cell."""
TEXT_TOKENS = 512
"""Tokens a prompt is padded to, and cut at."""

# The API's ranges and defaults.
MIN_SIZE, MAX_SIZE = 128, 2048
MIN_STEPS, MAX_STEPS, DEFAULT_STEPS = 1, 50, 28
MIN_GUIDANCE, MAX_GUIDANCE, DEFAULT_GUIDANCE = 1.0, 20.0, 4.0
MAX_SEED = 2**32 - 1
MAX_RESULTS = 20


@dataclass(frozen=True)
class Family:
    """One size of FLUX.2 [klein], and the Qwen3 that reads its prompts.

    sizes: width of a token, double blocks, single blocks. encoder_width: of the text encoder; the model reads
    three of its states side by side. tokenizer: ComfyUI's name of it. encoder_patterns: what file names of
    the encoder look like, the best first.
    """

    name: str
    title: str
    sizes: tuple[int, int, int]
    encoder_width: int
    encoder: str
    tokenizer: str
    encoder_file: str
    encoder_patterns: tuple[str, ...]
    licence: str
    has_key_value_variant: bool = False

    @property
    def hidden(self) -> int:
        return self.sizes[0]

    @property
    def context_width(self) -> int:
        return 3 * self.encoder_width


KLEIN_4B = Family(
    name="4b",
    title="4B",
    sizes=(3072, 5, 20),
    encoder_width=2560,
    encoder="Qwen3-4B",
    tokenizer="qwen3_4b",
    encoder_file="qwen_3_4b.safetensors",
    encoder_patterns=(r"qwen[-_. ]?3[-_. ]?4b(?!.*vl)", r"qwen[-_. ]?3.*4b"),
    licence=say("Apache-2.0 (the 4B weights may be used commercially)"),
)
KLEIN_9B = Family(
    name="9b",
    title="9B",
    sizes=(4096, 8, 24),
    encoder_width=4096,
    encoder="Qwen3-8B",
    tokenizer="qwen3_8b",
    encoder_file="qwen_3_8b_fp8mixed.safetensors",
    encoder_patterns=(r"qwen[-_. ]?3[-_. ]?8b(?!.*vl)", r"qwen[-_. ]?3.*8b"),
    licence=say("FLUX non-commercial licence (the 9B weights are not for commercial use)"),
    has_key_value_variant=True,
)
FAMILIES = (KLEIN_4B, KLEIN_9B)


def find_family_of_encoder(width: int) -> Family | None:
    """The family whose text encoder is `width` wide."""
    return next((family for family in FAMILIES if family.encoder_width == width), None)
