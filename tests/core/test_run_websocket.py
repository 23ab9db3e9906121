"""The websocket client against a server made of bytes: frames in every size and cut at every place."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.launch.websocket import WebSocket, WebSocketClosed

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + bytes([126]) + struct.pack("!H", len(payload)) + payload
    return head + bytes([127]) + struct.pack("!Q", len(payload)) + payload


class ByteServer:
    """Accepts one client, shakes hands, then does what the test says with the raw socket."""

    def __init__(self, talk: Callable[[socket.socket], None], accept: str | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws?clientId=x"
        self._talk, self._accept = talk, accept
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, self._listener:
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096)
            key = next(
                line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
            )
            digest = hashlib.sha1(key.split(b": ")[1] + GUID.encode()).digest()
            accept = self._accept or base64.b64encode(digest).decode()
            answer = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            client.sendall(answer.encode())
            self._talk(client)


@pytest.fixture
def serve() -> Iterator[Callable[..., WebSocket]]:
    opened: list[WebSocket] = []

    def start(talk: Callable[[socket.socket], None], **options: str) -> WebSocket:
        opened.append(WebSocket(ByteServer(talk, **options).url))
        return opened[-1]

    yield start
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_messages_of_every_length(serve: Callable[..., WebSocket], size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    assert serve(lambda client: client.sendall(frame(2, payload))).receive(5) == payload


def test_fragments_with_a_ping_between_them(serve: Callable[..., WebSocket]) -> None:
    answers: list[bytes] = []

    def talk(client: socket.socket) -> None:
        client.sendall(frame(1, b"one ", final=False) + frame(9, b"still there?") + frame(0, b"two"))
        answers.append(client.recv(4096))

    connection = serve(talk)
    assert connection.receive(5) == "one two"
    connection.send("done")  # gives the server's thread time to note the pong
    for _ in range(100):
        if answers:
            break
        threading.Event().wait(0.02)
    head, mask, body = answers[0][:2], answers[0][2:6], answers[0][6:18]
    assert head == bytes([0x8A, 0x80 | 12])
    assert bytes(byte ^ mask[index % 4] for index, byte in enumerate(body)) == b"still there?"


def test_a_timeout_inside_a_frame_loses_nothing(serve: Callable[..., WebSocket]) -> None:
    go = threading.Event()
    whole = frame(1, b"half and half")

    def talk(client: socket.socket) -> None:
        client.sendall(whole[:7])
        go.wait(10)
        client.sendall(whole[7:])

    connection = serve(talk)
    with pytest.raises(TimeoutError):
        connection.receive(0.1)
    go.set()
    assert connection.receive(5) == "half and half"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.integers(min_value=1, max_value=40))
def test_any_cut_of_the_byte_stream_gives_the_same_messages(messages: list[bytes], step: int) -> None:
    stream = b"".join(frame(2, message) for message in messages)

    def talk(client: socket.socket) -> None:
        for start in range(0, len(stream), step):
            client.sendall(stream[start : start + step])

    with WebSocket(ByteServer(talk).url) as connection:
        assert [connection.receive(5) for _ in messages] == messages


def test_the_end_is_an_error_of_its_own(serve: Callable[..., WebSocket]) -> None:
    with pytest.raises(WebSocketClosed):
        serve(lambda client: client.sendall(frame(8, struct.pack("!H", 1000)))).receive(5)
    with pytest.raises(WebSocketClosed):
        serve(lambda client: client.sendall(frame(2, b"cut short")[:-3])).receive(5)


def test_a_server_that_is_no_websocket_is_refused(serve: Callable[..., WebSocket]) -> None:
    with pytest.raises(ConnectionError, match="did not answer as a websocket"):
        serve(lambda client: None, accept="bm90IHRoZSBrZXk=")
