"""What a LoRA file says about itself: its own metadata, and the files that lie beside it. Never the network.

Metadata keys are kohya's (`ss_...`) and the ModelSpec's (`modelspec....`). Beside the file:
`NAME.civitai.info`, `NAME.metadata.json`, `NAME.json`, `NAME.txt` as the known managers write them, and
pictures `NAME.preview.png`, `NAME.png` and the like. All of it was written by strangers: it is cut to size
and shown as text.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from ..base.safetensors import Header
from .keys import group_by_module
from .plan import guess_model
from .stated_scale import StatedScale

MAX_SIDECAR_BYTES = 4 * 1024 * 1024
MAX_PICTURE_BYTES = 20 * 1024 * 1024
MAX_WORDS = 24
MAX_LETTERS = 2000
# kohya counts tags a folder of training images; a tag on this share of them is what the LoRA listens to.
COMMON_TAG = 0.5
_PICTURES = (
    ".preview.png",
    ".preview.jpg",
    ".preview.jpeg",
    ".preview.webp",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
)
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


class Picture(NamedTuple):
    """data: the file's bytes. kind: its MIME type, by its first bytes."""

    data: bytes
    kind: str


def describe_file(header: Header, path: str) -> dict[str, Any]:
    """Facts for a person, JSON-ready: title, author, description, base_model, kind, rank, alpha, modules,
    trigger_words. Unknown ones are "" or [].
    """
    metadata, beside = header.metadata, _read_sidecars(Path(path))
    groups, _ = group_by_module(header.tensors)
    ranks = {_rank(header, roles) for roles in groups.values()} - {0}
    stated = StatedScale(metadata, any(".lora_down" in key for key in header.tensors))
    alphas = {stated.alpha_of(module) for module in groups} | {_stored_alpha(path, groups)}
    return {
        "title": _first(metadata.get("modelspec.title"), beside.get("title"), metadata.get("ss_output_name")),
        "author": _first(metadata.get("modelspec.author"), beside.get("author")),
        "description": _first(metadata.get("modelspec.description"), beside.get("description")),
        "base_model": guess_model(header),
        "stated_base_model": _first(
            beside.get("base_model"),
            metadata.get("modelspec.architecture"),
            metadata.get("ss_base_model_version"),
        ),
        "kind": _kind(header.tensors),
        "rank": _span(ranks),
        "alpha": _span(alphas - {None}),
        "modules": len(groups),
        "trigger_words": find_trigger_words(metadata, beside.get("words", ())),
        "bytes": _size(path),
    }


def list_trigger_words(header: Header, path: str) -> list[str]:
    """`find_trigger_words` of a file and of those beside it."""
    return find_trigger_words(header.metadata, _read_sidecars(Path(path))["words"])


def find_trigger_words(metadata: Mapping[str, str], beside: Iterable[str] = ()) -> list[str]:
    """Words that wake the LoRA: those somebody wrote down, else the commonest tags it was trained with."""
    words = list(beside)
    for key in (
        "modelspec.trigger_phrase",
        "trigger_phrase",
        "trigger_words",
        "ss_trigger_words",
        "trigger_word",
    ):
        words += _split_words(metadata.get(key, ""))
    if not words:
        words = _common_tags(metadata.get("ss_tag_frequency", ""))
    cut = (word.strip()[:200] for word in words if isinstance(word, str))
    return list(dict.fromkeys(word for word in cut if word))[:MAX_WORDS]


def find_picture(header: Header, path: str) -> Picture | None:
    """The picture beside the file, else the thumbnail in its metadata."""
    for ending in _PICTURES:
        place = Path(path).with_suffix("")
        place = place.with_name(place.name + ending)
        try:
            if place.is_file() and place.stat().st_size <= MAX_PICTURE_BYTES:
                data = place.read_bytes()
                if kind := _picture_kind(data):
                    return Picture(data, kind)
        except OSError:
            continue
    encoded = header.metadata.get("modelspec.thumbnail", "").partition("base64,")[2]
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    kind = _picture_kind(data)
    return Picture(data, kind) if kind else None


