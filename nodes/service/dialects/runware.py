"""Runware's task API: `imageInference` of its FLUX.2 [klein] models and the tasks around it.

Follows Runware's document of runware:400@5: every field of it acts, and a field it does not have is refused.
Codes and shapes of errors are those its own clients know.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...acceleration.settings import make_acceleration
from ...base.acceleration import ACCELERATION_FIELDS, API_LEVELS, LOWER_REUSES_MORE
from ...base.errors import InputError
from ...base.fields import Field
from ...base.flux2 import DEFAULT_STEPS, MIN_GUIDANCE
from ...base.values import FACE_FIELDS, LORA_STAGES, LORA_WEIGHT, FaceRefinement, LoraRow
from ...faces.presets import CUSTOM
from ...loras.rows import format_row
from ...remote.services import runware as document
from ..access import ApiKey
from ..book import Job, Picture
from ..drawing import Drawing
from ..messages import Answer, Refusal, Request, answer_json, read_json
from ..models import RUNWARE_MODELS, Model
from ..picture_data import MIME
from ..service import MEDIA_SECONDS, Service, is_ready
from ..terms import Terms

NAME = "runware"
INFERENCE = "imageInference"
DEFAULT_GUIDANCE = 3.5
MAX_TASKS = 64
STAND_IN_HEADER = "X-Kleinod-Model"
NANO_DETECTOR_WORD = "klein-nano"
_UUID4 = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}")
_AIR = re.compile(r"[\w.-]{1,80}(:[\w.-]{1,80}@[\w.-]{1,80})?|[\w ./-]{1,200}")
_ROWS = {
    row.api: row for row in (*document.FIELDS, *document.ADVANCED_FIELDS, *document.OPTION_FIELDS) if row.api
}
_KINDS: dict[type, tuple[Any, str]] = {
    int: ((int, float), "a whole number"),
    float: ((int, float), "a number"),
    bool: (bool, "true or false"),
    str: (str, "text"),
}


def answer_error(refusal: Refusal, task: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One item of `errors`."""
    task = task or {}
    item: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.parameter:
        item["parameter"] = refusal.parameter
    for name in ("taskType", "taskUUID"):
        if isinstance(task.get(name), str):
            item[name] = task[name]
    return item | {"documentation": "https://runware.ai/docs/platform/errors"}


async def answer(service: Service, request: Request) -> Answer:
    """POST of an array of tasks."""
    headers: dict[str, str] = {}
    try:
        tasks = read_tasks(request.body)
        secret = read_secret(request.headers)
        if tasks and tasks[0].get("taskType") == "authentication":
            secret = secret or str(tasks[0].get("apiKey") or "")
            tasks = tasks[1:]
        key = service.identify(secret)
    except Refusal as refusal:
        return answer_json(refusal.status, {"errors": [answer_error(refusal)]})
    status, data, errors = 200, [], []
    waiting: list[tuple[Mapping[str, Any], Job]] = []
    for task in tasks:
        try:
            done = await do_task(service, key, task, request.base)
        except Refusal as refusal:
            status = refusal.status
            errors.append(answer_error(refusal, task))
            continue
        data += done.data
        errors += done.errors
        headers |= done.headers
        if done.job is not None:
            waiting.append((task, done.job))
    for asked, job in waiting:
        try:
            ready = await service.wait_for_all(job.id)
        except Refusal as refusal:
            status = refusal.status
            errors.append(answer_error(refusal, asked))
            continue
        for picture in ready:
            add_picture(service, job, picture, request.base, data, errors, poll=False)
    body: dict[str, Any] = {"data": data} if data or not errors else {}
    if errors:
        body["errors"] = errors
        status = status if status != 200 else 500
    return answer_json(200 if data or not errors else status, body, headers)


def read_secret(headers: Mapping[str, str]) -> str:
    kind, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


