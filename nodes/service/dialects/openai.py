"""OpenAI's images API: generations, edits with pictures, and the list of models.

A field is refused where it would have no effect here, so that nobody waits for one. `quality` chooses the
acceleration of models with many steps; pictures of an edit become references. With a mask, Klein Inpaint
paints the first of them where the mask is transparent, and the rest of it stays.
"""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ...base.flux2 import CELL, MAX_SIZE, MIN_SIZE
from ..access import ApiKey
from ..book import Job, Picture
from ..drawing import Drawing
from ..messages import Answer, Refusal, Request, answer_json, read_json
from ..models import OPENAI_MODELS, OPENAI_OWN, RUNWARE_MODELS, Kind, list_preferred
from ..picture_data import check_picture, has_transparency
from ..service import Service
from ..terms import Terms
from .multipart import read_form

NAME = "openai"
MAX_RESULTS = 10
MAX_PROMPT = 32000
MAX_PICTURES = 10
DEFAULT_MODEL = "gpt-image-1"
_FORMS = {"png": "PNG", "jpeg": "JPG", "webp": "WEBP"}
_LEVELS = {
    "auto": "high", "low": "high", "medium": "medium", "high": "none", "standard": "high", "hd": "none",
}  # fmt: skip
_SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")
_FIELDS = {
    "prompt", "model", "n", "size", "quality", "response_format", "output_format", "output_compression",
    "user", "background", "moderation", "seed",
}  # fmt: skip
# Their only value that asks for nothing this server cannot do.
_PLAIN = {"background": ("auto", "opaque"), "moderation": ("auto", "low")}


async def answer(service: Service, request: Request) -> Answer:
    try:
        return await _answer(service, request)
    except Refusal as refusal:
        return _answer_refusal(refusal)


async def _answer(service: Service, request: Request) -> Answer:
    path = request.path.removeprefix("/openai/v1")
    secret = request.headers.get("authorization", "").partition(" ")[2].strip()
    key = service.identify(secret)
    if request.method == "GET" and path == "/models":
        return answer_json(
            200, {"object": "list", "data": [_describe_model(name) for name in list_models(service)]}
        )
    if request.method == "GET" and path.startswith("/models/"):
        name = path.removeprefix("/models/")
        if name not in list_models(service):
            raise Refusal(404, "unknownModel", f"The model '{name[:80]}' does not exist.", "model")
        return answer_json(200, _describe_model(name))
    if request.method == "POST" and path == "/images/generations":
        body = read_json(request.body)
        if not isinstance(body, dict):
            raise Refusal(400, "invalidRequest", "The body must be an object.")
        return await _draw(service, key, request, body, [])
    if request.method == "POST" and path == "/images/edits":
        return await _edit(service, key, request)
    raise Refusal(404, "notFound", f"Unknown request URL: {request.method} {request.path[:120]}.")


def _answer_refusal(refusal: Refusal) -> Answer:
    kinds = {401: "invalid_request_error", 429: "requests", 402: "insufficient_quota", 500: "server_error"}
    codes = {
        "invalidApiKey": "invalid_api_key", "missingApiKey": "invalid_api_key",
        "unknownModel": "model_not_found", "rateLimitExceeded": "rate_limit_exceeded",
        "insufficientCredits": "insufficient_quota", "unsupportedParameter": "unknown_parameter",
    }  # fmt: skip
    status = {"unknownModel": 404, "insufficientCredits": 429}.get(refusal.code, refusal.status)
    error = {
        "message": refusal.message,
        "type": kinds.get(refusal.status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": refusal.parameter or None,
        "code": codes.get(refusal.code, "invalid_value" if refusal.parameter else None),
    }
    return answer_json(status, {"error": error})


def list_models(service: Service) -> list[str]:
    """Names for which there is something to draw with."""
    names = []
    for name in (*OPENAI_MODELS, *RUNWARE_MODELS, *OPENAI_OWN):
        try:
            service.choose_model(name, find_kinds(name))
        except Refusal:
            continue
        names.append(name)
    return names


def find_kinds(name: str) -> list[Kind]:
    """What a name may mean, the best first. Raises Refusal."""
    if name in OPENAI_OWN:
        return list(list_preferred())
    kind = OPENAI_MODELS.get(name) or RUNWARE_MODELS.get(name)
    if kind is None:
        raise Refusal(404, "unknownModel", f"The model '{name[:80]}' does not exist.", "model")
    return [kind]


def _describe_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1768435200, "owned_by": "kleinod"}


async def _edit(service: Service, key: ApiKey, request: Request) -> Answer:
    """Pictures come as files of a form, or in JSON as addresses."""
    body: dict[str, Any] = {}
    pictures: list[bytes] = []
    mask: bytes | None = None
    for part in read_form(request.headers.get("content-type", ""), request.body):
        if part.name in ("image", "image[]"):
            pictures.append(part.data)
        elif part.name == "mask":
            mask = part.data
        elif part.file:
            raise Refusal(
                400, "unsupportedParameter", f"Unknown parameter: '{part.name[:80]}'.", part.name[:80]
            )
        else:
            body[part.name] = _read_text(part.name, part.data)
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise Refusal(400, "invalidImage", f"An edit takes 1 to {MAX_PICTURES} pictures in 'image'.", "image")
    if mask is not None and check_picture(mask, "mask") != check_picture(pictures[0], "image"):
        raise Refusal(400, "invalidMask", "'mask' must be as large as the first picture of 'image'.", "mask")
    if mask is not None and not has_transparency(mask):
        raise Refusal(400, "invalidMask", "'mask' has no transparent part, so nothing would change.", "mask")
    return await _draw(service, key, request, body, pictures, mask)