def _picture_kind(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _SIGNATURES if data.startswith(start)), "")


def _read_sidecars(path: Path) -> dict[str, Any]:
    """title, author, description, base_model and words of the files beside; later ones fill gaps only."""
    stem = path.with_suffix("")
    facts: dict[str, Any] = {"words": []}
    for ending in (".civitai.info", ".metadata.json", ".json"):
        parsed = _read_json(stem.with_name(stem.name + ending))
        if not isinstance(parsed, dict):
            continue
        version = _read_object(parsed, "civitai") or parsed
        model = _read_object(version, "model")
        facts["title"] = _first(facts.get("title"), model.get("name"), parsed.get("model_name"))
        facts["base_model"] = _first(
            facts.get("base_model"), version.get("baseModel"), parsed.get("base_model")
        )
        facts["description"] = _first(
            facts.get("description"), parsed.get("notes"), parsed.get("description")
        )
        words = version.get("trainedWords")
        facts["words"] += words if isinstance(words, list) else []
        facts["words"] += _split_words(parsed.get("activation text", ""))
    if not facts["words"]:
        text = _read_text(stem.with_name(stem.name + ".txt"))
        facts["words"] = _split_words(text) if len(text) <= MAX_LETTERS else []
    return facts


def _read_object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            return ""
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path) or "null")
    except (ValueError, RecursionError):
        return None


def _split_words(text: Any) -> list[str]:
    words = text.replace("\n", ",").split(",") if isinstance(text, str) else []
    return [word.strip() for word in words if word.strip()]


def _common_tags(frequency: str) -> list[str]:
    try:
        folders = json.loads(frequency or "{}")
    except (ValueError, RecursionError):
        return []
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            counts[tag] += count if isinstance(count, int) else 0
    most = max(counts.values(), default=0)
    return [tag for tag, count in counts.most_common(8) if count >= COMMON_TAG * most > 0]


def _rank(header: Header, roles: Mapping[str, str]) -> int:
    """Of a low-rank pair: the side that both matrices share."""
    if "down" not in roles or "up" not in roles:
        return 0
    down, up = header.tensors[roles["down"]].shape, header.tensors[roles["up"]].shape
    if len(down) < 2 or len(up) < 2:
        return 0
    return down[0] if down[0] == math.prod(up[1:]) else up[0]


def _stored_alpha(path: str, groups: Mapping[str, Mapping[str, str]]) -> float | None:
    """The alpha of the first module that stores one: all agree in every trainer's default."""
    key = next((roles["alpha"] for roles in groups.values() if "alpha" in roles), "")
    if not key:
        return None
    try:
        with safe_open(path, "pt", device="cpu") as file:
            return float(file.get_tensor(key).flatten()[0])
    except (SafetensorError, OSError, RuntimeError, IndexError):
        return None


def _kind(keys: Iterable[str]) -> str:
    names = {
        "hada_": "LoHa", "lokr_": "LoKr", "oft_": "OFT", "lora_": "LoRA", ".down.": "LoRA", ".a1.": "GLoRA",
        ".set_weight": "whole weights",
    }  # fmt: skip
    found = dict.fromkeys(name for key in keys for part, name in names.items() if part in key)
    dora = any("magnitude" in key or "dora_scale" in key for key in keys)
    return " and ".join(found) + (" with DoRA" if found and dora else "")


def _span(numbers: set[Any]) -> str:
    ordered = sorted(numbers)
    if not ordered:
        return ""
    return f"{ordered[0]:g}" if len(ordered) == 1 else f"{ordered[0]:g}-{ordered[-1]:g}"


def _first(*values: Any) -> str:
    return next(
        (value.strip()[:MAX_LETTERS] for value in values if isinstance(value, str) and value.strip()), ""
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
