"""Runware's `imageInference` as JSON, read into what the nodes' widgets hold.

The other direction is the value classes' own (`to_task`, `to_runware`); `graph_values.py` builds them from a
graph. A request is taken whole or not at all: what is out of range is refused with the sentence of the value
it is out of range for, and each field that finds no place is named. What a request leaves open is Runware's
default, save how the result is delivered and a seed, which stay as the node has them.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..acceleration.settings import make_acceleration
from ..base.acceleration import ACCELERATION_FIELDS, LOWER_REUSES_MORE
from ..base.errors import InputError
from ..base.fields import Field
from ..base.sentences import Sentence, say
from ..base.values import FACE_FIELDS, FaceRefinement, LoraRow, Loras
from ..loras.rows import format_row
from ..remote.services import runware

SAMPLER, REMOTE = "KleinodSampler", "KleinodRunware"
NODES = (SAMPLER, REMOTE)
OPTIONS = "acceleratorOptions"
FACES = "advancedFeatures.ultralytics"
PICTURES = "inputs.referenceImages"
# Left as the node has them where the request says nothing.
_DELIVERY = ("output_format", "output_quality", "include_cost", "delivery_method", "seed")
_OWN_NAMES = {"taskType", "taskUUID"}
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_TOP_FIELDS = (*runware.FIELDS, *runware.ADVANCED_FIELDS)
# Runware's twelve options.
_ACCELERATION_FIELDS = tuple(row for row in ACCELERATION_FIELDS if row.api)


@dataclass(frozen=True)
class Paste:
    """What becomes of a request. Widgets are `{name: value}`; None is a node the request does not need.

    own: of the node itself. prompt: of a Klein Prompt. options: of a Klein Runware Options, which need not be
    there unless needs_options. pictures: reference pictures as files, in order.
    notes: what the user should know, a sentence each.
    """

    own: dict[str, Any]
    prompt: dict[str, str]
    acceleration: dict[str, Any] | None = None
    rows: str | None = None
    faces: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    needs_options: bool = False
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    notes: tuple[Sentence, ...] = ()


def read_paste(text: str, node: str) -> Paste:
    """The request in `text` for a node of this class (one of NODES). Raises InputError for what is no
    request or may not be sent.
    """
    if node not in NODES:
        raise InputError(say("Runware JSON goes into Klein Sampler or Klein Runware, not into '%1'.", node))
    task, notes = find_request(text)
    request = _Request(task)
    paste = _read_for_sampler(request) if node == SAMPLER else _read_for_runware(request)
    return Paste(**{**vars(paste), "notes": (*notes, *paste.notes, *request.list_left())})


def find_request(text: str) -> tuple[dict[str, Any], list[Sentence]]:
    """The first `imageInference` task of a text, one of a list, or of an object that holds such a list; and
    a note where there are more.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(
            say("The text is not JSON. Copy a whole Runware request, from its first brace to its last.")
        ) from None
    holder = value if isinstance(value, dict) else {}
    lists = [value, holder.get("tasks"), holder.get("data")]
    tasks = [task for entry in lists for task in (entry if isinstance(entry, list) else [entry])]
    found = [task for task in tasks if isinstance(task, dict) and _is_request(task)]
    if not found:
        raise InputError(
            say("The JSON holds no Runware imageInference request (none with a positivePrompt).")
        )
    more = [say("The text holds %1 requests; the first was taken.", len(found))] if len(found) > 1 else []
    return found[0], more


def _is_request(task: Mapping[str, Any]) -> bool:
    kind = task.get("taskType")
    return kind == "imageInference" or (kind is None and isinstance(task.get("positivePrompt"), str))


class _Request:
    """A task by dotted names, and which of them were read."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self._left = dict(_flatten(task, ""))

    def take(self, name: str, default: Any = None) -> Any:
        value = self._left.pop(name, None)
        return default if value is None else value

    def has(self, group: str) -> bool:
        return any(name == group or name.startswith(f"{group}.") for name in self._left)

    def is_object(self, name: str) -> bool:
        return any(other.startswith(f"{name}.") for other in self._left)

    def take_fields(self, rows: Iterable[Field], group: str = "") -> dict[str, Any]:
        """The given fields by the node's names, each checked under its name in the request."""
        found = {}
        for row in rows:
            name = f"{group}.{row.api}" if group else row.api
            value = self.take(name) if row.api else None
            if value is not None:
                found[row.name] = _check(row, value, name)
        return found

    def leave(self, name: str, value: Any) -> None:
        """Put back what finds no place, so that it is named."""
        self._left[name] = value

    def list_left(self) -> list[Sentence]:
        names = [name for name, value in self._left.items() if name not in _OWN_NAMES and value is not None]
        notes = [say("Not taken: %1.", ", ".join(names))] if names else []
        if "taskUUID" in self._left:
            notes.append(say("taskUUID was not taken: every job has its own."))
        return notes


