"""Which weight of a FLUX.2 transformer a trainer's module name means.

Trainers spell the same weight in a dozen ways: Black Forest Labs' names or diffusers', with dots or with
underscores, under a prefix of their own, with query, key and value fused or apart. Names are compared without
separators and prefixes, so a spelling nobody listed still finds its weight as long as its tail says which one
is meant. Names: BFL's flux2 repository (`double_blocks.0.img_attn.qkv`) and diffusers'
`transformer_flux2.py` (`transformer_blocks.0.attn.to_q`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..base.flux2 import FAMILIES
from ..base.sentences import say

_BLOCK = re.compile(
    r"(?P<kind>single_transformer_blocks|single_stream_blocks|single_blocks|double_stream_blocks|double_blocks"
    # "tran" is lost where a trainer strips the letters of its prefix instead of the prefix itself.
    r"|joint_transformer_blocks|(?:tran)?sformer_blocks)_(?P<index>\d{1,4})_(?P<rest>.+)"
)
# Words a module name may carry without meaning anything by them.
_NOISE = re.compile(r"_(?:processor|base_layer|orig_mod|module|modules_to_save)(?=_)")
_OTHER_NETWORKS = re.compile(
    r"(?:^|_)(?:te\d?|text_encoders?|text_model|clip|t5\w*|qwen\w*|vae|controlnet)(?:_|$)"
)

# How much of a fused weight's rows a part takes: (first, length) in units of the hidden width.
_Q, _K, _V, _QKV = (0, 1), (1, 1), (2, 1), (0, 3)
_PARTS = {
    **dict.fromkeys(("q", "to_q", "q_proj", "query", "wq"), _Q),
    **dict.fromkeys(("k", "to_k", "k_proj", "key", "wk"), _K),
    **dict.fromkeys(("v", "to_v", "v_proj", "value", "wv"), _V),
}
_WHOLE: tuple[int, int] | None = None


def _double_names() -> dict[str, tuple[str, tuple[int, int] | None]]:
    names: dict[str, tuple[str, tuple[int, int] | None]] = {}
    for stream, added, number, feed in (("img", "", "1", "ff"), ("txt", "add_", "2", "ff_context")):
        qkv, proj = f"{stream}_attn.qkv", f"{stream}_attn.proj"
        first, second = f"{stream}_mlp.0", f"{stream}_mlp.2"
        fused = ["qkv", "to_qkv", "qkv_proj"] if stream == "img" else ["to_added_qkv", "add_qkv_proj"]
        names |= {f"attn_{name}": (qkv, _WHOLE) for name in fused}
        names |= {f"{stream}_attn_{name}": (qkv, _WHOLE) for name in ("qkv", "to_qkv", "qkv_proj")}
        names |= {f"qkv_lora{number}": (qkv, _WHOLE), f"proj_lora{number}": (proj, _WHOLE)}
        for letter, rows in (("q", _Q), ("k", _K), ("v", _V)):
            names[f"attn_add_{letter}_proj" if added else f"attn_to_{letter}"] = (qkv, rows)
        for part, rows in _PARTS.items():
            names[f"{stream}_attn_{part}"] = names[f"{stream}_attn_qkv_{part}"] = (qkv, rows)
        outs = ("attn_to_add_out", "attn_to_add_out_0") if added else ("attn_to_out_0", "attn_to_out")
        names |= {name: (proj, _WHOLE) for name in (*outs, f"{stream}_attn_proj", f"{stream}_attn_out")}
        for name in ("linear_in", "net_0_proj", "net_0", "w12"):
            names[f"{feed}_{name}"] = (first, _WHOLE)
        for name in ("linear_out", "net_2", "down_proj", "w2"):
            names[f"{feed}_{name}"] = (second, _WHOLE)
        for name, rows in (("gate_proj", (0, 3)), ("up_proj", (3, 3)), ("w1", (0, 3)), ("w3", (3, 3))):
            names[f"{feed}_{name}"] = (first, rows)
        names |= {f"{stream}_mlp_{name}": (first, _WHOLE) for name in ("0", "fc1", "in", "linear_in")}
        names |= {f"{stream}_mlp_{name}": (second, _WHOLE) for name in ("2", "fc2", "out", "linear_out")}
        for letter, word in (("q", "query"), ("k", "key")):
            norm = (f"{stream}_attn.norm.{word}_norm", _WHOLE)
            names[f"attn_norm_{'added_' if added else ''}{letter}"] = norm
            names[f"{stream}_attn_norm_{word}_norm"] = norm
    return names


def _single_names() -> dict[str, tuple[str, tuple[int, int] | None]]:
    names: dict[str, tuple[str, tuple[int, int] | None]] = {}
    for name in ("linear1", "attn_to_qkv_mlp_proj", "to_qkv_mlp_proj", "attn_qkv_mlp_proj"):
        names[name] = ("linear1", _WHOLE)
    for name in ("linear2", "attn_to_out", "attn_to_out_0", "proj_out", "proj_lora", "proj", "to_out"):
        names[name] = ("linear2", _WHOLE)
    for name in ("linear1_qkv", "attn_to_qkv", "attn_qkv", "qkv_lora", "qkv"):
        names[name] = ("linear1", _QKV)
    for name in ("linear1_mlp", "proj_mlp", "attn_to_mlp", "attn_to_mlp_proj", "attn_mlp_proj"):
        names[name] = ("linear1", (3, 6))
    for part, rows in _PARTS.items():
        names[f"attn_{part}"] = names[f"linear1_{part}"] = ("linear1", rows)
    for letter, word in (("q", "query"), ("k", "key")):
        names[f"attn_norm_{letter}"] = names[f"norm_{word}_norm"] = (f"norm.{word}_norm", _WHOLE)
    return names


def _global_names() -> dict[str, str]:
    names: dict[str, tuple[str, ...]] = {
        "img_in": ("x_embedder", "img_in"),
        "txt_in": ("context_embedder", "txt_in"),
        "final_layer.linear": ("proj_out", "final_layer_linear"),
        "final_layer.adaLN_modulation.1": ("norm_out_linear", "final_layer_adaln_modulation_1"),
        "single_stream_modulation.lin": ("single_stream_modulation_linear", "single_stream_modulation_lin"),
    }
    for stream in ("img", "txt"):
        module = f"double_stream_modulation_{stream}"
        names[f"{module}.lin"] = (f"{module}_linear", f"{module}_lin")
    for ours, theirs in (("time_in", "timestep_embedder"), ("guidance_in", "guidance_embedder")):
        for layer, number in (("in_layer", "1"), ("out_layer", "2")):
            spellings = [f"{ours}_{layer}"]
            for parent in ("time_guidance_embed_", "time_text_embed_", "time_embed_", ""):
                spellings.append(f"{parent}{theirs}_linear_{number}")
            names[f"{ours}.{layer}"] = tuple(spellings)
    return {spelling: module for module, spellings in names.items() for spelling in spellings}


DOUBLE, SINGLE, GLOBAL = _double_names(), _single_names(), _global_names()
# Modules that FLUX.1 has in every block and FLUX.2 in none.
_FLUX1_ONLY = frozenset(
    ("img_mod_lin", "txt_mod_lin", "norm1_linear", "norm1_context_linear", "norm_linear", "modulation_lin")
)


@dataclass(frozen=True)
class Target:
    """A weight of the model, or rows of it.

    module: BFL's name (`double_blocks.0.img_attn.qkv`). start, length: rows of its weight, length 0 = all.
    swapped: the file's rows come as (scale, shift) where the model has (shift, scale).
    """

    module: str
    start: int = 0
    length: int = 0
    swapped: bool = False


@dataclass(frozen=True)
class Architecture:
    """What a transformer has: `(rows, columns)` of each linear layer and `(width,)` of each norm, by BFL's
    names without `.weight`.
    """

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def hidden(self) -> int:
        return self.shapes["img_in"][0]

    def count(self, kind: str) -> int:
        """Blocks of `kind`, double_blocks or single_blocks."""
        return len({name.split(".")[1] for name in self.shapes if name.startswith(kind + ".")})

    @property
    def title(self) -> str:
        return describe_size(self.hidden, self.count("double_blocks"), self.count("single_blocks"))

    def rows_and_columns(self, target: Target) -> tuple[int, ...]:
        """The shape a change of `target` must have."""
        shape = self.shapes[target.module]
        return (target.length, *shape[1:]) if target.length else shape


def describe_size(hidden: int, doubles: int = 0, singles: int = 0) -> str:
    known = {family.hidden: f"FLUX.2 [klein] {family.title}" for family in FAMILIES}
    known |= {6144: "FLUX.2 [dev]", 128: "klein-nano"}
    name = known.get(hidden, "another model")
    blocks = f", {doubles} double and {singles} single blocks" if doubles or singles else ""
    return f"{name} (width {hidden}{blocks})"


class UnknownModule(Exception):
    """The name means no weight of this model; the text says why, to complete "not used: ..."."""


class MissingBlock(UnknownModule):
    """Of a block beyond those that this model has."""


def find_target(name: str, architecture: Architecture) -> Target:
    """The weight that a file's module `name` means. Raises UnknownModule."""
    plain = _NOISE.sub("", _plain(name))
    plain = plain.removesuffix("_lora").removesuffix("_base_layer")
    block = _BLOCK.search(plain)
    if _OTHER_NETWORKS.search(plain[: block.start()] if block else plain):
        raise UnknownModule(say("belongs to a text encoder or another network and not to the transformer"))
    if block:
        return _find_in_block(block, architecture)
    for spelling in sorted(GLOBAL, key=len, reverse=True):
        if plain == spelling or plain.endswith("_" + spelling):
            if re.search(r"\d|block|layer", plain[: -len(spelling)]):
                break
            # diffusers' AdaLayerNormContinuous stores scale before shift, BFL's final layer the other way.
            return _checked(GLOBAL[spelling], _WHOLE, architecture, swapped=spelling == "norm_out_linear")
    raise UnknownModule(say("no such part in FLUX.2"))


