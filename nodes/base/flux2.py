"""Numbers of FLUX.2 [klein] that more than one room needs: each stands here and nowhere else.

From Black Forest Labs' reference code and Runware's and BFL's API documents (FLUX.2 [klein] 4B Base).
"""

from __future__ import annotations

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
