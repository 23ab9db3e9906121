"""What the tensors of a LoRA file are: grouped by module, each with the role its name's ending gives it.

Roles are those of the LoRA paper (arXiv:2106.09685), DoRA (arXiv:2402.09353) and LyCORIS (LoHa and LoKr,
arXiv:2309.14859); the endings are those of kohya, PEFT, diffusers, DiffSynth, LyCORIS, XLabs and MLX. Only
names are read here, no tensor.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

# An adapter's name may stand between the role and ".weight": lora_A.default.weight
_TAIL = r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?$"
_ROLES: tuple[tuple[re.Pattern[str], dict[str, str] | str], ...] = (
    (re.compile(r"[._]lora(?:_linear_layer)?[._](?P<role>down|up|a|b|A|B|mid)" + _TAIL), {
        "down": "down", "up": "up", "A": "down", "B": "up", "a": "down", "b": "up", "mid": "mid",
    }),
    (re.compile(r"[._]lora(?:_linear_layer)?[._](?:up|B|b)(?:\.[^.]+)?\.bias$"), "bias"),
    (re.compile(r"[.](?P<role>down|up)\.weight$"), {"down": "down", "up": "up"}),
    (re.compile(r"[._](?:(?:lora_)?magnitude_vector|dora_magnitude|dora_scale|magnitude)" + _TAIL),
     "magnitude"),
    (re.compile(r"[._](?:lora_alpha|network_alpha|alpha)(?:\.(?!weight$)[^.]+)?$"), "alpha"),
    (re.compile(r"[._](?P<role>lokr_(?:w1|w2|w1_a|w1_b|w2_a|w2_b|t1|t2))" + _TAIL), {}),
    (re.compile(r"[._](?P<role>hada_(?:w1_a|w1_b|w2_a|w2_b|t1|t2))" + _TAIL), {}),
    (re.compile(r"\.(?:diff|w_norm)$"), "diff"),
    (re.compile(r"\.(?:diff_b|b_norm)$"), "bias"),
    (re.compile(r"\.scalar$"), "scalar"),
    (re.compile(r"\.(?:reshape_weight)$"), "reshape"),
    (re.compile(r"\.(?:oft_\w+|boft_\w+|a[12]|b[12]|set_weight|rescale|vera_\w+)" + _TAIL), "unsupported"),
    (re.compile(r"\.(?:weight|bias|scale)$"), "whole"),
)  # fmt: skip


def split_key(key: str) -> tuple[str, str]:
    """(module name, role) of a tensor's name; ("", "") where it says nothing."""
    for pattern, roles in _ROLES:
        match = pattern.search(key)
        if match is None or match.start() == 0:
            continue
        if isinstance(roles, str):
            return key[: match.start()], roles
        role = match["role"]
        return key[: match.start()], roles.get(role, role)
    return "", ""


def group_by_module(keys: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """({module: {role: key}}, keys that belong to nothing)."""
    groups: dict[str, dict[str, str]] = {}
    strange: list[str] = []
    for key in keys:
        module, role = split_key(key)
        roles = groups.setdefault(module, {}) if role else {}
        if not role or role in roles:
            strange.append(key)
        roles[role] = roles.get(role, key)
    return groups, strange


class StatedScale:
    """alpha as a file's metadata state it, for modules that store none of their own.

    rank_stabilised: alpha counts over the root of the rank (PEFT's use_rslora). diffusers and PEFT write
    `lora_adapter_metadata` (JSON of the adapter's configuration, keys may carry the network's name:
    `transformer.lora_alpha`); kohya's trainers write `ss_network_alpha`, others a plain `alpha` or
    `lora_alpha`.
    """

    def __init__(self, metadata: Mapping[str, str], kohya: bool) -> None:
        config = _read_config(metadata)
        self._alpha = _number(config.get("lora_alpha", config.get("alpha")))
        self._patterns = _numbers(config.get("alpha_pattern"))
        self.rank_stabilised = config.get("use_rslora") in (True, "true", "True")
        if self._alpha is None:
            names = ("lora_alpha", "alpha", "network_alpha", *(("ss_network_alpha",) if kohya else ()))
            self._alpha = next((n for n in (_number(metadata.get(name)) for name in names) if n), None)
        self.stated = self._alpha is not None or bool(self._patterns)

    def alpha_of(self, module: str) -> float | None:
        """Stated alpha of a module: the pattern that ends its name, else the file's."""
        for pattern, alpha in self._patterns.items():
            if module == pattern or module.endswith("." + pattern):
                return alpha
        return self._alpha


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


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number != 0 else None


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    pairs = ((str(key).removeprefix("^").removesuffix("$"), _number(alpha)) for key, alpha in value.items())
    return {key: alpha for key, alpha in pairs if alpha is not None}
