"""Values that travel on the wires between Kleinod's nodes.

Frozen dataclasses, validated when built, free of ComfyUI. The same value feeds a local node and its remote twin,
so each field keeps the API's name, range and default where one exists. Errors are sentences for artists.

Conventions everywhere in the pack: IMAGE `[B, H, W, C]` float32 in 0..1, MASK `[B, H, W]`,
LATENT samples `[B, 128, H/16, W/16]`.
"""

from __future__ import annotations
