"""A service is one file: one that is defined here sells a picture through engine, ledger and panel."""

from __future__ import annotations

import base64
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kleinod_pure.base.errors import InputError
from kleinod_pure.base.fields import Field
from kleinod_pure.remote import services
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.estimate import estimate
from kleinod_pure.remote.images import encode
from kleinod_pure.remote.job_list import list_jobs
from kleinod_pure.remote.job_request import JobRequest, RunContext, make_job_request
from kleinod_pure.remote.ledger import Job
from kleinod_pure.remote.limits import Limits
from kleinod_pure.remote.retry import PollPace
from kleinod_pure.remote.routes import describe_services
from kleinod_pure.remote.services.base import ACCEPTED, KEY, UNCLEAR, Answer, HttpCall, Service, SubmitAnswer
from kleinod_pure.remote.status import JobStatus, RemoteImage

from .conftest import CANARY, FAST

NUMBER = 4711


class Atelier(Service):
    """A painter who takes a postcard and answers with a number."""

    name = "atelier"
    title = "Atelier"
    company = "Atelier & Sons"
    node_id = "AtelierNode"
    key_variable = "ATELIER_KEY"
    address_variable = "ATELIER_URL"
    key_page = "https://atelier.example"
    regions = {"paris": "https://paris.atelier.example"}
    key_hosts = re.compile(r"\w+\.atelier\.example")
    picture_hosts = key_hosts
    private = frozenset({"wish"})
    repeats_safely = False
    poll_pace = PollPace(0.1, 1.0, 0.1)
    fields = (Field("side", 64, low=16, high=128, multiple=16),)

    def make_key_header(self, key: str) -> dict[str, str]:
        return {"X-Atelier": key}

    def make_request(self, context: RunContext, inputs: Mapping[str, Any]) -> JobRequest:
        side = inputs["side"]
        self.fields[0].check(side, "side")
        body = {"wish": inputs["wish"], "side": side, "seed": inputs["seed"]}
        summary = {"model": "oil", "width": side, "height": side, "seed": inputs["seed"]}
        usd = self.estimate_usd(inputs, 0)
        return make_job_request(
            self, context, body, "paint", inputs["wish"], summary, inputs, estimate_usd=usd
        )

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        return 0.01 * widgets.get("side", 64)

    def make_submit(self, base: str, job: Job, body: Mapping[str, Any]) -> HttpCall:
        return HttpCall("POST", base + "/paint", body)

    def read_submit(self, answer: Answer, job: Job) -> SubmitAnswer:
        if answer.status == 200 and isinstance(answer.body, dict):
            return SubmitAnswer(ACCEPTED, vendor_id=str(answer.body["number"]), cost_usd=0.5)
        return SubmitAnswer(KEY if answer.status == 401 else UNCLEAR, answer.text)

    def make_poll(self, base: str, job: Job, count: int) -> HttpCall:
        return HttpCall("GET", f"{base}/picture/{job.vendor_id}")

    def read_poll(self, answer: Answer, job: Job) -> JobStatus:
        if not answer.body.get("png"):
            return JobStatus(known=True, working=True)
        return JobStatus(
            (RemoteImage(job.vendor_id, answer.body["seed"], data=answer.body["png"]),), known=True
        )

    def make_balance(self, base: str, question_id: str) -> HttpCall:
        return HttpCall("GET", base + "/purse")

    def read_balance(self, answer: Answer) -> float | None:
        if answer.status == 401:
            raise PermissionError
        return answer.body["francs"]


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict]]:
    """The atelier on loopback; what it was asked for."""
    asked: list[dict] = []
    polls: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer({"number": NUMBER})

        def do_GET(self) -> None:
            polls.append(self.path)
            if self.path == "/purse":
                return self.answer({"francs": 12.5})
            if len(polls) < 3:
                return self.answer({})
            file = encode(np.full((64, 64, 3), 0.5, np.float32))
            self.answer({"png": base64.b64encode(file).decode(), "seed": asked[-1]["seed"]})

        def answer(self, body: dict) -> None:
            known = self.headers.get("X-Atelier") == CANARY
            data = json.dumps(body).encode() if known else b"who?"
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("ATELIER_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("ATELIER_KEY", CANARY)
    services.register(Atelier())
    yield asked
    services.unregister("atelier")
    server.shutdown()
    server.server_close()


def ask(seed: int = 3) -> JobRequest:
    inputs = {"wish": "a secret lighthouse", "side": 64, "seed": seed, "deadline": 10}
    return services.find_service("atelier").make_request(RunContext("1", "p", Limits(0.0, 0.0)), inputs)


def test_a_picture_bought_from_a_service_nobody_knew(painter: list[dict], tmp_path: Path) -> None:
    engine = Engine(tmp_path, policy=FAST)
    try:
        assert engine.keys.describe()["atelier"]["default"]["set"]
        assert describe_services()["atelier"]["company"] == "Atelier & Sons"
        assert engine.accounts.ask_balance("atelier", "default") == 12.5
        assert estimate(engine, "atelier", {"side": "64"})["usd"] == 0.64
        result = engine.launch(ask).result(20)
        engine.deliver(result)
        (image,) = result.images
        assert image.pixels is not None and image.pixels.shape == (64, 64, 3) and image.seed == 3
        assert result.cost_usd == 0.5 and result.paid_now and len(painter) == 1
        assert not engine.launch(ask).result(20).paid_now and len(painter) == 1
        (shown,) = list_jobs(engine)["jobs"]
        assert (shown["title"], shown["state"], shown["size"]) == ("Atelier", "saved", [64, 64])
        assert "lighthouse" not in json.dumps(shown)
        assert estimate(engine, "atelier", {})["usd"] == 0.64  # its history is of another shape
    finally:
        engine.close()


def test_a_service_that_is_gone_leaves_its_jobs_readable(painter: list[dict], tmp_path: Path) -> None:
    engine = Engine(tmp_path, policy=FAST)
    try:
        engine.launch(ask).result(20)
        services.unregister("atelier")
        (shown,) = list_jobs(engine)["jobs"]
        assert shown["title"] == "atelier"
        with pytest.raises(InputError, match="There is no service 'atelier'"):
            services.find_service("atelier")
        assert engine.recover(shown["id"]).result(20).images[0].pixels is not None
    finally:
        engine.close()
