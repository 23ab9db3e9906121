"""A service that says the key back in every text it has: nothing that is stored, logged or shown holds it."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kleinod_pure.base.errors import ArtistError, InputError
from kleinod_pure.remote import job_list, routes
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.errors import RemoteError
from kleinod_pure.remote.job_request import RunContext
from kleinod_pure.remote.limits import Limits
from kleinod_pure.remote.profiles import check_profile, looks_like_key
from kleinod_pure.remote.redact import hide_key, redact
from kleinod_pure.remote.services import find_service

from tests.emulator_raw import RawEmulator, Turn

from .conftest import FAST

KEY = "Planted9Q4x-0a1b2c3d4e5f/and+more=7"
SMALL = {"width": 128, "height": 128, "deadline": 3.0}


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawEmulator]:
    with RawEmulator(KEY) as running:
        for name in ("RUNWARE", "BFL"):
            monkeypatch.setenv(f"KLEINOD_{name}_URL", running.url)
            monkeypatch.setenv(f"{name}_API_KEY", KEY)
        yield running


@pytest.fixture
def engine(raw: RawEmulator, tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "__kleinod", policy=FAST)
    yield made
    made.close()


def spell(key: str) -> tuple[str, ...]:
    """The forms in which a service might say a key."""
    encoded = base64.b64encode(f"x-key: {key}".encode()).decode()
    return key, f"Bearer {key}", quote(key, safe=""), key.upper(), key[:14] + "...", encoded, f"<{key}>"


ECHO = " | ".join(spell(KEY))


def echo(shape: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda exchange: shape(ECHO)


def fail_runware(text: str) -> dict[str, Any]:
    return {"errors": [{"code": "invalidPrompt", "message": text, "parameter": text, "taskType": text}]}


def report(text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": text,
        "status": "Error",
        "details": {"error": text, "message": [text]},
        "result": None,
    } | more


MANY = 30


def in_task(exchange: Any, **more: Any) -> dict[str, Any]:
    """One item about the task that is asked for."""
    named = {"taskType": "imageInference", "taskUUID": exchange.json[0]["taskUUID"]}
    return {"data": [named | more]}


def poll(service: str, body: Any) -> list[tuple[str, Turn]]:
    return [(f"{service}.poll", Turn(body=body))] * MANY


ADDRESS = f"https://pictures.example/{quote(KEY)}.png?key={quote(KEY, safe='')}"
REASONS = {"Moderation Reasons": [ECHO, {ECHO: ECHO}]}
REFUSED = {"work": False, "body": ECHO.encode(), "kind": "text/html"}
DETAIL = {"detail": [{"loc": ["body", ECHO], "msg": ECHO}]}
ECHOES: dict[str, list[tuple[str, Turn]]] = {
    "runware submit": [("runware.submit", Turn(work=False, status=400, body=echo(fail_runware)))],
    "runware submit as HTML": [("runware.submit", Turn(status=401, **REFUSED))],
    "runware poll": poll("runware", echo(fail_runware)),
    "runware failure": poll(
        "runware", lambda ask: in_task(ask, status="error", error={"code": ECHO, "message": ECHO})
    ),
    "runware address": poll("runware", lambda ask: in_task(ask, imageUUID="x", imageURL=ADDRESS)),
    "bfl submit": [("bfl.submit", Turn(work=False, status=422, body=DETAIL))],
    "bfl submit text": [("bfl.submit", Turn(status=413, **REFUSED))],
    "bfl id": [
        ("bfl.submit", Turn(body=lambda ask: ask.answer | {"polling_url": f"https://a.example/{KEY}"}))
    ],
    "bfl error": poll("bfl", echo(report)),
    "bfl moderation": poll("bfl", {"status": "Content Moderated", "details": REASONS}),
    "bfl unknown status": poll("bfl", {"status": ECHO, "details": ECHO}),
    "picture refused": [("picture", Turn(status=400, body=ECHO.encode()))] * MANY,
}


@pytest.mark.parametrize("name", ECHOES)
def test_no_byte_holds_the_key(
    name: str, raw: RawEmulator, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for occasion, turn in ECHOES[name]:
        raw.script(occasion, turn)
    service = "bfl" if name.startswith("bfl") else "runware"
    prompt = {"prompt": "a fox"} if service == "bfl" else {"positive_prompt": "a fox"}
    request = find_service(service).make_request(RunContext("1", "p", Limits(0.0, 0.0)), SMALL | prompt)
    handle = engine.launch(lambda: request)
    said = []
    try:
        result = handle.result(30)
        said += [result.note, *(image.message for image in result.images)]
    except RemoteError as error:
        said.append(f"{error} {error.__cause__} {error.__context__}")
    said += [handle.progress.words, json.dumps(job_list.list_jobs(engine)), *job_list.list_choices(engine)]
    said += [caplog.text, json.dumps(routes.test_key(engine, {"service": service}))]
    stored = [file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()]
    assert raw.seen, "nothing was asked"
    for text in (*said, *stored):
        for form in (*spell(KEY)[:4], KEY[:14]):
            assert form.lower() not in text.lower(), form


def test_balance_questions_are_behind_the_gate_too(raw: RawEmulator, engine: Engine) -> None:
    raw.script("bfl.credits", *[Turn(status=401, body=echo(lambda text: {"detail": text}))] * 9)
    raw.script("runware.other", *[Turn(status=401, body=echo(fail_runware))] * 9)
    for service in ("bfl", "runware"):
        told = routes.test_key(engine, {"service": service})
        assert not told["ok"] and KEY[:14].lower() not in json.dumps(told).lower()


_KEYS = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/+=.~", min_size=8, max_size=60
)
_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(_KEYS, _WORDS, _WORDS)
def test_a_key_is_hidden_in_every_spelling(key: str, before: str, after: str) -> None:
    for form in (key, quote(key, safe=""), key.upper(), key.lower()):
        hidden = hide_key(f"{before} {form} {after}", key)
        assert form not in hidden.replace(before, "") or form in after
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + key.encode() + b"yyy").decode()
        assert base64.b64encode(key.encode()).decode()[4:-4] not in hide_key(encoded, key) or len(key) < 12


@given(_WORDS)
def test_plain_words_stay(text: str) -> None:
    assert hide_key(text, "0123456789abcdef-none-of-these") == text


def test_addresses_and_pictures_stay_whole() -> None:
    address = "https://delivery-eu.bfl.ai/x/sample.png?se=2030&sig=a%2Fb"
    assert hide_key(address, KEY) == address
    picture = base64.b64encode(bytes(range(256)) * 600).decode()
    assert hide_key(picture, KEY) == picture
    assert redact(f"left {KEY} right", [KEY]) == "left [key] right"


@pytest.mark.parametrize(
    "text",
    [
        "sk-0123456789abcdef", "bfl_a1b2c3d4e5f6", "3f2b8c1e-9a7d-4e6f-8b1c-2d3e4f5a6b7c", "ZX81kEy7Qp2L",
        "aBcDeFgHiJkLmNoPqRsTuVwXyZ", "x" * 41, "Bearer abcdefgh", "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "canary-4f9d2c71ab-key", "planted-8d1e55f0c3-do-not-leak", "Runware_9f8e7d6c5b4a3928",
    ],
)  # fmt: skip
def test_what_looks_like_a_key_is_no_name(text: str) -> None:
    assert looks_like_key(text)
    with pytest.raises(InputError) as caught:
        check_profile(text)
    assert text not in str(caught.value) and "change the key" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "default", "work", "my company", "Studio 2026", "client-project-2026-11", "second.account", "a",
        "test_2", "photographer", "BFL", "runware", "key-of-anna", "2026-11-28", "v2", "team_eu_west_1",
    ],
)  # fmt: skip
def test_names_are_names(text: str) -> None:
    assert check_profile(text) == text


@pytest.mark.parametrize(
    "stored", ["[]", '{"runware": "text"}', '{"runware": {"default": 7}}', "7", "null", "{", ""]
)
def test_a_key_file_of_another_shape_is_a_sentence(stored: str, engine: Engine, monkeypatch) -> None:
    monkeypatch.delenv("RUNWARE_API_KEY")
    engine.keys.folder.mkdir(mode=0o700, exist_ok=True)
    engine.keys.file.write_text(stored)
    engine.keys.file.chmod(0o600)
    for ask in (
        engine.keys.describe,
        lambda: engine.keys.save("bfl", "default", "x" * 20),
        lambda: engine.keys.find("runware"),
    ):  # noqa: E501
        with pytest.raises(ArtistError, match="damaged. Delete keys.json"):
            ask()


def test_a_key_file_that_is_a_link_or_a_folder_is_a_sentence(
    engine: Engine, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.delenv("RUNWARE_API_KEY")
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    engine.keys.folder.mkdir(mode=0o700, exist_ok=True)
    engine.keys.file.symlink_to(elsewhere)
    with pytest.raises(ArtistError, match="is a link to another place"):
        engine.keys.describe()
    engine.keys.file.unlink()
    engine.keys.file.mkdir()
    with pytest.raises(ArtistError, match="cannot be read"):
        engine.keys.describe()


def test_a_typed_key_is_told_from_a_name(engine: Engine) -> None:
    assert routes.judge_profile(engine, {"profile": KEY}) == {"is_key": True}
    assert routes.judge_profile(engine, {"profile": "work"}) == {"is_key": False}