def _flatten(value: Any, name: str) -> Iterable[tuple[str, Any]]:
    """Dotted names of everything but objects; lists are values. An empty object stands for itself."""
    if isinstance(value, dict) and (value or not name):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _check(row: Field, value: Any, name: str) -> Any:
    """`value` as the field keeps it. InputError names the request's own field."""
    kinds: dict[type, tuple[Any, Sentence]] = {
        int: ((int, float), say("a whole number")),
        float: ((int, float), say("a number")),
        bool: (bool, say("true or false")),
        str: (str, say("a text")),
    }
    wanted, words = kinds[row.type]
    if not isinstance(value, wanted) or isinstance(value, bool) != (row.type is bool):
        raise InputError(say("%1 is %2, but must be %3.", name, json.dumps(value)[:80], words))
    row.check(value, name)
    return int(value) if row.type is int else value


# --- For each node


def _read_for_runware(request: _Request) -> Paste:
    own, notes = _read_own(request)
    rows = [row for row in runware.OPTION_FIELDS if row.api]
    given = request.take_fields(rows)
    options = {row.name: row.default for row in rows} | given
    acceleration = _read_acceleration(request, own["acceleration_level"])
    loras = _read_loras(request)
    faces = _read_faces(request)
    addresses, pictures = _read_references(request)
    own["reference_addresses"] = "\n".join(addresses) if len(pictures) < len(addresses) else ""
    # Every rule between fields is the request's own; the prompt may still be written.
    runware.RunwareRequest(
        **_without(own, "reference_addresses") | {"positive_prompt": own["positive_prompt"] or "?"},
        accelerator=None if acceleration is None else make_acceleration(**acceleration).to_runware(),
        loras=loras.to_runware(),
        references=addresses,
        ultralytics=None if faces is None else FaceRefinement(**_without(faces, "preset")).to_runware(),
        options=runware.RunwareOptions(**options),
    )
    return Paste(
        own,
        {},
        acceleration,
        "\n".join(map(format_row, loras.rows)) or None,
        faces,
        options,
        bool(given),
        pictures,
        tuple(notes),
    )


def _read_for_sampler(request: _Request) -> Paste:
    """What exists on this computer; the rest stays in the request and is named."""
    given, notes = _read_own(request)
    acceleration = _read_acceleration(request, given["acceleration_level"])
    addresses, pictures = _read_references(request)
    far = [address for address in addresses if not address.startswith(runware.PICTURE_MARK)]
    if far:
        notes.append(
            say(
                "Reference pictures given by their address: %1. This computer does not fetch them: "
                "load them with Load Image and connect Klein References.",
                len(far),
            )
        )
    guidance = given["true_cfg_scale"] or given["cfg_scale"]
    shared = ("width", "height", "steps", "seed", "scheduler")
    own: dict[str, Any] = {name: given[name] for name in shared if name in given}
    own |= {
        "guidance": guidance,
        "results": given["number_results"],
        "acceleration": given["acceleration_level"],
    }
    runware.RunwareRequest(
        **{**given, "positive_prompt": given["positive_prompt"] or "?"},
        accelerator=None if acceleration is None else make_acceleration(**acceleration).to_runware(),
    )
    if given["large_seed"]:
        own.pop("seed", None)
        notes.append(
            say(
                "seed %1 was not taken: a seed here is at most %2.",
                given["large_seed"],
                runware.MAX_SEED,
            )
        )
    for name, value in (
        ("model", given["model"] if given["model"] != runware.MODEL else None),
        ("CFGScale", given["cfg_scale"] if given["cfg_scale"] not in (guidance, 3.5) else None),
        ("outputFormat", given.get("output_format")),
        ("outputQuality", given.get("output_quality")),
        ("includeCost", given.get("include_cost")),
        ("deliveryMethod", given.get("delivery_method")),
        ("safety.checkContent", given["check_content"] or None),
        ("safety.mode", given["safety_mode"] if given["safety_mode"] != "none" else None),
        ("ttl", given["ttl"] or None),
    ):
        if value is not None:
            request.leave(name, value)
    if _read_loras(request).rows:
        notes.append(say("LoRAs by AIR id were left out: they exist at Runware only."))
    if request.has(FACES):
        request.take_fields(FACE_FIELDS, FACES)
        notes.append(say("Face settings were left out: connect Klein Face Refiner after the sampler."))
    prompt = {"positive": given["positive_prompt"], "negative": given["negative_prompt"]}
    return Paste(own, prompt, acceleration, pictures=pictures, notes=tuple(notes))


