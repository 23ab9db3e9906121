"""Black Forest Labs: the request of its klein endpoints from a node's settings, and what its answers mean.

Follows BFL's document of /v1/flux-2-klein-4b. That model is the distilled klein, so there are no steps, no
guidance and no negative prompt here; and there is no batch: each picture is one paid call. BFL gives a job
its id in the answer and knows no repetition, so after an unclear answer nothing is ever sent again without
the user asking for it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ...base.errors import InputError
from ...base.fields import Field
from ...base.flux2 import CELL, MAX_SEED
from ...base.sentences import say
from ..environment import read_variable
from ..fields import UPLOAD_FORMAT
from ..images import collect_frames, encode, split_frames
from ..job_request import JobRequest, RunContext, make_job_request
from ..retry import PollPace
from ..status import FAILURE, MODERATION, Failure, JobStatus, RemoteImage
from .base import (
    ACCEPTED,
    BALANCE,
    BUSY,
    GONE,
    INVALID,
    KEY,
    REDIRECT,
    UNCLEAR,
    Answer,
    HttpCall,
    Service,
    SubmitAnswer,
    check_webhook,
    describe_status,
    is_readable,
    read_cost,
    read_number,
    read_seed,
)

if TYPE_CHECKING:
    from ..ledger import Job

ENDPOINTS = ("flux-2-klein-4b", "flux-2-klein-9b", "flux-2-klein-9b-preview")
OUTPUT_FORMATS = ("png", "jpeg", "webp")
IMAGE_INPUTS = ("input_image", "input_image_2", "input_image_3", "input_image_4")
MIN_SIDE, MAX_SIDE = 64, 8192
MAX_PIXELS = 4 * 2**20
MIN_TOLERANCE, MAX_TOLERANCE = 0, 5
WEBHOOK_SECRET = "BFL_WEBHOOK_SECRET"
_CREDIT_USD = 0.01
# USD for the first output megapixel, and for each further one and each input image.
_PRICES = {
    "flux-2-klein-4b": (0.014, 0.001),
    "flux-2-klein-9b": (0.015, 0.002),
    "flux-2-klein-9b-preview": (0.015, 0.002),
}
_ID = re.compile(r'"id"\s*:\s*(?:"([^"\\]{1,200})"|(\d{1,40})(?=\s*[,}]))')
_POLLING_URL = re.compile(r'"polling_url"\s*:\s*"([^"\\]{1,2000})"')

FIELDS = (
    Field("prompt", None, "What the picture shows.", kind=str, multiline=True, api="prompt"),
    Field(
        "width", 0,
        "Width in pixels from 64 on, in steps of 16. 0 is not sent: BFL decides, or follows the first input "
        "image.",
        api="width", low=0, high=MAX_SIDE, multiple=CELL,
    ),
    Field(
        "height", 0, "Height in pixels from 64 on, in steps of 16. 0 is not sent.", api="height", low=0,
        high=MAX_SIDE, multiple=CELL,
    ),
    Field(
        "seed", 0, "The same seed and settings give the same picture, and are paid for once.", api="seed",
        low=0, high=MAX_SEED,
    ),
)  # fmt: skip
REGIONS = {"global": "https://api.bfl.ai", "eu": "https://api.eu.bfl.ai", "us": "https://api.us.bfl.ai"}
ADVANCED_FIELDS = (
    Field(
        "endpoint", ENDPOINTS[0], "Which klein: 4B is the fastest and cheapest, 9B the better.",
        choices=ENDPOINTS,
    ),
    Field(
        "safety_tolerance", 2, "How much moderation lets through: 0 is strict, 5 is lax.",
        api="safety_tolerance", low=MIN_TOLERANCE, high=MAX_TOLERANCE,
    ),
    Field(
        "output_format", "png", "png keeps every pixel; jpeg is BFL's own default.", api="output_format",
        choices=OUTPUT_FORMATS, optional=True, advanced=True,
    ),
    Field(
        "region", "global", "Which of BFL's hosts computes the picture.", choices=tuple(REGIONS),
        optional=True, advanced=True,
    ),
    Field(
        "webhook_url", "",
        "An https address BFL calls when the picture is done. Empty is not sent. Its secret comes from the "
        f"environment variable {WEBHOOK_SECRET}.",
        api="webhook_url", optional=True, advanced=True,
    ),
)  # fmt: skip
_REQUEST_FIELDS = (*FIELDS, *(row for row in ADVANCED_FIELDS if row.name != "region"))


@dataclass(frozen=True)
class BflRequest:
    """One submit. width, height 0: not sent, BFL decides. images: base64, in order, at most four."""

    prompt: str
    width: int = 0
    height: int = 0
    seed: int = 0
    endpoint: str = ENDPOINTS[0]
    safety_tolerance: int = 2
    output_format: str = "png"
    images: Sequence[str] = ()
    webhook_url: str = ""

    def __post_init__(self) -> None:
        for row in _REQUEST_FIELDS:
            row.check(getattr(self, row.name), row.name)
        if not self.prompt.strip():
            raise InputError(say("prompt is empty, and BFL needs one. Write what the picture shows."))
        for name in ("width", "height"):
            value = getattr(self, name)
            if 0 < value < MIN_SIDE:
                raise InputError(
                    say(
                        "%1 is %2, but must be 0 (BFL decides) or a multiple of %3 from %4 on.",
                        name,
                        value,
                        CELL,
                        MIN_SIDE,
                    )
                )
        if self.width * self.height > MAX_PIXELS:
            raise InputError(
                say("width x height is %1x%2, more than the 4 megapixels BFL makes.", self.width, self.height)
            )
        check_webhook("webhook_url", self.webhook_url)
        if len(self.images) > len(IMAGE_INPUTS):
            raise InputError(
                say(
                    "There are %1 input images, and BFL takes at most %2. "
                    "Connect fewer; each frame of a batch counts as one.",
                    len(self.images),
                    len(IMAGE_INPUTS),
                )
            )

    def to_body(self) -> dict[str, Any]:
        """The JSON body; only what is set."""
        body: dict[str, Any] = {
            "prompt": self.prompt,
            "seed": self.seed,
            "output_format": self.output_format,
            "safety_tolerance": self.safety_tolerance,
        }
        for name in ("width", "height"):
            if getattr(self, name):
                body[name] = getattr(self, name)
        body |= dict(zip(IMAGE_INPUTS, self.images, strict=False))
        return body | ({"webhook_url": self.webhook_url} if self.webhook_url else {})

    def estimate_usd(self) -> float:
        """BFL's list price, counting a megapixel for each input image."""
        first, further = _PRICES[self.endpoint]
        megapixels = (self.width or 1024) * (self.height or 1024) / 1e6
        return round(first + further * (max(0.0, megapixels - 1) + len(self.images)), 6)