def _read_text(name: str, data: bytes) -> Any:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "invalidRequest", f"'{name[:80]}' is not UTF-8.", name[:80]) from None
    return (
        int(text) if name in ("n", "output_compression", "seed") and re.fullmatch(r"\d{1,18}", text) else text
    )


async def _draw(
    service: Service,
    key: ApiKey,
    request: Request,
    body: dict[str, Any],
    pictures: list[bytes],
    mask: bytes | None = None,
) -> Answer:
    given = {name: value for name, value in body.items() if value is not None}
    _check_fields(given)
    name = given.get("model", DEFAULT_MODEL)
    own = name in OPENAI_OWN
    kinds = find_kinds(name)
    model = service.choose_model(name, kinds)
    sizes = [check_picture(data, "image") for data in pictures]
    size = given.get("size", "auto")
    # Where only a part is painted, the rest stays as it is, and so does the size.
    width, height = sizes[0] if mask is not None and size == "auto" else _read_size(size, sizes)
    count = given.get("n", 1)
    # Their newer models always answer with the picture itself, the older ones with an address.
    plain = "b64_json" if own and name.startswith(("gpt", "chatgpt")) else "url"
    kind = given.get("response_format", plain)
    form = _FORMS[given.get("output_format", "png")]
    level = "none" if model.variant == "distilled" else _LEVELS[given.get("quality", "auto")]
    references = await service.keep_references(pictures, model.stand_in)
    masks = await service.keep_references([] if mask is None else [mask], stand_in=False)
    drawing = Drawing(
        given["prompt"], "", width, height, model.find_canvas(width, height), model.steps, model.guidance, 0,
        model.file, model.variant, level=level, references=references, mask="".join(masks),
        stand_in=model.stand_in,
    )  # fmt: skip
    terms = Terms(
        form=form, quality=given.get("output_compression", 95), kind=kind, base=request.base, model=name,
        stand_in=model.stand_in,
    )  # fmt: skip
    task = request.headers.get("idempotency-key", "")[:200] or str(uuid.uuid4())
    seed = given.get("seed")
    job, _ = service.accept(
        key, f"openai {task}", NAME, [body, references, masks], terms, drawing,
        service.draw_seed() if seed is None else seed, count,
    )  # fmt: skip
    ready = await service.wait_for_all(job.id)
    headers = {"X-Kleinod-Model": "klein-nano stands in"} if model.stand_in else {}
    return _tell(service, job, ready, request.base, headers)


def _check_fields(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in _FIELDS:
            raise Refusal(400, "unsupportedParameter", f"Unknown parameter: '{name[:80]}'.", name[:80])
    for name in ("prompt", "model", "size", "quality", "response_format", "output_format", "user"):
        if name in given and not isinstance(given[name], str):
            raise Refusal(400, "invalidValue", f"'{name}' must be a text.", name)
    prompt = given.get("prompt")
    if prompt is None:
        raise Refusal(400, "missingPrompt", "Missing required parameter: 'prompt'.", "prompt")
    if not prompt.strip() or len(prompt) > MAX_PROMPT:
        raise Refusal(400, "invalidPrompt", f"'prompt' must have 1 to {MAX_PROMPT} characters.", "prompt")
    for name, low, high in (("n", 1, MAX_RESULTS), ("output_compression", 0, 100), ("seed", 0, 2**63 - 1)):
        value = given.get(name, low)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Refusal(400, "invalidValue", f"'{name}' must be a whole number from {low} to {high}.", name)
    choices = {
        "quality": tuple(_LEVELS), "response_format": ("url", "b64_json"), "output_format": tuple(_FORMS),
        **_PLAIN,
    }  # fmt: skip
    for name, allowed in choices.items():
        if name in given and given[name] not in allowed:
            raise Refusal(400, "invalidValue", f"'{name}' must be one of: {', '.join(allowed)}.", name)
    if "output_compression" in given and given.get("output_format", "png") == "png":
        raise Refusal(
            400,
            "invalidValue",
            "'output_compression' needs output_format jpeg or webp.",
            "output_compression",
        )


def _read_size(text: str, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """auto follows the first picture of an edit, or is 1024 x 1024."""
    if text == "auto":
        if not sizes:
            return 1024, 1024
        across, down = sizes[0]
        scale = min(1.0, 1536 / max(across, down))
        return tuple(  # type: ignore[return-value]
            min(MAX_SIZE, max(MIN_SIZE, round(side * scale) // CELL * CELL)) for side in (across, down)
        )
    found = _SIZE.fullmatch(text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(MIN_SIZE <= side <= MAX_SIZE and side % 8 == 0 for side in (width, height)):
        raise Refusal(
            400, "invalidSize",
            f"'size' must be auto or WIDTHxHEIGHT, both from {MIN_SIZE} to {MAX_SIZE} and multiples of 8.",
            "size",
        )  # fmt: skip
    return width, height


def _tell(service: Service, job: Job, ready: list[Picture], base: str, headers: Mapping[str, str]) -> Answer:
    terms = Terms.from_json(job.terms)
    data = []
    for picture in ready:
        if not picture.file:
            # As theirs: one that failed fails the request.
            raise Refusal(500, picture.error_code or "resultExpired", picture.error or "The result is gone.")
        if terms.kind == "url":
            data.append({"url": service.make_link(picture, base, service.settings.keep_seconds)})
        else:
            content = service.result_bytes(picture)
            if content is None:
                raise Refusal(500, "resultExpired", "The result is gone.")
            data.append({"b64_json": base64.b64encode(content).decode()})
    return answer_json(200, {"created": int(time.time()), "data": data}, headers)


def make_message(service: Service, job: Job, picture: Picture) -> tuple[bytes, dict[str, str]]:
    return b"{}", {}  # this API knows no webhooks
