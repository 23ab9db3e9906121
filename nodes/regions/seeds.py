"""One seed a region, never the same twice in a run.

Peers add the picture's and the region's numbers, so that the second region of one picture gets the noise of
the first of the next. PyTorch's CPU generator, from which ComfyUI draws noise, reads only the lower 32 bits
of a seed, so a wider number or a hash that differs above them would repeat as well. Here every step is a
permutation of the 32-bit numbers.
"""

from __future__ import annotations

from ..base.errors import InputError
from ..base.sentences import say

REGIONS_A_PICTURE = 4096
MAX_PICTURES = 1 << 20
_MASK = 0xFFFFFFFF


def seed_of_region(seed: int, picture: int, region: int) -> int:
    """A seed below 2**32: for one `seed` different for every picture (below 2**20) and region (below "
    "4096)."""
    if not 0 <= region < REGIONS_A_PICTURE or not 0 <= picture < MAX_PICTURES:
        raise InputError(
            say(
                "Region %1 of picture %2 is more than one run can hold: at most "
                "%3 regions of a picture and %4 pictures. Paint them in "
                "several runs.",
                region + 1,
                picture + 1,
                f"{REGIONS_A_PICTURE:,}",
                f"{MAX_PICTURES:,}",
            )
        )
    run = _permute(seed & _MASK) ^ _permute(seed >> 32 & _MASK ^ 0x5BD1E995)
    return _permute((run + picture * REGIONS_A_PICTURE + region) & _MASK)


def _permute(number: int) -> int:
    """A permutation of the 32-bit numbers without visible order: Murmur3's finaliser (Appleby, public
    domain)."""
    number = (number ^ number >> 16) * 0x85EBCA6B & _MASK
    number = (number ^ number >> 13) * 0xC2B2AE35 & _MASK
    return number ^ number >> 16
