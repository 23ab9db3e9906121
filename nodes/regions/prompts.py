"""What regions are asked to show: the conditioning they share, and those of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..base.sentences import Sentence, say
from ..sampling import checks
from .conditioning import Conditioning, fits_one_batch, strip_picture
from .waves import AnyRegion, Region


class RegionPrompts:
    """Conditionings for the regions of one run; each text is encoded once.

    encode: makes the conditioning of (a text, the input it stands in). width: of the conditioning that the
    model reads, None where it does not say. noun: what sentences call the regions ("faces"), own_field: the
    input that holds their own prompts. notes: in words, what was left out or taken for granted so far.
    """

    def __init__(
        self, encode: Callable[[str, str], Conditioning], width: int | None, noun: str, own_field: str
    ) -> None:
        self.encode, self.width, self.noun, self.own_field = encode, width, noun, own_field
        self.notes: list[Sentence] = []
        self.positive: Conditioning = []
        self.negative: Conditioning = []
        self._own: dict[str, Conditioning] = {}

    def share(
        self, positive: str, negative: str, given: tuple[Any, Any] = (None, None), default: str = ""
    ) -> None:
        """Set what regions without a prompt of their own get: the texts, where they are blank the
        conditionings `given` of the whole picture, where there is none `default`.

        Raises InputError where a conditioning does not fit the model.
        """
        self.positive = self._encode_shared("positive", positive, given[0], default)
        self.negative = self._encode_shared("negative", negative, given[1], "")

    def positive_of(self, region: Region) -> Conditioning:
        if region.prompt is None:
            return self.positive
        if region.prompt not in self._own:
            self._own[region.prompt] = self.encode(region.prompt, self.own_field)
        return self._own[region.prompt]

    def split_batches(self, regions: Sequence[AnyRegion]) -> list[list[AnyRegion]]:
        """Regions of one size by whose prompts can share a batch, in their order."""
        batches: list[list[AnyRegion]] = []
        for region in regions:
            mine = self.positive_of(region)
            home = next((b for b in batches if fits_one_batch(self.positive_of(b[0]), mine)), None)
            if home is None:
                batches.append([region])
            else:
                home.append(region)
        return batches

    def _encode_shared(self, field: str, text: str, given: Any, default: str) -> Conditioning:
        if not text.strip() and given is not None:
            checks.check_conditioning(field, given, self.width)
            stripped, dropped = strip_picture(given)
            if dropped:
                names = " + ".join(dropped)
                self.notes.append(
                    say("%1: %2 of the whole picture are not used on %3.", field, names, self.noun)
                )
            return stripped
        if not text.strip() and default:
            self.notes.append(
                say('%1: no prompt was given, so the %2 were asked for "%3"', field, self.noun, default)
            )
        made = self.encode(text.strip() or default, f"{field}_prompt")
        checks.check_conditioning("clip", made, self.width)
        return made
