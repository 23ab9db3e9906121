"""What faces are asked to show where nobody says."""

from __future__ import annotations

DEFAULT_POSITIVE = "The face of image 1 in sharp, natural detail: same person, same expression, same light."
"""What Klein is asked where nobody wrote a prompt: as an edit model it follows an instruction."""
