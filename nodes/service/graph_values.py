"""From a graph on the page to the request its node would send: "Copy as Runware JSON".

The page hands over the prompt it would queue, in which reroutes, subgraphs and muted nodes are resolved
already. Of that only what feeds one node is evaluated here, and only nodes that are quick and pure: the
pack's own values, Load Image and plain numbers. What only a run can tell is named in a note.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..acceleration.nodes import KleinodAcceleration
from ..base import seams
from ..base.errors import ArtistError, InputError
from ..base.references import References
from ..base.sentences import Sentence, say
from ..base.values import LoraRow, Loras
from ..faces.nodes import KleinodFaceSettings
from ..loras.request import StackRequest
from ..references.pictures import FILL
from ..references.prepare import Preparation, prepare_references
from ..remote.job_request import RunContext
from ..remote.nodes import KleinodRunwareOptions
from ..remote.services import find_service, runware
from .runware_json import NODES, REMOTE

comfy_nodes = seams.find("nodes")

_PLAIN = ("PrimitiveInt", "PrimitiveFloat", "PrimitiveString", "PrimitiveStringMultiline", "PrimitiveBoolean")
# Of a Klein Sampler: a start from a picture, which this request cannot say.
_STARTS = ("image", "latent")


class OnlyARunKnows(Exception):
    """A value comes from a node that is not evaluated here. The text names it."""


@dataclass
class Copy:
    """The request as JSON text, and what the user should know of it."""

    text: str
    notes: list[Sentence] = field(default_factory=list)


def copy_request(prompt: Mapping[str, Any], node_id: str) -> Copy:
    """The request of the node `node_id` of a prompt as ComfyUI queues it. Raises InputError with the
    sentence of whatever would be refused.
    """
    node = _find(prompt, node_id)
    if node is None or node["class_type"] not in NODES:
        raise InputError(say("Runware JSON is copied from Klein Sampler or Klein Runware."))
    graph = _Graph(prompt)
    task = (_copy_runware if node["class_type"] == REMOTE else _copy_sampler)(graph, node["inputs"])
    # The order of the service's document: what it is first.
    head = {"taskType": task["taskType"], "taskUUID": str(uuid.uuid4())}
    return Copy(json.dumps({**head, **task}, indent=2, ensure_ascii=False), graph.notes)


def _find(prompt: Mapping[str, Any], node_id: str) -> dict[str, Any] | None:
    node = prompt.get(node_id)
    return node if isinstance(node, dict) and isinstance(node.get("inputs"), dict) else None


class _Graph:
    """A prompt, the values of the few nodes that are evaluated, and notes on the others."""

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        self._prompt = prompt
        self._open: set[str] = set()
        self.notes: list[Sentence] = []

    def is_link(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == 2
            and isinstance(value[1], int)
            and str(value[0]) in self._prompt
        )

    def source(self, value: Any) -> dict[str, Any] | None:
        """The node a link comes from; None for a plain value."""
        return _find(self._prompt, str(value[0])) if self.is_link(value) else None

    def resolve(self, value: Any) -> Any:
        """A plain value as it is, a linked one evaluated. OnlyARunKnows where that takes a run."""
        node = self.source(value)
        if node is None:
            return value
        work = _EVALUATE.get(node["class_type"])
        if work is None:
            title = (node.get("_meta") or {}).get("title") or node["class_type"]
            raise OnlyARunKnows(str(title)[:80])
        name = str(value[0])
        if name in self._open:
            raise InputError(say("The graph feeds a node from itself."))
        self._open.add(name)
        try:
            results = work(self, node["inputs"])
        finally:
            self._open.discard(name)
        return results[value[1]] if value[1] < len(results) else None

    def resolve_all(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.resolve(value) for name, value in inputs.items()}

    def resolve_or_note(self, name: str, value: Any) -> Any:
        """The value, or None and a note."""
        try:
            return self.resolve(value)
        except OnlyARunKnows as source:
            self.notes.append(
                say("%1 comes from %2, which only a run can tell, and was left out.", name, source)
            )
            return None


def _copy_runware(graph: _Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: graph.resolve_or_note(name, value) for name, value in inputs.items()}
    for name in ("positive_prompt", "width", "height"):
        if given.get(name) is None:
            raise InputError(say("%1 is known only after a run, so there is no request to copy yet.", name))
    known = {name: value for name, value in given.items() if value is not None}
    return dict(find_service("runware").make_request(RunContext(), known).body)


def _copy_sampler(graph: _Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a Klein Sampler with a Klein Prompt before it asks for, in Runware's words."""
    prompt = graph.source(inputs.get("positive"))
    if prompt is None or prompt["class_type"] != "KleinodPrompt":
        raise InputError(say("positive is not connected to a Klein Prompt, so there is no prompt to copy."))
    texts = prompt["inputs"]
    names = ("width", "height", "steps", "guidance", "seed", "scheduler", "results", "acceleration")
    own = {name: graph.resolve_or_note(name, inputs.get(name)) for name in names}
    for name in (*_STARTS, "strength"):
        if graph.is_link(inputs.get(name)):
            graph.notes.append(say("%1 was left out: this request starts from noise alone.", name))
    scheduler = own["scheduler"] or "Default"
    if scheduler not in runware.SCHEDULERS:
        graph.notes.append(say("scheduler '%1' is this pack's own and was left out.", scheduler))
        scheduler = "Default"
    values = {
        "positive_prompt": graph.resolve_or_note("positive", texts.get("positive")) or "",
        "negative_prompt": graph.resolve_or_note("negative", texts.get("negative")) or "",
        "width": own["width"],
        "height": own["height"],
        "steps": own["steps"],
        "seed": own["seed"],
        "number_results": own["results"],
        "true_cfg_scale": own["guidance"],
        "scheduler": scheduler,
        "acceleration_level": own["acceleration"],
        "acceleration": graph.resolve_or_note("acceleration_settings", inputs.get("acceleration_settings")),
        "references": graph.resolve_or_note("references", texts.get("references")),
        "loras": _loras_on_the_way(graph, inputs.get("model")),
    }
    known = {name: value for name, value in values.items() if value is not None}
    return dict(find_service("runware").make_request(RunContext(), known).body)


