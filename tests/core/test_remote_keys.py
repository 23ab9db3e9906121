"""Keys: where they are found, that only this user can read them, and that no text carries them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kleinod_pure.remote.errors import NoKey, Unsafe
from kleinod_pure.remote.hosts import check_public, make_endpoint
from kleinod_pure.remote.keys import KeyStore
from kleinod_pure.remote.redact import redact
from kleinod_pure.remote.services import find_service

KEY = "abcdefgh12345678-canary"
RUNWARE, BFL = (make_endpoint(find_service(name)) for name in ("runware", "bfl"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    for name in ("RUNWARE_API_KEY", "BFL_API_KEY", "RUNWARE_API_KEY_STUDIO_2"):
        monkeypatch.delenv(name, raising=False)
    return KeyStore(tmp_path / "__kleinod", keyring=lambda service, profile: None)


def test_environment_comes_before_the_file_and_the_file_before_the_keyring(
    store, monkeypatch, tmp_path
) -> None:
    ring = KeyStore(store.folder, keyring=lambda service, profile: "from-the-keyring")
    assert ring.find("bfl").source == "keyring"
    ring.save("bfl", "default", KEY)
    assert (ring.find("bfl").value, ring.find("bfl").source) == (KEY, "file")
    monkeypatch.setenv("BFL_API_KEY", "from-environment")
    assert ring.find("bfl").source == "environment"


def test_profiles_are_kept_apart(store, monkeypatch) -> None:
    store.save("runware", "default", KEY)
    store.save("runware", "studio 2", KEY + "2")
    assert store.find("runware", "studio 2").value == KEY + "2"
    monkeypatch.setenv("RUNWARE_API_KEY_STUDIO_2", KEY + "3")
    assert store.find("runware", "studio 2").value == KEY + "3"
    assert store.find("runware").value == KEY
    with pytest.raises(NoKey, match="profile 'other'.*nothing was sent.*RUNWARE_API_KEY_OTHER"):
        store.find("runware", "other")


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_only_this_user_can_read_the_file(store) -> None:
    old = os.umask(0)
    try:
        store.save("bfl", "default", KEY)
    finally:
        os.umask(old)
    assert stat.S_IMODE(store.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    store.file.chmod(0o644)
    with pytest.raises(ValueError, match="Other users"):
        store.find("bfl")


def test_clearing_leaves_nothing_behind(store) -> None:
    store.save("bfl", "default", KEY)
    store.clear("bfl", "default")
    assert KEY not in store.file.read_text()
    assert [file.name for file in store.folder.iterdir()] == ["keys.json"]
    with pytest.raises(NoKey):
        store.find("bfl")


def test_what_is_shown_of_a_key(store) -> None:
    store.save("bfl", "default", KEY)
    shown = json.dumps(store.describe()) + repr(store.find("bfl")) + str([store.find("bfl")])
    assert KEY not in shown and "...nary" in shown
    assert store.describe()["runware"]["default"] == {"set": False, "source": "", "hint": ""}


@pytest.mark.parametrize(
    "bad", ["short", "has space in it", "line\nbreak-in-key", "x" * 257, "", None, "umlaut-\u00fc-key"]
)
def test_a_key_that_could_break_a_header_is_refused(store, bad) -> None:
    with pytest.raises(ValueError, match="8 to 256 visible characters"):
        store.save("bfl", "default", bad)


def test_a_damaged_file_says_so(store) -> None:
    store.save("bfl", "default", KEY)
    store.file.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        store.find("bfl")


@given(st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=8, max_size=80))
def test_no_text_keeps_a_key(key: str) -> None:
    for text in (
        f"Authorization: Bearer {key}",
        f'{{"x-key": "{key}", "apiKey": "{key}"}}',
        f"x-key={key}; rest",
        f"https://host/file.png?sig={key}&se={key}",
    ):
        assert key not in redact(text), text
    assert key not in redact(f"left {key} right", [key])


def test_long_base64_is_cut_and_plain_words_stay() -> None:
    assert redact("see " + "A" * 300 + "==") == "see [data]"
    assert redact("The width must be a multiple of 16.") == "The width must be a multiple of 16."


@pytest.mark.parametrize(
    "url",
    [
        "https://api.bfl.ai/v1/x",
        "https://api.eu.bfl.ai/v1",
        "https://api.us1.bfl.ai/",
        "https://api.eu4.bfl.ai:443/x",
    ],
)
def test_bfl_hosts_that_may_see_the_key(url) -> None:
    assert BFL.check_key_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.bfl.ai/v1",
        "https://api.bfl.ai:8443/",
        "https://user@api.bfl.ai/",
        "https://api.bfl.ai.evil.com/",
        "https://evil.com/api.bfl.ai",
        "https://apixbfl.ai/",
        "https://api.bfl.ai@evil.com/",
        "https://127.0.0.1/",
        "https://API.BFL.AI.evil.com",
        "ftp://api.bfl.ai/",
        "https://delivery-eu.bfl.ai/x",
        "https://[::1]/",
        "https://api.bfl.ai:99999/",
        "https://im.runware.ai/x",
        "//api.bfl.ai/x",
        "https://api.evil.bfl.ai.co/",
    ],
)
def test_hosts_that_may_not(url) -> None:
    with pytest.raises(Unsafe):
        BFL.check_key_url(url)
    with pytest.raises(Unsafe):
        RUNWARE.check_key_url(url)


@pytest.mark.parametrize(
    ("service", "url"),
    [
        (RUNWARE, "https://im.runware.ai/image/os/a14d18/ws/2/ii/x.jpg"),
        (RUNWARE, "https://vm.runware.ai/x"),
        (BFL, "https://delivery-eu1.bfl.ai/results/x.png?sig=a"),
        (BFL, "https://bfldeliverysc.blob.core.windows.net/x?se=1"),
    ],
)
def test_hosts_pictures_come_from(service, url) -> None:
    assert service.check_picture_url(url) == url
    with pytest.raises(Unsafe):
        service.check_key_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.blob.core.windows.net/x",
        "https://im.runware.ai.evil.com/x",
        "http://im.runware.ai/x",
        "https://169.254.169.254/latest",
        "https://api.runware.ai.evil/x",
        "file:///etc/passwd",
    ],
)
def test_hosts_pictures_do_not_come_from(url) -> None:
    for service in (RUNWARE, BFL):
        with pytest.raises(Unsafe):
            service.check_picture_url(url)


def test_only_this_machine_can_stand_in_for_a_service(monkeypatch) -> None:
    monkeypatch.setenv("KLEINOD_BFL_URL", "http://127.0.0.1:9000")
    service = make_endpoint(find_service("bfl"), "eu")
    assert service.base == "http://127.0.0.1:9000"
    assert service.check_key_url("http://127.0.0.1:9000/v1/credits")
    with pytest.raises(Unsafe):
        service.check_key_url("http://127.0.0.1:9001/v1/credits")
    monkeypatch.setenv("KLEINOD_BFL_URL", "http://127.0.0.1:9000/kleinod/api/bfl")
    service = make_endpoint(find_service("bfl"))
    assert service.check_picture_url("http://127.0.0.1:9000/kleinod/api/results/x")
    with pytest.raises(Unsafe):
        service.check_key_url("http://127.0.0.1:9001/kleinod/api/bfl/v1/credits")
    for elsewhere in (
        "http://example.com",
        "https://10.0.0.5:9000",
        "http://127.0.0.1:9000/path?key=1",
        "http://a@127.0.0.1",
    ):
        monkeypatch.setenv("KLEINOD_BFL_URL", elsewhere)
        with pytest.raises(Unsafe, match="must be this machine's own"):
            make_endpoint(find_service("bfl"))


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "::1"]
)
def test_private_addresses_are_refused(host) -> None:
    with pytest.raises(Unsafe, match="private network address"):
        check_public(host)
