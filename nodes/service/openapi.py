"""The API described for machines (OpenAPI 3.1), from the tables that check requests, and a page of it."""

from __future__ import annotations

from typing import Any

from ..base.acceleration import ACCELERATION_FIELDS
from ..base.fields import Field
from ..base.values import FACE_FIELDS, LORA_STAGES
from ..remote.services import bfl as bfl_document
from ..remote.services import runware as document
from .models import BFL_MODELS, RUNWARE_MODELS

_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Kleinod's API</title>
<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}</style>
<h1>Kleinod's API</h1>
<p>This ComfyUI answers image requests written for Runware, Black Forest Labs and OpenAI. Below here:</p>
<ul>
<li><code>runware/v1</code>: tasks by POST or WebSocket
<li><code>bfl/v1/flux-2-klein-4b</code>, <code>bfl/v1/get_result</code>, <code>bfl/v1/credits</code>
<li><code>openai/v1/images/generations</code>, <code>images/edits</code>, <code>models</code>
<li><a href="/kleinod/api/health">health</a>, <code>metrics</code> (with a key),
<a href="/kleinod/api/openapi.json">openapi.json</a>
</ul></html>
"""


def build_document(address: str) -> dict[str, Any]:
    """The document for a service at `address`."""
    key: list[dict[str, list[str]]] = [{"bearer": []}, {"x-key": []}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kleinod", "version": "1", "description": "FLUX.2 [klein] on your own machine."},
        "servers": [{"url": address}],
        "security": key,
        "paths": {
            "/runware/v1": {"post": _post("Runware tasks", {"type": "array", "items": _describe_runware()})},
            **{f"/bfl/v1/{name}": {"post": _post("BFL submit", _describe_bfl())} for name in BFL_MODELS},
            "/bfl/v1/get_result": {"get": _get("BFL result", ["id"])},
            "/bfl/v1/credits": {"get": _get("BFL credits")},
            "/openai/v1/images/generations": {"post": _post("OpenAI pictures", _describe_openai())},
            "/openai/v1/images/edits": {
                "post": _post("OpenAI edits", _describe_openai(), "multipart/form-data")
            },
            "/openai/v1/models": {"get": _get("OpenAI models")},
            "/health": {"get": _get("Whether it answers") | {"security": []}},
            "/metrics": {"get": _get("Numbers for Prometheus")},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-key": {"type": "apiKey", "in": "header", "name": "x-key"},
            }
        },
    }


def describe_field(row: Field) -> dict[str, Any]:
    """A row of a table as a JSON schema."""
    schema: dict[str, Any] = {"type": _TYPES[row.type]}
    if row.choices:
        schema["enum"] = list(row.choices)
    for name, value in (("minimum", row.low), ("maximum", row.high), ("multipleOf", row.multiple)):
        if value is not None:
            schema[name] = value
    return schema


def _describe_runware() -> dict[str, Any]:
    top: dict[str, Any] = {
        "taskType": {"const": "imageInference"},
        "taskUUID": {"type": "string", "format": "uuid"},
    }
    rows = (*document.FIELDS, *document.ADVANCED_FIELDS, *document.OPTION_FIELDS)
    for row in rows:
        if row.api and "." not in row.api:
            top[row.api] = describe_field(row)
    top["model"] = {"enum": list(RUNWARE_MODELS)}
    top["ttl"] = {"type": "integer", "minimum": document.MIN_TTL}
    top["seed"] = {"type": "integer", "minimum": 0, "maximum": document.MAX_LARGE_SEED}
    texts = {"type": "string", "minLength": 1, "maxLength": document.MAX_PROMPT}
    top |= {"positivePrompt": texts, "negativePrompt": texts}
    top["acceleratorOptions"] = _object(ACCELERATION_FIELDS)
    top["advancedFeatures"] = {"type": "object", "properties": {"ultralytics": _object(FACE_FIELDS)}}
    top["settings"] = {"type": "object", "properties": {"trueCFGScale": {"type": "number"}}}
    references = {"type": "array", "maxItems": document.MAX_REFERENCES, "items": {"type": "string"}}
    top["inputs"] = {"type": "object", "properties": {"referenceImages": references}}
    lora = {
        "model": {"type": "string"},
        "weight": {"type": "number", "minimum": -4, "maximum": 4},
        "transformer": {"enum": list(LORA_STAGES)},
    }
    top["lora"] = {"type": "array", "items": {"type": "object", "properties": lora, "required": ["model"]}}
    required = ["taskType", "taskUUID", "model", "positivePrompt", "width", "height"]
    return {"type": "object", "properties": top, "required": required}


def _describe_bfl() -> dict[str, Any]:
    side = {"type": "integer", "minimum": bfl_document.MIN_SIDE}
    properties: dict[str, Any] = {"prompt": {"type": "string"}, "seed": {"type": "integer"}}
    properties |= {name: {"type": "string"} for name in bfl_document.IMAGE_INPUTS}
    properties |= {
        "width": side,
        "height": side,
        "safety_tolerance": {"type": "integer", "minimum": 0, "maximum": 5},
    }
    properties["output_format"] = {"enum": ["jpeg", "png", "webp"]}
    properties |= {"webhook_url": {"type": "string", "format": "uri"}, "webhook_secret": {"type": "string"}}
    return {"type": "object", "properties": properties, "required": ["prompt"]}


def _describe_openai() -> dict[str, Any]:
    properties = {
        "prompt": {"type": "string"},
        "model": {"type": "string"},
        "n": {"type": "integer", "minimum": 1, "maximum": 10},
        "size": {"type": "string"},
        "quality": {"type": "string"},
        "response_format": {"enum": ["url", "b64_json"]},
        "output_format": {"enum": ["png", "jpeg", "webp"]},
    }
    return {"type": "object", "properties": properties, "required": ["prompt"]}


def _object(rows: tuple[Field, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": {row.api: describe_field(row) for row in rows if row.api}}


def _post(words: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    body = {"required": True, "content": {kind: {"schema": schema}}}
    return {"summary": words, "requestBody": body, "responses": {"200": {"description": "Done or accepted"}}}


def _get(words: str, query: list[str] | None = None) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": True, "schema": {"type": "string"}} for name in query or []
    ]
    return {"summary": words, "parameters": parameters, "responses": {"200": {"description": "The answer"}}}