class Bfl(Service):
    """BFL's submit-and-poll."""

    name = "bfl"
    title = "BFL"
    company = "Black Forest Labs"
    node_id = "KleinodBFL"
    key_variable = "BFL_API_KEY"
    address_variable = "KLEINOD_BFL_URL"
    key_page = "https://dashboard.bfl.ai"
    regions = REGIONS
    key_hosts = re.compile(r"api(\.[a-z]{2}\d?)?\.bfl\.(ai|ml)")
    picture_hosts = re.compile(
        r"([a-z0-9-]+\.)?delivery[a-z0-9-]*(\.[a-z0-9-]+)?\.bfl\.ai|bfldelivery[a-z0-9]*\.blob\.core\.windows\.net"
    )
    private = frozenset({"prompt", "webhook_url", "webhook_secret", *IMAGE_INPUTS})
    repeats_safely = False
    poll_pace = PollPace(0.5, 1.3, 5.0)
    fields = (*FIELDS, *ADVANCED_FIELDS)

    def make_key_header(self, key: str) -> dict[str, str]:
        return {"x-key": key}

    def make_request(self, context: RunContext, inputs: Mapping[str, Any]) -> JobRequest:
        """The job of a Klein BFL with these inputs."""
        _check_gaps(inputs)
        frames = collect_frames(
            inputs.get("references"),
            [inputs.get(name) for name in IMAGE_INPUTS],
            len(IMAGE_INPUTS),
            self.title,
        )
        form = inputs.get("upload_format", UPLOAD_FORMAT.default)
        UPLOAD_FORMAT.check(form)
        given = {row.name: inputs[row.name] for row in _REQUEST_FIELDS if row.name in inputs}
        files = [encode(frame, form, max_pixels=MAX_PIXELS) for frame in frames]
        request = BflRequest(**given, images=[base64.b64encode(file).decode("ascii") for file in files])
        summary = {
            "model": request.endpoint,
            "width": request.width,
            "height": request.height,
            "seed": request.seed,
            "references": len(frames),
        }
        return make_job_request(
            self, context, request.to_body(), request.endpoint, request.prompt, summary, inputs,
            estimate_usd=request.estimate_usd(),
        )  # fmt: skip

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        given = {name: widgets[name] for name in ("width", "height", "endpoint") if name in widgets}
        return BflRequest("price", images=["reference"] * references, **given).estimate_usd()

    def make_submit(self, base: str, job: Job, body: Mapping[str, Any]) -> HttpCall:
        secret = read_variable(WEBHOOK_SECRET) if body.get("webhook_url") else None
        return HttpCall(
            "POST", f"{base}/v1/{job.endpoint}", {**body, **({"webhook_secret": secret} if secret else {})}
        )

    def read_submit(self, answer: Answer, job: Job) -> SubmitAnswer:
        accepted = _read_accepted(answer)
        if accepted is not None:
            return accepted
        words = read_error(answer.body, answer.text) or describe_status(answer.status)
        if answer.status in (401, 403):  # BFL answers 403 for a missing or malformed key
            return SubmitAnswer(KEY, words)
        known = {402: BALANCE, 404: GONE, 429: BUSY, 408: UNCLEAR}
        if answer.status in known:
            return SubmitAnswer(known[answer.status], words)
        if 300 <= answer.status < 400:
            return SubmitAnswer(REDIRECT)
        return SubmitAnswer(INVALID if 400 <= answer.status < 500 else UNCLEAR, words)

    def make_poll(self, base: str, job: Job, count: int) -> HttpCall:
        return HttpCall("GET", job.polling_url or self.make_fallback_poll(base, job))

    def make_fallback_poll(self, base: str, job: Job) -> str:
        """Where to ask when BFL named no address, or one that is not its own."""
        return f"{base}/v1/get_result?id={quote(job.vendor_id, safe='')}"

    def read_poll(self, answer: Answer, job: Job) -> JobStatus:
        """A status nobody has heard of means: still working."""
        body = answer.body if isinstance(answer.body, Mapping) else {}
        status = str(body.get("status") or "").strip().lower()
        if status == "task not found" or (answer.status == 404 and not status):
            return JobStatus(missing=True, words="Task not found")
        if answer.status != 200:
            refused = answer.status in (401, 402, 403)
            return JobStatus(known=not refused, refused=refused, complaint=f"HTTP {answer.status}")
        if not status or not _is_about(body, job):
            return JobStatus()
        details = _read_details(body.get("details"))
        if "moderated" in status:
            which = "your prompt or image" if status.startswith("request") else "the finished picture"
            failure = Failure(MODERATION, f"{self.title}: moderation stopped {which}{details}")
            return JobStatus(failures=(failure,), known=True, whole=True)
        if status in ("error", "failed"):
            failure = Failure(FAILURE, f"{self.title} reports an error{details}")
            return JobStatus(failures=(failure,), known=True, whole=True)
        result = body.get("result")
        if status == "ready" and isinstance(result, Mapping) and result.get("sample"):
            image = RemoteImage(job.vendor_id, read_seed(result.get("seed")), str(result["sample"]))
            return JobStatus((image,), known=True, progress=1.0)
        progress = read_number(body.get("progress"))
        words = str(body.get("status"))
        return JobStatus(known=True, working=True, progress=progress, words=words)

    def make_balance(self, base: str, question_id: str) -> HttpCall:
        return HttpCall("GET", f"{base}/v1/credits")

    def read_balance(self, answer: Answer) -> float | None:
        if answer.status in (401, 403):
            raise PermissionError
        found = answer.body.get("credits") if isinstance(answer.body, dict) else None
        number = read_number(found)
        return None if number is None else number * _CREDIT_USD