def _loras_on_the_way(graph: _Graph, link: Any) -> Loras | None:
    """The rows of every Klein LoRA Stack between the loader and the sampler; files without an AIR id are
    named.
    """
    rows: list[LoraRow] = []
    seen: set[int] = set()
    node = graph.source(link)
    while node is not None and id(node) not in seen:
        seen.add(id(node))
        if node["class_type"] == "KleinodLoraStack":
            found = graph.resolve_or_note("loras", [_id_of(graph, node), 1])
            rows = [*(found.rows if found else ()), *rows]
            break  # its own rows and those before it
        node = graph.source(node["inputs"].get("model"))
    for row in rows:
        if row.acts and not row.air:
            graph.notes.append(
                say("LoRA '%1' has no AIR id and was left out: Runware sees no files.", row.file)
            )
    return Loras(tuple(row for row in rows if row.air)) if rows else None


def _id_of(graph: _Graph, node: Mapping[str, Any]) -> str:
    return next(name for name, one in graph._prompt.items() if one is node)


# --- Nodes that are evaluated: their inputs -> their outputs


def _evaluate_stack(graph: _Graph, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The rows alone: no file is read for a request."""
    names = (
        "rows", "lora", "weight", "stage", "missing_files", "stage_boundary", "boundary_at", "apply",
    )  # fmt: skip
    own = StackRequest.read(*(graph.resolve(inputs.get(name)) for name in names)).rows.rows
    before = graph.resolve(inputs.get("loras"))
    if before is None and (stack := graph.source(inputs.get("model"))) is not None:
        if stack["class_type"] == "KleinodLoraStack":
            before = graph.resolve([_id_of(graph, stack), 1])
    if inputs.get("lora_stack") is not None:
        graph.notes.append(say("lora_stack of another pack was left out: its rows have no AIR ids."))
    return None, Loras((*(before.rows if before else ()), *own))


def _evaluate_references(graph: _Graph, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    pictures: dict[str, dict[str, Any]] = {"images": {}, "masks": {}, "places": {}}
    for name, value in inputs.items():
        group, _, socket = name.partition(".")
        if group in pictures and socket and value is not None:
            pictures[group][socket] = graph.resolve(value)
    preparation = Preparation(
        graph.resolve(inputs["size"]),
        graph.resolve(inputs["megapixels"]),
        graph.resolve(inputs["match_image"]),
        graph.resolve(inputs.get("background", "white")),
        graph.resolve(inputs.get("mask_use", FILL)),
        graph.resolve(inputs.get("weights", "")),
        graph.resolve(inputs.get("steps", "")),
    )
    references: References = prepare_references(**pictures, preparation=preparation)
    if references.weighing:
        graph.notes.append(
            say(
                "The weights of references were left out, which Runware does not know: %1.",
                references.weighing,
            )
        )
        references = References(tuple(item.in_full() for item in references.items), references.matched)
    return references, *references.canvas


def _evaluate_picture(graph: _Graph, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    name = graph.resolve(inputs.get("image"))
    try:
        return comfy_nodes.LoadImage().load_image(image=name)
    except ArtistError:
        raise
    except Exception:
        raise InputError(
            say("Load Image cannot open '%1': choose the picture again.", str(name)[:80])
        ) from None


def _run(node: Any) -> Callable[[_Graph, Mapping[str, Any]], tuple[Any, ...]]:
    def evaluate(graph: _Graph, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        return node.execute(**graph.resolve_all(inputs)).args

    return evaluate


def _evaluate_plain(graph: _Graph, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (graph.resolve(inputs.get("value")),)


_EVALUATE: dict[str, Callable[[_Graph, Mapping[str, Any]], tuple[Any, ...]]] = {
    "KleinodAcceleration": _run(KleinodAcceleration),
    "KleinodFaceSettings": _run(KleinodFaceSettings),
    "KleinodRunwareOptions": _run(KleinodRunwareOptions),
    "KleinodLoraStack": _evaluate_stack,
    "KleinodReferences": _evaluate_references,
    "LoadImage": _evaluate_picture,
    **dict.fromkeys(_PLAIN, _evaluate_plain),
}
