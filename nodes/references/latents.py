"""Encoded references, kept with the VAE that made them: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

MAX_BYTES = 64 * 2**20
"""About 30 references of one megapixel."""


class LatentCache:
    """Latents by the digest of their picture, within a limit of bytes."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._latents: OrderedDict[str, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._latents)

    @property
    def bytes(self) -> int:
        return sum(latent.nbytes for latent in self._latents.values())

    def get(self, digest: str) -> Tensor | None:
        latent = self._latents.get(digest)
        if latent is not None:
            self._latents.move_to_end(digest)
        return latent

    def put(self, digest: str, latent: Tensor) -> None:
        """Keep it; one larger than the whole limit is not kept."""
        if latent.nbytes > self._max_bytes:
            return
        self._latents[digest] = latent
        self._latents.move_to_end(digest)
        while self.bytes > self._max_bytes:
            self._latents.popitem(last=False)