def read_tasks(body: bytes) -> list[dict[str, Any]]:
    """The tasks of a body. Raises Refusal."""
    tasks = read_json(body)
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise Refusal(400, "invalidRequest", "The body must be an array of tasks, each an object.")
    if len(tasks) > MAX_TASKS:
        raise Refusal(
            400, "maxTasksExceeded", f"{len(tasks)} tasks were sent, but at most {MAX_TASKS} may be."
        )
    return tasks


@dataclass
class Done:
    """What became of a task. job: one whose pictures are still to be waited for."""

    data: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    headers: dict[str, str]
    job: Job | None = None


async def do_task(service: Service, key: ApiKey, task: dict[str, Any], base: str) -> Done:
    kind = task.get("taskType")
    if kind == INFERENCE:
        return await _infer(service, key, task, base)
    if kind == "ping":
        return Done([{"taskType": "ping", "pong": True}], [], {})
    if kind == "getResponse":
        return _poll(service, key, task, base)
    if kind == "getTaskDetails":
        return _archive(service, key, task, base)
    if kind == "accountManagement":
        return Done([_account(service, key, task)], [], {})
    if kind in ("imageUpload", "mediaStorage"):
        return Done([await _store(service, key, task, base)], [], {})
    raise Refusal(400, "invalidTaskType", f"'{str(kind)[:60]}' is no task this server does.", "taskType")


# --- imageInference


async def _infer(service: Service, key: ApiKey, task: dict[str, Any], base: str) -> Done:
    task_id = _read_task_id(task)
    given = dict(task)
    plan = read_inference(service, given, base)
    headers = {STAND_IN_HEADER: "klein-nano stands in"} if plan.model.stand_in else {}
    identity = {"taskType": INFERENCE, "taskUUID": task_id}
    body = {name: value for name, value in task.items() if name not in ("taskUUID", "deliveryMethod")}
    pictures = [
        await service.read_picture(key, text, f"inputs.referenceImages[{number}]")
        for number, text in enumerate(plan.references)
    ]
    references = await service.keep_references(pictures, plan.model.stand_in)
    drawing = Drawing(**{**plan.drawing, "references": references})
    job, _ = service.accept(key, task_id, NAME, body, plan.terms, drawing, plan.seed, plan.count)
    return Done([identity], [], headers) if plan.is_async else Done([], [], headers, job)


@dataclass(frozen=True)
class Plan:
    """A request that was read: everything of a Drawing but its references."""

    drawing: dict[str, Any]
    model: Model
    references: list[str]
    terms: Terms
    seed: int
    count: int
    is_async: bool


