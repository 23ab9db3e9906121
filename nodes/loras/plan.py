"""What of a LoRA file acts on which weight, decided from the file's header alone.

Everything that can be wrong with a file is found here, before a tensor is read: trained for another model,
only for a text encoder, nothing that fits, a kind of adapter nobody can apply.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..base.errors import InputError
from ..base.families import find_flux3
from ..base.flux2 import KLEIN_4B
from ..base.safetensors import Header
from ..base.sentences import Sentence, join, say
from .keys import SPLIT, UNSUPPORTED, group_by_module
from .parts import ADAPTED, BOFT, DIFF, GLORA, LOHA, LOKR, LORA, OFT, SET
from .stated_scale import StatedScale
from .targets import (
    Architecture,
    MissingBlock,
    Target,
    UnknownModule,
    block_of,
    describe_size,
    find_target,
    is_of_flux1,
)

# Files with more misfits than this share were made for another model; fewer are named in the report.
MAX_MISFIT_SHARE = 0.1
STABLE_DIFFUSION = "Stable Diffusion or SDXL"
_UNET = re.compile(r"(?:input|output|down|up)_blocks|mid(?:dle)?_block")
# Bounds of what trainers write, far above all known files: beyond them a file is no LoRA but an attack or a
# mistake.
MAX_TENSORS = 100_000
MAX_LETTERS = 500
MAX_RANK = 8192
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class PlannedPart:
    """A module of the file and what it changes. keys: role -> tensor. rank 0: not low-rank.

    alpha None: neither the file's tensors nor its metadata state one, so the scale is 1. divisor: what alpha
    is divided by, the rank in nearly all cases, 0 where it does not count. transposed: down is `[columns, r]`
    and up `[r, rows]`, as MLX writes them.
    """

    source: str
    target: Target
    kind: str
    keys: Mapping[str, str]
    shape: tuple[int, ...]
    rank: int = 0
    alpha_key: str = ""
    alpha: float | None = None
    divisor: float = 0
    rank_stabilised: bool = False
    transposed: bool = False

    def scale(self, alpha: float | None) -> float:
        """The factor on the product, for the alpha found in the file (None: what the metadata state)."""
        alpha = self.alpha if alpha is None else alpha
        if alpha is None or not self.divisor:
            return 1.0
        return alpha / (math.sqrt(self.divisor) if self.rank_stabilised else self.divisor)


@dataclass(frozen=True)
class FilePlan:
    """parts: in the file's order. total: modules the file holds. unused: reason -> names, of modules and of
    tensors.
    """

    parts: tuple[PlannedPart, ...]
    total: int
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    alpha_source: str = ""

    @property
    def ranks(self) -> list[int]:
        return sorted({part.rank for part in self.parts if part.rank})


class _Misfit(Exception):
    """A shape that does not fit; carries (found, expected)."""

    def __init__(self, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        super().__init__()
        self.found, self.expected = found, expected


def plan_file(header: Header, architecture: Architecture) -> FilePlan:
    """Match a LoRA file with a model.

    Raises ValueError, one sentence naming the file, where the file is for another model or nothing of it
    could be used.
    """
    if len(header.tensors) > MAX_TENSORS:
        raise InputError(say("%1 holds %2 tensors: it is no LoRA.", header.label, f"{len(header.tensors):,}"))
    groups, strange = group_by_module(key for key in header.tensors if len(key) <= MAX_LETTERS)
    strange += [key for key in header.tensors if len(key) > MAX_LETTERS]
    kohya = any(".lora_down" in key for key in header.tensors)
    stated = StatedScale(header.metadata, kohya, header.label)
    parts: list[PlannedPart] = []
    unused: dict[str, list[str]] = {}
    misfits: list[tuple[str, _Misfit]] = []
    foreign: list[str] = []
    taken: set[Target] = set()
    for module, roles in groups.items():
        kind = _kind_of(roles, header)
        try:
            if kind is None:
                raise UnknownModule(_explain_roles(roles))
            target = find_target(module, architecture)
            if target in taken:
                raise UnknownModule(say("a second change of the same weight"))
            parts.append(_plan_part(header, architecture, module, target, kind, roles, stated))
            taken.add(target)
            if "bias" in roles:
                unused.setdefault(say("Klein has no biases"), []).append(roles["bias"])
        except _Misfit as misfit:
            misfits.append((module, misfit))
        except UnknownModule as reason:
            unused.setdefault(str(reason), []).append(module)
            if is_of_flux1(module) or find_flux3([module]) or isinstance(reason, MissingBlock):
                foreign.append(module)
    if strange:
        unused[say("tensors that belong to nothing here")] = strange
    _refuse_other_models(header, architecture, len(parts), misfits, foreign)
    if not parts:
        raise InputError(_explain_nothing(header, unused))
    if misfits:
        unused[say("of another size than the model's")] = [module for module, _ in misfits]
    frozen = {reason: tuple(names) for reason, names in unused.items()}
    source = "stored" if any(part.alpha_key for part in parts) else "metadata" if stated.stated else ""
    return FilePlan(tuple(parts), len(groups), frozen, source)


def _kind_of(roles: Mapping[str, str], header: Header) -> str | None:
    if {"mid", "reshape", SPLIT} & set(roles):
        return None
    if "down" in roles and "up" in roles:
        return LORA
    if all(f"hada_{name}" in roles for name in ("w1_a", "w1_b", "w2_a", "w2_b")):
        return None if "hada_t1" in roles else LOHA
    if _pair(roles, "lokr_w1") and _pair(roles, "lokr_w2"):
        return None if "lokr_t2" in roles else LOKR
    if "oft_blocks" in roles:
        return {3: OFT, 4: BOFT}.get(len(header.tensors[roles["oft_blocks"]].shape))
    if all(name in roles for name in ("a1", "a2", "b1", "b2")):
        return GLORA
    if "set_weight" in roles:
        return SET
    return DIFF if "diff" in roles else None


def _pair(roles: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Keys of a matrix that may be stored as a product."""
    if name in roles:
        return (roles[name],)
    pair = tuple(roles[f"{name}_{end}"] for end in "ab" if f"{name}_{end}" in roles)
    return pair if len(pair) == 2 else ()