def _read_accepted(answer: Answer) -> SubmitAnswer | None:
    """The job's id, read from whatever came: also from an answer that broke off. None if there is none."""
    if isinstance(answer.body, Mapping):
        body = answer.body
        job_id, url = body.get("id"), body.get("polling_url")
        if isinstance(job_id, int) and not isinstance(job_id, bool):
            job_id = str(job_id)
        url = url if isinstance(url, str) else ""
        cost = read_cost(body.get("cost"), _CREDIT_USD)
    else:
        found, place = _ID.search(answer.text), _POLLING_URL.search(answer.text)
        job_id = (found[1] or found[2]) if found else None
        url, cost = place[1] if place else "", None
    # An error may carry the id of its own request; only a job has an address to poll.
    if not isinstance(job_id, str) or not job_id.strip() or not (answer.status < 300 or url):
        return None
    return SubmitAnswer(ACCEPTED, vendor_id=job_id.strip(), polling_url=url, cost_usd=cost)


def _check_gaps(inputs: Mapping[str, Any]) -> None:
    """BFL numbers input images without gaps: after one, a picture would go under a lower number than its own,
    which is not the one the prompt means.
    """
    references = inputs.get("references")
    before = 0 if references is None else len(references.images)
    for number, name in enumerate(IMAGE_INPUTS):
        picture = inputs.get(name)
        if picture is None:
            continue
        if before < number:
            raise InputError(
                say(
                    "%1 is connected with %2 pictures before it, so BFL would take it as "
                    "%3. Connect the pictures in order, without a gap.",
                    name,
                    before,
                    IMAGE_INPUTS[before],
                )
            )
        before += len(split_frames(picture))


def _is_about(body: Mapping[str, Any], job: Job) -> bool:
    return body.get("id") in (None, "") or str(body["id"]) == job.vendor_id


def read_error(body: Any, text: str) -> str:
    """BFL's reason in any of the shapes it comes in."""
    if isinstance(body, Mapping):
        detail = body.get("detail", body.get("message", body.get("error", body.get("details"))))
        if isinstance(detail, list):
            return "; ".join(
                f"{'.'.join(map(str, list(d.get('loc') or ())[1:]))}: {d.get('msg', '')}"
                for d in detail
                if isinstance(d, Mapping)
            )
        if detail:
            return str(detail)
    return text if is_readable(text) else ""


def _read_details(details: Any) -> str:
    if isinstance(details, Mapping):
        reasons = details.get("Moderation Reasons") or details.get("error") or details.get("message")
        if isinstance(reasons, list):
            reasons = ", ".join(map(str, reasons))
        if reasons:
            return f": {reasons}"
    return f": {details}" if isinstance(details, str) and details else ""