def _read_own(request: _Request) -> tuple[dict[str, Any], list[Sentence]]:
    """Widgets of Klein Runware: what is given, and the default of what is left open."""
    notes = []
    scheduler = request.take("scheduler")
    if scheduler is not None:
        request.leave("scheduler", runware.read_scheduler(scheduler))
    seed = request.take("seed")
    large = isinstance(seed, int) and not isinstance(seed, bool) and seed > runware.MAX_SEED
    if seed is not None and not large:
        request.leave("seed", seed)
    given = request.take_fields(_TOP_FIELDS)
    for name in ("width", "height"):
        if name not in given:
            notes.append(say("The request has no %1, which Runware needs: the node's own stays.", name))
    if "seed" not in given and not large:
        notes.append(say("The request has no seed: the node's own stays."))
    if "positive_prompt" not in given:
        notes.append(say("The request has no positivePrompt, which Runware needs: write one."))
    keep = {*_DELIVERY, "width", "height", "positive_prompt"}
    own = {row.name: row.default for row in _TOP_FIELDS if row.name not in keep}
    own |= {"positive_prompt": "", "large_seed": str(seed) if large else "", **given}
    return own, notes


def _read_acceleration(request: _Request, level: str) -> dict[str, Any] | None:
    """Widgets of Klein Acceleration, or None where the request has no acceleratorOptions."""
    if not request.has(OPTIONS):
        return None
    if not isinstance(request.take(OPTIONS, {}), dict):
        raise InputError(say("%1 must be an object of options.", OPTIONS))
    given = request.take_fields(_ACCELERATION_FIELDS, OPTIONS)
    if not given:
        return None
    defaults = {row.name: row.widget_default for row in _ACCELERATION_FIELDS}
    return {"threshold_meaning": LOWER_REUSES_MORE, **defaults, **given, "acceleration": level}


def _read_loras(request: _Request) -> Loras:
    """LoRA rows by AIR id."""
    entries = {} if request.is_object("lora") else request.take("lora", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(
            say(
                "lora must be a list of objects such as %1, also where it is one LoRA alone.",
                '{"model": "civitai:123@456", "weight": 0.8}',
            )
        )
    rows = []
    for number, entry in enumerate(entries):
        name = f"lora[{number}]"
        known = {key: entry[key] for key in ("model", "weight", "transformer") if entry.get(key) is not None}
        if not isinstance(known.get("model"), str) or not known["model"]:
            raise InputError(
                say("%1 is missing, but each LoRA needs the AIR id it has at Runware.", f"{name}.model")
            )
        weight = known.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise InputError(
                say(
                    "%1 is %2, but must be %3.",
                    f"{name}.weight",
                    json.dumps(weight)[:80],
                    say("a number"),
                )
            )
        rows.append(LoraRow(air=known["model"], weight=weight, stage=known.get("transformer", "both")))
        for key in entry.keys() - known.keys():
            request.leave(f"{name}.{key}", entry[key])
    return Loras(tuple(rows))


def _read_faces(request: _Request) -> dict[str, Any] | None:
    """Widgets of Klein Face Settings, or None where the request has no ultralytics."""
    if not request.has(FACES):
        return None
    if not isinstance(request.take(FACES, {}), dict):
        raise InputError(say("%1 must be an object of options.", FACES))
    rows = [row for row in FACE_FIELDS if row.api]
    given = request.take_fields(rows, FACES)
    defaults = {row.name: row.default for row in FACE_FIELDS}
    return {"preset": "custom", **defaults, **given}


def _read_references(request: _Request) -> tuple[list[str], tuple[bytes, ...]]:
    """(a line each for `reference_addresses`, the pictures among them as files)."""
    given = request.take(PICTURES, [])
    if not isinstance(given, list) or not all(isinstance(entry, str) for entry in given):
        raise InputError(say("%1 must be a list of texts: addresses, UUIDs, data URIs or base64.", PICTURES))
    if len(given) > runware.MAX_REFERENCES:
        raise InputError(
            say(
                "%1 holds %2 pictures, and Runware takes at most %3.",
                PICTURES,
                len(given),
                runware.MAX_REFERENCES,
            )
        )
    lines: list[str] = []
    pictures: list[bytes] = []
    for number, entry in enumerate(given):
        if runware.is_address(entry):
            lines.append(entry)
            continue
        pictures.append(_read_picture(entry, f"{PICTURES}[{number}]"))
        lines.append(f"{runware.PICTURE_MARK}{len(pictures)}")
    return lines, tuple(pictures)


def _read_picture(text: str, name: str) -> bytes:
    body = _DATA_URI.sub("", text, count=1)
    try:
        data = b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if not data:
        shown = text if urlsplit(text).scheme else text[:40]
        raise InputError(
            say(
                "%1 is '%2', but must be an https address, a Runware UUID, a data URI or base64.",
                name,
                shown[:80],
            )
        )
    return data


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}