def _explain_roles(roles: Mapping[str, str]) -> Sentence:
    if set(roles) <= {"alpha", "scalar", "magnitude"}:
        return say("a scale without the matrices it scales")
    if set(roles) <= {"bias"}:
        return say("Klein has no biases")
    if "whole" in roles:
        return say("a whole weight and not a change of one")
    if SPLIT in roles:
        return say(
            "kohya's working form with query, key and value apart (lora_down.0 and so on): use the finished "
            "file of its trainer"
        )
    if {UNSUPPORTED, "mid", "reshape", "lokr_t2", "hada_t1", "oft_blocks"} & set(roles):
        return say(
            "a kind of adapter that ComfyUI cannot put on linear layers (PEFT's OFT, VeRA, LoCon's mid)"
        )
    return say("incomplete: half of a pair is missing")


def _plan_part(
    header: Header,
    architecture: Architecture,
    module: str,
    target: Target,
    kind: str,
    roles: Mapping[str, str],
    stated: StatedScale,
) -> PlannedPart:
    expected = architecture.rows_and_columns(target)
    used = {role: key for role, key in roles.items() if role not in ("bias", "alpha", "whole")}
    for role in ("alpha", "scalar"):
        if role in roles and math.prod(header.tensors[roles[role]].shape) != 1:
            raise UnknownModule(say("its %1 is not one number", role))
    for key in used.values():
        if header.tensors[key].dtype not in _FLOATS:
            raise UnknownModule(
                say("stored as %1; that is no number format of LoRAs", header.tensors[key].dtype)
            )
    found, rank, transposed = _measure(header, kind, roles, expected, target.swapped)
    if found != expected:
        raise _Misfit(found, expected)
    if rank > MAX_RANK:
        raise UnknownModule(say("its rank is %1", f"{rank:,}"))
    if "magnitude" in roles:
        numbers = header.tensors[roles["magnitude"]].shape
        per_row, per_column = math.prod(numbers) == expected[0], numbers == (1, *expected[1:])
        if kind == DIFF or not (per_row or per_column):
            raise _Misfit(numbers, expected)
    # ComfyUI's adapters know only an alpha that stands among the tensors.
    alpha = None if "alpha" in roles or kind in ADAPTED else stated.alpha_of(module)
    divisor = rank or (stated.rank_of(module) or 0 if kind == LOKR else 0)
    return PlannedPart(
        module, target, kind, used, expected, rank, roles.get("alpha", ""), alpha, divisor,
        stated.rank_stabilised, transposed,
    )  # fmt: skip


