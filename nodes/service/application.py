"""Which part answers a request of which path. Method, path, headers and body in, answer out.

/runware/v1           POST an array of tasks; a WebSocket (`Channels`)
/bfl/v1/...           submit, get_result, credits; /proxy/bfl/... as ComfyUI's own nodes ask for them
/openai/v1/...        images/generations, images/edits, models
/results/NAME         a result, by an address that was given out
/health  /metrics  /openapi.json  /
"""

from __future__ import annotations

import logging
import sqlite3
import traceback
from dataclasses import replace

from .dialects import bfl, openai, runware
from .messages import Answer, Refusal, Request, answer_json, read_secret
from .metrics import describe
from .openapi import PAGE, build_document
from .service import Service

logger = logging.getLogger("kleinod.api")
MESSAGES = {
    runware.NAME: runware.make_message,
    bfl.NAME: bfl.make_message,
    openai.NAME: openai.make_message,
}


async def answer(service: Service, request: Request) -> Answer:
    """Never raises: what nobody foresaw is answered in the caller's dialect and told to the log, without the
    request.
    """
    service.requests += 1
    try:
        return await _route(service, request)
    except sqlite3.Error as error:
        logger.error("The jobs of the API cannot be written (%s).", error)
        words = "The server cannot write jobs down now."
        return answer_problem(request.path, 503, "serviceUnavailable", words)
    except Exception as error:
        # Only where it happened: an exception's text may hold what the client sent.
        place = traceback.extract_tb(error.__traceback__)[-1]
        logger.error(
            "A request failed: %s in %s, line %s.", type(error).__name__, place.filename, place.lineno
        )
        words = "The server made a mistake; its log says where."
        return answer_problem(request.path, 500, "internalServerError", words)


async def _route(service: Service, request: Request) -> Answer:
    path = request.path
    if path.startswith("/v1/"):
        # BFL's own client takes the last part off the address it is given.
        request = replace(request, path=f"/bfl{path}")
        path = request.path
    if path in ("/runware/v1", "/runware/v1/"):
        if request.method == "POST":
            return await runware.answer(service, request)
        refusal = Refusal(405, "invalidMethod", "Tasks are sent by POST or over a WebSocket.")
        return answer_json(405, {"errors": [runware.answer_error(refusal)]}, {"Allow": "POST"})
    if path.startswith(("/bfl/v1/", bfl.PROXY)):
        return await bfl.answer(service, request)
    if path.startswith("/openai/v1/"):
        return await openai.answer(service, request)
    if request.method not in ("GET", "HEAD"):
        return answer_json(404, {"error": "There is nothing here."})
    if path.startswith("/results/"):
        found = service.read_result(path.removeprefix("/results/"))
        return found or answer_json(404, {"error": "This address is wrong or past its time."})
    if path == "/health":
        return answer_json(200, {"status": "ok", "pictures": service.book.count()})
    if path == "/metrics":
        try:
            service.identify(read_secret(request.headers))
        except Refusal as refusal:
            return answer_json(refusal.status, {"error": refusal.message}, {"WWW-Authenticate": "Bearer"})
        return Answer(200, describe(service).encode(), "text/plain; version=0.0.4")
    if path == "/openapi.json":
        return answer_json(200, build_document(service.address(request.base)))
    if path in ("", "/"):
        return Answer(200, PAGE.encode(), "text/html")
    return answer_json(404, {"error": "There is nothing here."})


def answer_problem(path: str, status: int, code: str, words: str) -> Answer:
    """What is said where a request cannot even be read, in the shape of the caller's dialect."""
    if path.startswith("/runware"):
        return answer_json(status, {"errors": [{"code": code, "message": words}]})
    if path.startswith("/openai"):
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return answer_json(status, {"error": {"message": words, "type": kind, "param": None, "code": None}})
    return answer_json(status, {"detail": words})
