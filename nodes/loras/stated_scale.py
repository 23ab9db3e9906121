"""What a LoRA file's metadata state of its scale, for modules that store none of their own.

diffusers and PEFT write `lora_adapter_metadata`, JSON of the adapter's configuration (keys may carry the
network's name: `transformer.lora_alpha`); kohya's trainers write `ss_network_alpha`, others a plain `alpha`
or `lora_alpha`. `alpha_pattern` and `rank_pattern` are regular expressions as PEFT reads them
(`peft/utils/other.py`, `get_pattern_key`, 0.21.2): each stands for the end of a module's name, from a dot on,
and the first that matches counts.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..base.errors import InputError
from ..base.sentences import say

# Patterns are written by strangers, and some regular expressions never end: a file's together get this.
MAX_SECONDS = 1.0
MAX_PATTERN_LETTERS = 2000
# What stands before a module's name in a file but not in the network that PEFT saw; the first that fits.
_PREFIXES = (
    "base_model.model.",
    "transformer.",
    "diffusion_model.",
    "model.diffusion_model.",
    "unet.",
    "dit.",
)


class StatedScale:
    """label: of the file, for errors. kohya: whether the file's own names are kohya's.

    rank_stabilised: alpha counts over the root of the rank (PEFT's use_rslora). stated: whether there is
    anything.
    """

    def __init__(self, metadata: Mapping[str, str], kohya: bool, label: str = "lora") -> None:
        config = _read_config(metadata)
        self._label, self._seconds = label, MAX_SECONDS
        self._alpha = _read_number(config.get("lora_alpha", config.get("alpha")))
        self._rank = _read_number(config.get("r"))
        self._alphas = _read_patterns(config.get("alpha_pattern"))
        self._ranks = _read_patterns(config.get("rank_pattern"))
        self.rank_stabilised = config.get("use_rslora") in (True, "true", "True")
        self._scales_whole = str(config.get("peft_type", "")).upper() == "LOKR"
        if self._alpha is None:
            names = ("lora_alpha", "alpha", "network_alpha", *(("ss_network_alpha",) if kohya else ()))
            # In these 0 stands for the rank, a scale of 1.
            self._alpha = next((n for n in (_read_number(metadata.get(name)) for name in names) if n), None)
        self.stated = self._alpha is not None or bool(self._alphas)

    def alpha_of(self, module: str) -> float | None:
        """Stated alpha of a module: of the first pattern that means it, else the file's.

        Raises InputError where the file's patterns take too long to match.
        """
        return self._look_up(self._alphas, module, self._alpha)

    def rank_of(self, module: str) -> float | None:
        """The rank to divide alpha by where the tensors tell none: PEFT scales whole LoKr matrices too."""
        return self._look_up(self._ranks, module, self._rank) if self._scales_whole else None

    def _look_up(self, patterns: Mapping[str, float], module: str, otherwise: float | None) -> float | None:
        if not patterns:
            return otherwise
        prefix = next((prefix for prefix in _PREFIXES if module.startswith(prefix)), "")
        name = module.removeprefix(prefix)
        return patterns.get(self._find_pattern(patterns, name), otherwise)

    def _find_pattern(self, patterns: Iterable[str], name: str) -> str:
        """The first pattern that means `name`, else `name` itself."""
        # Comes with ComfyUI (transformers needs it), reads what `re` reads, and can be told when to stop.
        import regex

        for pattern in patterns:
            started = time.monotonic()
            try:
                found = regex.match(rf"(.*\.)?({pattern})$", name, timeout=max(self._seconds, 0.001))
            except TimeoutError:
                raise InputError(
                    say(
                        "%1 holds a pattern in its metadata that takes too long to match "
                        "(%2): the file is damaged or made to do harm. Use another version of it.",
                        self._label,
                        f"{pattern[:60]!r}",
                    )
                ) from None
            except (regex.error, RecursionError, OverflowError):
                continue
            finally:
                self._seconds -= time.monotonic() - started
            if found:
                return pattern
        return name


def _read_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    for name in ("lora_adapter_metadata", "adapter_config", "peft_config", "lora_config"):
        try:
            parsed = json.loads(metadata[name])
        except (KeyError, ValueError, RecursionError):
            continue
        if not isinstance(parsed, dict):
            continue
        inner = parsed.get("transformer", parsed)
        if not isinstance(inner, dict):
            continue
        own = {key: value for key, value in inner.items() if not key.startswith("text_encoder")}
        return {key.rpartition(".")[2]: value for key, value in own.items()}
    return {}


def _read_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _read_patterns(value: Any) -> dict[str, float]:
    """Patterns with their numbers, in the file's order; what is none is passed over."""
    if not isinstance(value, dict):
        return {}
    pairs = ((str(key), _read_number(number)) for key, number in value.items())
    return {key: number for key, number in pairs if number is not None and len(key) <= MAX_PATTERN_LETTERS}