def _measure(
    header: Header, kind: str, roles: Mapping[str, str], expected: tuple[int, ...], swapped: bool = False
) -> tuple[tuple[int, ...], int, bool]:
    """(shape of the change, rank, whether the factors are stored transposed)."""

    def flat(key: str) -> tuple[int, int]:
        shape = header.tensors[key].shape
        return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (math.prod(shape), 1)

    if kind in ADAPTED:
        return *_measure_adapted(header, kind, roles, expected, swapped), False
    if kind == DIFF:
        return header.tensors[roles["diff"]].shape, 0, False
    if kind == LORA:
        down, up = flat(roles["down"]), flat(roles["up"])
        if down[0] == up[1] and ((up[0], down[1]) == expected or down[1] != up[0]):
            return (up[0], down[1]), down[0], False
        if down[1] == up[0]:
            return (up[1], down[0]), down[1], True
        raise _Misfit((up[0], down[1]), expected)
    if kind == LOHA:
        w1_a, w1_b, w2_a, w2_b = (flat(roles[f"hada_{n}"]) for n in ("w1_a", "w1_b", "w2_a", "w2_b"))
        if w1_a[1] != w1_b[0] or w2_a[1] != w2_b[0] or (w1_a[0], w1_b[1]) != (w2_a[0], w2_b[1]):
            raise _Misfit((w2_a[0], w2_b[1]), expected)
        return (w1_a[0], w1_b[1]), w1_b[0], False
    rank, sides = 0, []
    for name in ("lokr_w1", "lokr_w2"):
        keys = _pair(roles, name)
        first, last = flat(keys[0]), flat(keys[-1])
        if len(keys) == 2:
            if first[1] != last[0]:
                raise _Misfit((first[0], last[1]), expected)
            rank = last[0]
        sides.append((first[0], last[1]))
    return (sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]), rank, False


def _measure_adapted(
    header: Header, kind: str, roles: Mapping[str, str], expected: tuple[int, ...], swapped: bool
) -> tuple[tuple[int, ...], int]:
    """(shape of the change, rank) of what only ComfyUI's adapters know. They log what does not fit and go on,
    so all of it is checked here."""

    def shape(role: str) -> tuple[int, ...]:
        return header.tensors[roles[role]].shape

    if kind == SET:
        return shape("set_weight"), 0
    if len(expected) != 2:
        raise UnknownModule(say("made for a layer while this is a norm"))
    if kind == GLORA:
        a1, a2, b1, b2 = (shape(role) for role in ("a1", "a2", "b1", "b2"))
        if any(len(side) != 2 for side in (a1, a2, b1, b2)):
            raise UnknownModule(say("made for a convolution"))
        rank, (rows, columns) = a2[0], expected
        # LyCORIS' present order of the factors, then the one of its first versions.
        if (a1, a2, b1, b2) == ((columns, rank), (rank, columns), (rows, rank), (rank, columns)):
            return expected, rank
        rank = a1[0]
        if (a1, a2, b1, b2) == ((rank, columns), (columns, rank), (rank, columns), (rows, rank)):
            return expected, rank
        raise _Misfit((b1[0], b2[-1]), expected)
    *stages, blocks, side, other = shape("oft_blocks")
    if side != other or blocks * side != expected[0]:
        raise _Misfit((blocks * side, expected[1]), expected)
    reach = 2 ** max(0, (stages[0] if stages else 1) - 1) * side
    if kind == BOFT and (side % 2 or expected[0] % reach):
        raise UnknownModule(say("its butterfly does not fit the layer's rows"))
    if swapped and (kind == BOFT or blocks % 2):
        raise UnknownModule(say("its rotation mixes rows that this model stores in another order"))
    return expected, 0


