"""The wire itself: certificates, proxies, redirects, netrc, drips; and a hunt for the key in everything
written.
"""

from __future__ import annotations

import http.server
import logging
import socket
import ssl
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from kleinod_pure.remote.errors import Expired, NotSent, RemoteError, Unclear, Unsafe
from kleinod_pure.remote.hosts import make_endpoint
from kleinod_pure.remote.keys import Secret
from kleinod_pure.remote.retry import Deadline, RetryPolicy
from kleinod_pure.remote.services import find_service
from kleinod_pure.remote.services.base import HttpCall
from kleinod_pure.remote.transport import Transport

from .conftest import CANARY, FAST

RUNWARE = make_endpoint(find_service("runware"))


def make(endpoint, policy: RetryPolicy = FAST) -> Transport:
    return Transport(endpoint, Secret(CANARY, "test"), policy)


def post(url: str, body: object) -> HttpCall:
    return HttpCall("POST", url, body)


def test_a_closed_port_is_known_not_to_have_been_reached() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(NotSent):
        make(replace(RUNWARE, override=address)).submit(post(address + "/v1", []))


def test_a_name_that_does_not_exist_is_known_not_to_have_been_reached(monkeypatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *a, **k: (_ for _ in ()).throw(socket.gaierror("unknown"))
    )
    with pytest.raises(NotSent):
        make(RUNWARE).submit(post("https://api.runware.ai/v1", []))


def test_a_lost_answer_is_unclear(emulator) -> None:
    emulator.faults.order("accept_then_drop")
    task = {
        "taskType": "imageInference",
        "taskUUID": "4d3a4156-5e5e-45db-b73c-a3200a7446ed",
        "model": "runware:400@5",
        "positivePrompt": "x",
        "width": 128,
        "height": 128,
        "deliveryMethod": "async",
    }
    with pytest.raises(Unclear):
        make(make_endpoint(find_service("runware"))).submit(post(emulator.url + "/v1", [task]))
    assert emulator.accepted == 1


@pytest.fixture
def tls_port(tmp_path: Path):
    """A server with a certificate nobody signed; counts the requests that get through."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    reached: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reached.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], tmp_path / "cert.pem", reached
    server.shutdown()


def test_an_unsigned_certificate_is_refused_and_nothing_is_sent(tls_port, monkeypatch) -> None:
    port, certificate, reached = tls_port
    address = f"https://127.0.0.1:{port}"
    transport = make(replace(RUNWARE, override=address))
    with pytest.raises(NotSent, match="certificate"):
        transport.submit(post(address + "/v1", []))
    assert reached == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert transport.submit(post(address + "/v1", [])).status == 200


def test_the_proxy_of_the_environment_is_used_and_never_sees_the_key(monkeypatch) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def proxy() -> None:
            connection, _ = listener.accept()
            heard.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        threading.Thread(target=proxy, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        with pytest.raises(NotSent):
            make(RUNWARE).submit(post("https://api.runware.ai/v1", []))
    assert heard[0].startswith(b"CONNECT api.runware.ai:443") and CANARY.encode() not in heard[0]


def test_netrc_does_not_replace_the_key(emulator, monkeypatch, tmp_path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    transport = make(make_endpoint(find_service("runware")))
    transport.ask(post(emulator.url + "/v1", [{"taskType": "ping", "ping": True}]), Deadline(5))
    assert f"Authorization: Bearer {CANARY}".encode() in emulator.seen[-1]
    with pytest.raises(Expired):
        transport.download(emulator.url + "/picture/none.png", frozenset(), Deadline(5))
    assert b"Authorization" not in emulator.seen[-1] and CANARY.encode() not in emulator.seen[-1]


def test_the_key_goes_nowhere_else(emulator) -> None:
    transport = make(make_endpoint(find_service("bfl")))
    for url in ("https://example.com/v1", emulator.url.replace("127.0.0.1", "localhost") + "/v1/x"):
        with pytest.raises(Unsafe):
            transport.submit(post(url, {}))
        with pytest.raises(Unsafe):
            transport.ask(HttpCall("GET", url), Deadline(1))
    assert emulator.seen == []


@pytest.mark.parametrize("fault", ["slow_drip", "accept_slow_drip"])
def test_a_body_that_drips_is_cut_off(fault, emulator, fetch, runware_request) -> None:
    emulator.faults.order(fault)
    assert fetch(runware_request(deadline=20)).images[0].pixels is not None
    assert emulator.accepted == 1 and emulator.faults.struck[fault] == 1


def test_the_key_is_in_no_byte_written_logged_or_told(
    emulator, engine, fetch, runware_request, bfl_request, caplog, tmp_path
):
    """Through every kind of trouble: folders, logs, errors and outcomes are searched."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    troubles = [
        None,
        "accept_then_503",
        "refuse_401",
        "refuse_402",
        "poll_html",
        "expired",
        "foreign_polling_url",
        "bomb",
        "status_error",
        "redirect",
        "poll_redirect",
        "content_moderated",
    ]
    for trouble in troubles:
        for request in (runware_request(f"a fox {trouble}"), bfl_request(f"a fox {trouble}")):
            if trouble:
                emulator.faults.order(trouble)
            try:
                told.append(repr(fetch(request)))
            except RemoteError as error:
                told.append(f"{error!r} {error.__cause__!r} {error.__context__!r}")
            emulator.faults.clear()
    told += [repr(engine.keys.find("bfl")), repr(vars(engine.accounts)), caplog.text]
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert len(written) > 10_000
    assert CANARY.encode() not in written
    assert not [text for text in told if CANARY in text]
    # On the wire it stands in the one header where it belongs.
    for seen in emulator.seen:
        rest = seen.replace(f"Authorization: Bearer {CANARY}".encode(), b"").replace(
            f"x-key: {CANARY}".encode(), b""
        )
        assert CANARY.encode() not in rest
    assert emulator.traps == []