def read_inference(service: Service, task: dict[str, Any], base: str) -> Plan:
    """Every field of a request, each checked before anything is fetched or queued. Raises Refusal."""
    for name in ("taskType", "taskUUID"):
        task.pop(name, None)
    for name in ("model", "positivePrompt", "width", "height"):
        if task.get(name) is None:
            raise Refusal(400, f"missing{_capital(name)}", f"'{name}' is required.", name)
    groups = {name: _take_object(task, name) for name in ("safety", "settings", "inputs", "advancedFeatures")}
    options = _take_object(task, "acceleratorOptions")
    loras = _read_loras(service, task.pop("lora", None))
    given = {
        name: _check(_ROWS[name], task.pop(name), name)
        for name in list(task)
        if name in _ROWS and "." not in name and task[name] is not None
    }
    given |= _take_rows(groups["safety"], ("safety.checkContent", "safety.mode"))
    given |= _take_rows(groups["settings"], ("settings.trueCFGScale",))
    references = _read_references(groups["inputs"])
    faces = _take_object(groups["advancedFeatures"], "ultralytics", "advancedFeatures.ultralytics", None)
    for name in [name for name, value in task.items() if value is None]:
        task.pop(name)
    left = [*task, *(f"{name}.{key}" for name, group in groups.items() for key in group)]
    if left:
        raise Refusal(
            400, "unsupportedParameter", f"'{left[0][:80]}' is not a parameter of this task.", left[0][:80]
        )
    _check_texts(given)
    steps = given.get("steps", DEFAULT_STEPS)
    name = given["model"]
    if name not in RUNWARE_MODELS:
        raise Refusal(
            400, "unknownModel",
            f"The model '{name[:80]}' is not known here: this server draws {', '.join(RUNWARE_MODELS)}.",
            "model",
        )  # fmt: skip
    level = given.get("acceleration", API_LEVELS[-1])
    acceleration = _read_acceleration(options, level, steps)
    features = None if faces is None else _read_faces(faces)
    # "When enabled, defaults to fast mode": there is one way to look here, and its name says to look.
    check = given.get("safety.checkContent", given.get("safety.mode", "none") != "none")
    if check and not service.settings.classifier:
        raise Refusal(
            400, "unsupportedParameter",
            "'safety.checkContent' cannot be done: this server has no classifier. Leave it out, or have its "
            "owner name one under Settings > Kleinod > API that answers.",
            "safety.checkContent",
        )  # fmt: skip
    terms = _read_terms(service, given, base)
    model = service.choose_model(name, [RUNWARE_MODELS[name]])
    if model.variant == "distilled" and "steps" not in given:
        steps = model.steps
    guidance = given.get("settings.trueCFGScale") or given.get("CFGScale")
    if guidance is None:
        guidance = 1.0 if model.variant == "distilled" else DEFAULT_GUIDANCE
    canvas = model.find_canvas(given["width"], given["height"])
    drawing = {
        "prompt": given["positivePrompt"],
        "negative": given.get("negativePrompt", ""),
        "width": given["width"],
        "height": given["height"],
        "canvas": canvas,
        "steps": steps,
        "guidance": float(guidance),
        "seed": 0,
        "model": model.file,
        "variant": model.variant,
        "scheduler": given.get("scheduler", "Default"),
        "level": level,
        "acceleration": acceleration,
        "loras": loras,
        "faces": features,
        "detector": _choose_detector(service, model) if features is not None else "",
        "stand_in": model.stand_in,
    }
    seed = given.get("seed")
    terms = Terms(**{**vars(terms), "model": name, "stand_in": model.stand_in, "check": check})
    return Plan(
        drawing, model, references, terms, service.draw_seed() if seed is None else int(seed),
        given.get("numberResults", 1), given.get("deliveryMethod", "sync") == "async",
    )  # fmt: skip


def _read_task_id(task: Mapping[str, Any]) -> str:
    task_id = task.get("taskUUID")
    if task_id is None:
        raise Refusal(400, "missingTaskUUID", "'taskUUID' is required.", "taskUUID")
    if not isinstance(task_id, str) or not _UUID4.fullmatch(task_id):
        raise Refusal(400, "invalidTaskUUID", "'taskUUID' must be a UUID v4.", "taskUUID")
    return task_id


def _capital(name: str) -> str:
    last = name.rsplit(".", 1)[-1]
    return last[:1].upper() + last[1:]


def _invalid(name: str, words: str) -> Refusal:
    return Refusal(400, f"invalid{_capital(name)}", words, name)


def _take_object(holder: dict[str, Any], key: str, name: str = "", absent: Any = {}) -> Any:  # noqa: B006
    value = holder.pop(key, None)
    if value is None:
        return None if absent is None else {}
    if not isinstance(value, dict):
        raise _invalid(name or key, f"'{name or key}' must be an object.")
    return dict(value)


