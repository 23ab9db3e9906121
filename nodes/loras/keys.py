"""What the tensors of a LoRA file are: grouped by module, each with the role its name's ending gives it.

Roles are those of the LoRA paper (arXiv:2106.09685), DoRA (arXiv:2402.09353), LyCORIS (LoHa and LoKr,
arXiv:2309.14859; OFT, BOFT and GLoRA as its files spell them); the endings are those of kohya, PEFT,
diffusers, DiffSynth, LyCORIS, XLabs and MLX. Only names are read here, no tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# An adapter's name may stand between the role and ".weight": lora_A.default.weight
_TAIL = r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?$"
# Roles that many tensors of one module may have.
SPLIT, UNSUPPORTED = "split", "unsupported"
_ROLES: tuple[tuple[re.Pattern[str], dict[str, str] | str], ...] = (
    # kohya keeps query, key and value apart like this while it trains, and joins them when it saves.
    (re.compile(r"[._]lora_(?:down|up)\.\d+(?:\.weight)?$"), SPLIT),
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
    (re.compile(r"\.(?P<role>oft_blocks|rescale|set_weight)$"), {}),
    (re.compile(r"\.(?P<role>[ab][12])\.weight$"), {}),
    (re.compile(r"\.(?:oft_\w+|boft_\w+|vera_\w+)" + _TAIL), UNSUPPORTED),
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
        if not role or (role in roles and role not in (SPLIT, UNSUPPORTED)):
            strange.append(key)
        roles[role] = roles.get(role, key)
    return groups, strange
