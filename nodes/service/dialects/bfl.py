"""Black Forest Labs' API: its klein endpoints, polling and credits.

Follows BFL's document of /v1/flux-2-klein-4b: ten fields, an answer with an address to poll, statuses, and a
result's address that works for ten minutes and is given anew with every poll.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from typing import Any

from ...base.flux2 import CELL, MAX_SIZE
from ...remote.services.bfl import (
    IMAGE_INPUTS,
    MAX_PIXELS,
    MAX_TOLERANCE,
    MIN_SIDE,
    MIN_TOLERANCE,
)
from ..access import ApiKey
from ..book import Job, Picture
from ..drawing import Drawing
from ..messages import Answer, Refusal, Request, answer_json, read_json, read_secret
from ..models import BFL_MODELS, DEFAULT_KIND, kind_of
from ..picture_data import check_picture
from ..service import Service, is_ready
from ..terms import Terms

NAME = "bfl"
LINK_SECONDS = 600.0
MAX_PROMPT = 10000
DEFAULT_SIZE = 1024
_FORMS = {"jpeg": "JPG", "png": "PNG", "webp": "WEBP"}
_CREDIT_USD = 0.01
_FIELDS = {
    "prompt", "seed", "width", "height", "safety_tolerance", "output_format", "webhook_url",
    "webhook_secret", *IMAGE_INPUTS,
}  # fmt: skip
# The document's own words: of newer ones such as Generating, ComfyUI's node makes an error.
_STATUSES = {"queued": "Pending", "running": "Pending", "done": "Ready", "failed": "Error"}
# ComfyUI's own nodes come by way of comfy.org's proxy; this is the same path below its --comfy-api-base.
PROXY = "/proxy/bfl/"


async def answer(service: Service, request: Request) -> Answer:
    try:
        return await _answer(service, request)
    except Refusal as refusal:
        return _answer_refusal(refusal)


async def _answer(service: Service, request: Request) -> Answer:
    secret = read_secret(request.headers)
    path = request.path.removeprefix("/bfl")
    if path.startswith(PROXY):
        path = f"/v1/{path.removeprefix(PROXY).removeprefix('v1/').removesuffix('/generate')}"
    if path in ("/v1/get_result", "/v1/credits"):
        if request.method != "GET":
            return answer_json(405, {"detail": "Method Not Allowed"})
        key = service.identify(secret)
        if path == "/v1/credits":
            return answer_json(200, {"credits": service.balance(key)})
        return _poll(service, key, request)
    endpoint = path.removeprefix("/v1/")
    # Any other of BFL's names where the owner has named a file for it.
    known = endpoint in BFL_MODELS or endpoint in service.settings.models
    if request.method != "POST":
        return answer_json(405 if known else 404, {"detail": "Not Found"})
    key = service.identify(secret)
    if not known:
        return answer_json(404, {"detail": "Not Found"})
    return await _submit(service, key, request, endpoint)


def _answer_refusal(refusal: Refusal) -> Answer:
    if refusal.status == 401:
        return answer_json(
            403, {"detail": "Not authenticated" if "needed" in refusal.message else "Invalid API key"}
        )
    if refusal.status == 400 and refusal.parameter:
        detail = {"loc": ["body", refusal.parameter], "msg": refusal.message, "type": "value_error"}
        return answer_json(422, {"detail": [detail]})
    return answer_json(refusal.status, {"detail": refusal.message})


async def _submit(service: Service, key: ApiKey, request: Request, endpoint: str) -> Answer:
    body = read_json(request.body)
    if not isinstance(body, dict):
        raise Refusal(400, "invalidRequest", "The body must be an object.", "prompt")
    given = {name: value for name, value in body.items() if value is not None}
    if given.get("prompt_upsampling") is False:
        del given[
            "prompt_upsampling"
        ]  # of BFL's other models; their client sends it to each, and asks nothing
    for name in given:
        if name not in _FIELDS:
            raise Refusal(400, "unsupportedParameter", "Extra inputs are not permitted", name[:80])
    prompt = given.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > MAX_PROMPT:
        raise Refusal(
            400, "invalidPrompt", f"Input should be a text of 1 to {MAX_PROMPT} characters", "prompt"
        )
    size = {name: _read_side(given, name) for name in ("width", "height")}
    tolerance = given.get("safety_tolerance", 2)
    if not _is_whole(tolerance) or not MIN_TOLERANCE <= tolerance <= MAX_TOLERANCE:
        raise Refusal(400, "invalidSafetyTolerance", "Input should be between 0 and 5", "safety_tolerance")
    form = given.get("output_format", "jpeg")
    if form not in _FORMS:
        raise Refusal(400, "invalidOutputFormat", "Input should be 'jpeg', 'png' or 'webp'", "output_format")
    seed = given.get("seed")
    if seed is not None and (not _is_whole(seed) or not 0 <= seed < 2**63):
        raise Refusal(400, "invalidSeed", "Input should be a whole number from 0 on", "seed")
    webhook = service.check_address(given["webhook_url"], "webhook_url") if "webhook_url" in given else ""
    webhook_secret = given.get("webhook_secret", "")
    if not isinstance(webhook_secret, str) or len(webhook_secret) > 1000 or not webhook_secret.isprintable():
        raise Refusal(400, "invalidWebhookSecret", "Input should be a text", "webhook_secret")
    names = [name for name in IMAGE_INPUTS if name in given]
    kind = BFL_MODELS.get(endpoint) or kind_of(service.settings.models[endpoint]) or DEFAULT_KIND
    model = service.choose_model(endpoint, [kind])
    pictures = [await service.read_picture(key, given[name], name) for name in names]
    sizes = [check_picture(data, name) for data, name in zip(pictures, names, strict=True)]
    width, height = _choose_size(size["width"], size["height"], sizes)
    references = await service.keep_references(pictures, model.stand_in)
    drawing = Drawing(
        prompt, "", width, height, model.find_canvas(width, height), model.steps, model.guidance, 0,
        model.file, model.variant, references=references, stand_in=model.stand_in,
    )  # fmt: skip
    pixels = sum(across * down for across, down in sizes)
    terms = Terms(
        form=_FORMS[form], webhook=webhook, secret=webhook_secret, base=request.base, prompt=prompt,
        model=endpoint, stand_in=model.stand_in, input_megapixels=round(pixels / 1e6, 2),
    )  # fmt: skip
    task = request.headers.get("idempotency-key", "")[:200] or str(uuid.uuid4())
    job, _ = service.accept(
        key, f"bfl {task}", NAME, [endpoint, body], terms, drawing,
        service.draw_seed() if seed is None else seed, 1,
    )  # fmt: skip
    told = {
        "id": job.id,
        "cost": round(service.settings.picture_usd / _CREDIT_USD, 4),
        "input_mp": terms.input_megapixels,
        "output_mp": round(width * height / 1e6, 2),
    }
    if webhook:
        told |= {"status": "Pending", "webhook_url": webhook}
    # Also with a webhook: a client that lost its call can still ask.
    # An address without a host: only that one ComfyUI's node asks with its key.
    place = PROXY if request.path.startswith(PROXY) else f"{service.address(request.base)}/bfl/v1/"
    told["polling_url"] = f"{place}get_result?id={job.id}"
    headers = {"X-Kleinod-Model": "klein-nano stands in"} if model.stand_in else {}
    return answer_json(200, told, headers)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_side(given: Mapping[str, Any], name: str) -> int:
    """0 is the document's own default and means that it was left out."""
    value = given.get(name, 0)
    if not _is_whole(value) or (value != 0 and not MIN_SIDE <= value <= MAX_SIZE):
        raise Refusal(400, f"invalid{name.title()}", f"Input should be from {MIN_SIDE} to {MAX_SIZE}", name)
    return int(value)