def _take_rows(group: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        value = group.pop(name.partition(".")[2], None)
        if value is not None:
            found[name] = _check(_ROWS[name], value, name)
    return found


def _check(row: Field, value: Any, name: str) -> Any:
    """`value` as the field keeps it. Raises Refusal naming the request's own field."""
    if name == "scheduler":
        value = document.read_scheduler(value)
    wanted, words = _KINDS[row.type]
    if not isinstance(value, wanted) or isinstance(value, bool) != (row.type is bool):
        raise Refusal(400, "invalidParameterType", f"'{name}' must be {words}.", name)
    if name == "seed":
        if not 0 <= value <= document.MAX_LARGE_SEED or value != int(value):
            raise _invalid(name, f"'seed' must be a whole number from 0 to {document.MAX_LARGE_SEED}.")
        return int(value)
    low = {"ttl": document.MIN_TTL, "settings.trueCFGScale": MIN_GUIDANCE}.get(name)
    if low is not None and value < low:
        raise _invalid(name, f"'{name}' is {value}, but must be {low:g} or more.")
    try:
        row.check(value, name)
        if name in ("CFGScale", "settings.trueCFGScale"):
            row.check_step(value, name)
    except InputError as error:
        raise _invalid(name, str(error)) from None
    return int(value) if row.type is int else value


def _check_texts(given: Mapping[str, Any]) -> None:
    for name in ("positivePrompt", "negativePrompt"):
        text = given.get(name)
        if text is not None and not (text.strip() and len(text) <= document.MAX_PROMPT):
            raise _invalid(name, f"'{name}' must have 1 to {document.MAX_PROMPT} characters.")


def _read_loras(service: Service, entries: Any) -> str:
    """Rows of Klein LoRA Stack."""
    if entries is None:
        return ""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _invalid("lora", "'lora' must be an array of objects.")
    rows = []
    for number, entry in enumerate(entries):
        where = f"lora[{number}]"
        left = set(entry) - {"model", "weight", "transformer"}
        if left:
            name = f"{where}.{min(left)[:60]}"
            raise Refusal(400, "unsupportedParameter", f"'{name}' is not a parameter of a LoRA.", name)
        model = entry.get("model")
        if not isinstance(model, str) or not _AIR.fullmatch(model):
            raise Refusal(
                400, "invalidLoraModel", f"'{where}.model' must be the AIR id of a LoRA.", f"{where}.model"
            )
        weight = entry.get("weight")
        weight = 1.0 if weight is None else weight
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise Refusal(
                400, "invalidParameterType", f"'{where}.weight' must be a number.", f"{where}.weight"
            )
        stage = entry.get("transformer") or "both"
        if stage not in LORA_STAGES:
            raise Refusal(
                400, "invalidLoraTransformer", f"'{where}.transformer' must be high, low or both.",
                f"{where}.transformer",
            )  # fmt: skip
        try:
            LORA_WEIGHT.check(weight, f"{where}.weight")
            LORA_WEIGHT.check_step(weight, f"{where}.weight")
        except InputError as error:
            raise Refusal(400, "invalidLoraWeight", str(error), f"{where}.weight") from None
        rows.append(format_row(LoraRow(service.find_lora(model, f"{where}.model"), float(weight), stage)))
    return "\n".join(rows)


def _read_references(group: dict[str, Any]) -> list[str]:
    given = group.pop("referenceImages", None)
    name = "inputs.referenceImages"
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(entry, str) and entry for entry in given):
        raise _invalid(name, f"'{name}' must be an array of texts: addresses, UUIDs, data URIs or base64.")
    if len(given) > document.MAX_REFERENCES:
        raise _invalid(
            name, f"'{name}' holds {len(given)} pictures, and at most {document.MAX_REFERENCES} may be."
        )
    return given


def _take_fields(group: dict[str, Any], fields: Iterable[Field], where: str) -> dict[str, Any]:
    """Values by our names, taken out of a group of the request. Raises Refusal for what is none of them."""
    given = {}
    for row in fields:
        value = group.pop(row.api, None) if row.api else None
        if value is not None:
            given[row.name] = _check(row, value, f"{where}.{row.api}")
    if group:
        name = f"{where}.{min(group)[:60]}"
        raise Refusal(400, "unsupportedParameter", f"'{name}' is not a parameter of this task.", name)
    return given