def is_of_flux1(name: str) -> bool:
    """Whether only FLUX.1 has a module of this name."""
    plain = _plain(name)
    block = _BLOCK.search(plain)
    if block is None:
        return "vector_in" in plain or "text_embedder" in plain
    return _NOISE.sub("", block["rest"]).removesuffix("_lora") in _FLUX1_ONLY


def block_of(name: str) -> tuple[str, int] | None:
    """("double_blocks" | "single_blocks", index) of a file's module name, if it lies in a block."""
    block = _BLOCK.search(_plain(name))
    if block is None:
        return None
    return ("single_blocks" if block["kind"].startswith("single") else "double_blocks"), int(block["index"])


def _plain(name: str) -> str:
    return re.sub(r"[._\-/]+", "_", name).lower()


def _find_in_block(block: re.Match[str], architecture: Architecture) -> Target:
    single = block["kind"].startswith("single")
    kind, names = ("single_blocks", SINGLE) if single else ("double_blocks", DOUBLE)
    index = int(block["index"])
    if index >= architecture.count(kind):
        raise MissingBlock(
            say("block %1 of %2 (this model has %3 of them)", index, kind, architecture.count(kind))
        )
    rest = block["rest"].replace("attn1_", "attn_")
    if rest not in names:
        raise UnknownModule(
            say("a part of FLUX.1's blocks") if rest in _FLUX1_ONLY else say("no such part in FLUX.2")
        )
    module, rows = names[rest]
    return _checked(f"{kind}.{index}.{module}", rows, architecture)


def _checked(
    module: str, rows: tuple[int, int] | None, architecture: Architecture, swapped: bool = False
) -> Target:
    if module not in architecture.shapes:
        raise UnknownModule(say("this model has no %1", module))
    if rows is None:
        return Target(module, swapped=swapped)
    unit = architecture.hidden
    return Target(module, rows[0] * unit, rows[1] * unit)
