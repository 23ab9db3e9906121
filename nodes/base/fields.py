"""One row for each field of a value: from it come the check, the node's input, the API's spelling and what
the page reads, so that a range, a default or a sentence stands once.

A value keeps its rows in a tuple `FIELDS` beside its dataclass and calls `check_fields(self, FIELDS)` when it
is built. `base/field_inputs.py` makes ComfyUI's inputs of the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InputError
from .sentences import Sentence, say

UNSET = -1
"""What a number's widget, which cannot be empty, holds for "not set"."""


@dataclass(frozen=True)
class Field:
    """A field of a value.

    name: the dataclass's and the node input's. default: of the value; None with `kind` int or float is "not
    set", which the widget shows as UNSET. kind: int, float, bool or str, taken from the default where that is
    none of None. api: the request's spelling, empty for what only exists locally. low, high: inclusive bounds
    of the value, None where there is none. widget_high: where the widget must end though the value need not.
    step, decimals: of the widget (ComfyUI's `step` and `round`). multiple: the value must be one of this.
    choices: the texts allowed. tooltip: the English one.
    optional, advanced, multiline: as ComfyUI's inputs have them.
    """

    name: str
    default: Any
    tooltip: str = ""
    kind: type | None = None
    api: str = ""
    low: float | None = None
    high: float | None = None
    widget_high: float | None = None
    step: float | None = None
    decimals: float | None = None
    multiple: int | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    advanced: bool = False
    multiline: bool = False

    @property
    def type(self) -> type:
        """int, float, bool or str."""
        return self.kind or type(self.default)

    @property
    def label(self) -> str:
        """What sentences call it: the API's spelling where there is one, as its document does."""
        return self.api or self.name

    @property
    def widget_default(self) -> Any:
        return UNSET if self.default is None and self.type in (int, float) else self.default

    @property
    def span(self) -> Sentence:
        """The bounds in words: "from 0 to 1"."""
        if self.low is None and self.high is None:
            return say("a number")
        if self.high is None:
            return say("%1 or more", f"{self.low:.10g}")
        if self.low is None:
            return say("%1 or less", f"{self.high:.10g}")
        return say("from %1 to %2", f"{self.low:.10g}", f"{self.high:.10g}")

    def check(self, value: Any, label: str = "") -> None:
        """Raises InputError, naming `label`, unless `value` may stand in this field."""
        if value is None and self.default is None:
            return
        label = label or self.label
        if self.choices and value not in self.choices:
            raise InputError(
                say("%1 is %2, but must be one of: %3.", label, repr(value), ", ".join(self.choices))
            )
        if self.type in (int, float):
            self._check_number(value, label)

    def check_step(self, value: Any, label: str = "") -> None:
        """Raises InputError unless `value` is a whole number of steps, for an API that counts in them."""
        if self.step is None or value is None:
            return
        count = value / self.step
        if abs(count - round(count)) > 1e-6:
            below = round(math.floor(count) * self.step, 6)
            above = round(math.ceil(count) * self.step, 6)
            raise InputError(
                say(
                    "%1 is %2, but must be in steps of %3: use %4 or %5.",
                    label or self.label,
                    value,
                    f"{self.step:g}",
                    f"{below:g}",
                    f"{above:g}",
                )
            )

    def _check_number(self, value: Any, label: str) -> None:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # also turns NaN away
            raise InputError(say("%1 is %2, but must be %3.", label, value, self.span))
        if self.type is int and value != int(value):
            raise InputError(say("%1 is %2, but must be a whole number.", label, value))
        if self.multiple and value % self.multiple:
            below = int(value // self.multiple * self.multiple)
            raise InputError(
                say(
                    "%1 is %2, but must be a multiple of %3: use %4 or %5.",
                    label,
                    value,
                    self.multiple,
                    below,
                    below + self.multiple,
                )
            )


def check_choice(label: str, value: Any, choices: Sequence[str]) -> None:
    """Raises InputError, naming `label`, unless `value` is one of these words."""
    if value not in choices:
        raise InputError(say("%1 is '%2', but it must be one of: %3.", label, value, ", ".join(choices)))


def check_fields(value: Any, fields: Iterable[Field]) -> None:
    """Check every field of a value that was just built. Raises InputError for the first that is wrong."""
    for field in fields:
        field.check(getattr(value, field.name))


def read_widgets(fields: Iterable[Field], widgets: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for the value from what the widgets hold: defaults where one is missing, None for UNSET."""
    given = {}
    for field in fields:
        value = widgets.get(field.name, field.default)
        given[field.name] = None if field.default is None and value == UNSET else value
    return given


def to_api(value: Any, fields: Iterable[Field]) -> dict[str, Any]:
    """The fields that the API knows and that are set, by its spelling, in the rows' order."""
    found = {field.api: getattr(value, field.name) for field in fields if field.api}
    return {name: content for name, content in found.items() if content is not None}


def from_api(request: Mapping[str, Any], fields: Iterable[Field]) -> dict[str, Any]:
    """Arguments for the value from the part of a request that these rows spell; what is absent stays out."""
    return {field.name: request[field.api] for field in fields if field.api and field.api in request}


def describe_fields(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """What the page needs to know of each row, ready for JSON."""
    return [
        {
            "name": field.name,
            "api": field.api,
            "type": field.type.__name__,
            "default": field.widget_default,
            "low": field.low,
            "high": field.high,
            "step": field.step,
            "choices": list(field.choices),
        }
        for field in fields
    ]