def _read_acceleration(options: dict[str, Any], level: str, steps: int) -> dict[str, Any] | None:
    """Widgets of Klein Acceleration, None where nothing of them is set."""
    given = _take_fields(options, ACCELERATION_FIELDS, "acceleratorOptions")
    end = given.get("cache_end_step")
    if end is not None and end > steps:
        raise _invalid(
            "acceleratorOptions.cacheEndStep", f"'cacheEndStep' is {end}, but there are {steps} steps."
        )
    if not given:
        return None
    defaults = {row.name: row.widget_default for row in ACCELERATION_FIELDS}
    widgets = {**defaults, **given, "threshold_meaning": LOWER_REUSES_MORE, "acceleration": level}
    try:
        make_acceleration(**widgets)
    except InputError as error:
        raise Refusal(400, "conflictAcceleratorOptions", str(error), "acceleratorOptions") from None
    return widgets


def _read_faces(group: dict[str, Any]) -> dict[str, Any]:
    """Widgets of Klein Face Settings."""
    given = _take_fields(group, FACE_FIELDS, "advancedFeatures.ultralytics")
    values = {row.name: row.default for row in FACE_FIELDS} | given
    FaceRefinement(**values)
    return {"preset": CUSTOM, **values}


def _choose_detector(service: Service, model: Model) -> str:
    names = service.machine.detectors()
    own = [name for name in names if NANO_DETECTOR_WORD in name]
    return own[0] if model.stand_in and own else names[0]


def _read_terms(service: Service, given: Mapping[str, Any], base: str) -> Terms:
    kind = given.get("outputType", "URL")
    if "ttl" in given and kind != "URL":
        raise _invalid("ttl", "'ttl' only applies when outputType is URL.")
    addresses = {
        name: service.check_address(given[name], name) if name in given else ""
        for name in ("webhookURL", "uploadEndpoint")
    }
    return Terms(
        form=given.get("outputFormat", "JPG"), quality=given.get("outputQuality", 95), kind=kind,
        ttl=given.get("ttl", 0), webhook=addresses["webhookURL"], upload=addresses["uploadEndpoint"],
        cost=given.get("includeCost", False), base=base,
    )  # fmt: skip


# --- What is told of a job


def add_picture(
    service: Service, job: Job, picture: Picture, base: str, data: list[dict[str, Any]],
    errors: list[dict[str, Any]], poll: bool,
) -> None:  # fmt: skip
    """One picture that is over, among results or errors."""
    task = {"taskType": INFERENCE, "taskUUID": job.task}
    status = {"status": "error"} if poll else {}
    if picture.error_code:
        errors.append(answer_error(Refusal(500, picture.error_code, picture.error), task) | status)
    if not picture.file:
        if not picture.error_code:
            words = "The result is past its time and was deleted."
            errors.append(answer_error(Refusal(404, "resultExpired", words), task) | status)
        return
    item = describe_picture(service, job, picture, base)
    if item is not None:
        data.append(item | ({"status": "success"} if poll else {}))


def describe_picture(service: Service, job: Job, picture: Picture, base: str) -> dict[str, Any] | None:
    """A result as Runware tells it; None where its file has just gone."""
    terms = Terms.from_json(job.terms)
    item: dict[str, Any] = {
        "taskType": INFERENCE, "taskUUID": job.task, "imageUUID": picture.id, "seed": picture.seed,
    }  # fmt: skip
    if terms.kind == "URL":
        item["imageURL"] = service.make_link(picture, base, terms.ttl or service.settings.keep_seconds)
    else:
        content = service.result_bytes(picture)
        if content is None:
            return None
        text = base64.b64encode(content).decode()
        if terms.kind == "base64Data":
            item["imageBase64Data"] = text
        else:
            item["imageDataURI"] = f"data:{MIME[terms.form]};base64,{text}"
    if terms.check:
        item["NSFWContent"] = picture.flagged
    if terms.cost:
        item["cost"] = service.cost(picture)
    if worker := service.name_worker(picture):
        item["worker"] = worker
    return item