def _choose_size(width: int, height: int, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """What is left out follows the first input image, or is 1024."""
    if not width and not height and sizes:
        across, down = sizes[0]
        scale = min(1.0, (MAX_PIXELS / (across * down)) ** 0.5, MAX_SIZE / max(across, down))
        return tuple(max(MIN_SIDE, int(side * scale) // CELL * CELL) for side in (across, down))  # type: ignore[return-value]
    return width or DEFAULT_SIZE, height or DEFAULT_SIZE


def _poll(service: Service, key: ApiKey, request: Request) -> Answer:
    job_id = request.query.get("id", "")
    # Also by the key that made it idempotent: a client whose answer was lost knows no other id.
    job = (
        (service.book.read_job(job_id) or service.book.find_job(key.id, f"bfl {job_id}")) if job_id else None
    )
    if job is None or job.key_id != key.id or job.dialect != NAME:
        return answer_json(404, {"id": job_id[:80], "status": "Task not found", "result": None})
    picture = service.book.pictures(job.id)[0]
    return answer_json(200, describe(service, job, picture, request.base) | {"id": job_id})


def describe(service: Service, job: Job, picture: Picture, base: str) -> dict[str, Any]:
    """A job as BFL's ResultResponse."""
    told: dict[str, Any] = {
        "id": job.id, "status": _STATUSES[picture.state], "result": None, "progress": None, "details": None,
        "preview": None,
    }  # fmt: skip
    if not is_ready(picture):
        return told | {"progress": round(service.progress([picture]), 3)}
    if not picture.file:
        words = picture.error or "The result is past its time and was deleted."
        return told | {"status": "Error", "details": {"error": words}}
    terms = Terms.from_json(job.terms)
    result = {
        "sample": service.make_link(picture, base, LINK_SECONDS),
        "prompt": terms.prompt,
        "seed": picture.seed,
        "start_time": (picture.finished or 0) - picture.seconds,
        "end_time": picture.finished,
        "duration": picture.seconds,
    }
    return told | {"result": result, "progress": 1.0}


def make_message(service: Service, job: Job, picture: Picture) -> tuple[bytes, dict[str, str]]:
    """A webhook's call, signed in both of the ways that BFL's documents name."""
    terms = Terms.from_json(job.terms)
    body = json.dumps({"task_id": job.id, **describe(service, job, picture, terms.base)}).encode()
    headers = {"Content-Type": "application/json"}
    if terms.secret:
        seal = hmac.new(terms.secret.encode(), body, hashlib.sha256).hexdigest()
        headers |= {"X-Webhook-Secret": terms.secret, "X-BFL-Signature": f"sha256={seal}"}
    return body, headers