def _refuse_other_models(
    header: Header,
    architecture: Architecture,
    fitting: int,
    misfits: list[tuple[str, _Misfit]],
    foreign: list[str],
) -> None:
    wrong = len(misfits) + len(foreign)
    if wrong <= MAX_MISFIT_SHARE * (wrong + fitting):
        return
    guess = guess_model(header) or say("another model")
    if guess == describe_size(architecture.hidden):
        guess = say("another model of the same width")
    example: list[Sentence] = []
    if misfits and guess != STABLE_DIFFUSION:  # its modules have no counterpart here
        module, misfit = misfits[0]
        sizes = ["x".join(map(str, sides)) for sides in (misfit.found, misfit.expected)]
        example = [say("For example %1 is %2 there and %3 here.", _short(module), *sizes)]
    sentences = [
        say(
            "%1 was trained for %2, but the model is %3: %4 of its %5 modules do not fit.",
            header.label,
            guess,
            architecture.title,
            wrong,
            wrong + fitting,
        ),
        *example,
        say("Use a LoRA made for this model, or load the model it was made for."),
    ]
    raise InputError(join(" ", sentences))


def guess_model(header: Header) -> str:
    """What a file was trained for, by block numbers and widths; "" where they tell nothing."""
    flux3 = find_flux3(header.tensors)
    if flux3:
        return flux3
    groups, _ = group_by_module(header.tensors)
    highest: Counter[str] = Counter()
    widths: list[int] = []
    for module, roles in groups.items():
        block = block_of(module)
        if block is not None:
            highest[block[0]] = max(highest[block[0]], block[1] + 1)
            widths += _columns(header, roles)
    width = min(widths, default=0)
    if any(map(is_of_flux1, groups)):
        return "FLUX.1"
    if any(map(_UNET.search, groups)):
        return STABLE_DIFFUSION
    if width == KLEIN_4B.hidden and (highest["double_blocks"] > 8 or highest["single_blocks"] > 24):
        return "FLUX.1"
    return describe_size(width) if width else ""


def _columns(header: Header, roles: Mapping[str, str]) -> list[int]:
    """Width of the input of the layer that a module changes."""
    if "down" in roles and "up" in roles and len(header.tensors[roles["down"]].shape) > 1:
        down, up = header.tensors[roles["down"]].shape, header.tensors[roles["up"]].shape
        return [down[1] if down[0] == up[-1] else down[0]]
    if "hada_w1_b" in roles:
        return [header.tensors[roles["hada_w1_b"]].shape[-1]]
    pairs = [_pair(roles, name) for name in ("lokr_w1", "lokr_w2")]
    return [math.prod(header.tensors[pair[-1]].shape[-1] for pair in pairs)] if all(pairs) else []


def _explain_nothing(header: Header, unused: Mapping[str, list[str]]) -> Sentence:
    reasons = "; ".join(f"{_short(names[0])}: {reason}" for reason, names in list(unused.items())[:3])
    advice = say("Check that the file is a LoRA for FLUX.2 [klein], or switch its row off.")
    if not any("no such part" in reason or "another network" in reason for reason in unused):
        advice = say("Use a file of another form, or switch its row off.")
    nothing = say("%1 holds nothing that acts on FLUX.2 [klein] (%2).", header.label, reasons)
    return join(" ", [nothing, advice])


def _short(name: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in name)
    return shown if len(shown) <= 80 else shown[:77] + "..."