def _poll(service: Service, key: ApiKey, task: Mapping[str, Any], base: str) -> Done:
    task_id = _read_task_id(task)
    job = service.book.find_job(key.id, task_id)
    if job is None or job.dialect != NAME:
        return Done([], [], {})
    data: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    pictures = service.book.pictures(job.id)
    for picture in pictures:
        if is_ready(picture):
            add_picture(service, job, picture, base, data, errors, poll=True)
    if not all(map(is_ready, pictures)):
        share = int(100 * service.progress(pictures))
        data.append({"taskType": INFERENCE, "taskUUID": task_id, "status": "processing", "progress": share})
    return Done(data, errors, {})


def _archive(service: Service, key: ApiKey, task: Mapping[str, Any], base: str) -> Done:
    task_id = _read_task_id(task)
    job = service.book.find_job(key.id, task_id)
    if job is None or job.dialect != NAME:
        raise Refusal(404, "taskFailedOrNotFound", "There is no such task.", "taskUUID")
    response: dict[str, Any] | None = None
    pictures = service.book.pictures(job.id)
    if all(map(is_ready, pictures)):
        data: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for picture in pictures:
            add_picture(service, job, picture, base, data, errors, poll=False)
        response = {"data": data} | ({"errors": errors} if errors else {})
    drawing = json.loads(pictures[0].drawing)
    asked = {
        "taskType": INFERENCE, "taskUUID": task_id, "model": Terms.from_json(job.terms).model,
        "positivePrompt": drawing["prompt"], "width": drawing["width"], "height": drawing["height"],
        "steps": drawing["steps"], "seed": pictures[0].seed, "numberResults": len(pictures),
    }  # fmt: skip
    item = {"taskType": "getTaskDetails", "taskUUID": task_id, "request": asked, "response": response}
    return Done([item], [], {})


def make_message(service: Service, job: Job, picture: Picture) -> tuple[bytes, dict[str, str]]:
    """A webhook's call for one picture."""
    data: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    add_picture(service, job, picture, Terms.from_json(job.terms).base, data, errors, poll=False)
    body = ({"data": data} if data else {}) | ({"errors": errors} if errors else {})
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


# --- The tasks around it


def _account(service: Service, key: ApiKey, task: Mapping[str, Any]) -> dict[str, Any]:
    if task.get("operation", "getDetails") != "getDetails":
        raise Refusal(400, "invalidOperation", "'operation' must be getDetails.", "operation")
    return {
        "taskType": "accountManagement",
        "taskUUID": str(task.get("taskUUID", "")),
        "operation": "getDetails",
        "organizationName": key.name,
        "balance": service.balance(key),
    }


async def _store(service: Service, key: ApiKey, task: Mapping[str, Any], base: str) -> dict[str, Any]:
    """imageUpload, and mediaStorage's upload and delete."""
    kind = str(task["taskType"])
    task_id = _read_task_id(task)
    identity = {"taskType": kind, "taskUUID": task_id}
    word = "image" if kind == "imageUpload" else "media"
    operation = task.get("operation", "upload") if kind == "mediaStorage" else "upload"
    if operation == "delete":
        media_id = str(task.get("mediaUUID") or task.get("media") or "")
        if not service.book.drop_media(key.id, media_id.lower()):
            raise Refusal(404, "mediaNotFound", "There is no such media.", "mediaUUID")
        return identity | {"operation": "delete", "mediaUUID": media_id}
    if operation != "upload":
        raise Refusal(400, "invalidOperation", "'operation' must be upload or delete.", "operation")
    data = await service.read_picture(key, task.get(word), word)
    file = (await service.keep_references([data], stand_in=False))[0]
    media_id = service.book.add_media(key.id, file, service.book.now() + MEDIA_SECONDS)
    link = service.make_media_link(media_id, base, file)
    return identity | {f"{word}UUID": media_id, f"{word}URL": link}
