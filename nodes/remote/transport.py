"""HTTP as money needs it: every failure says whether the request can have reached the service.

What decides that is the body. It is handed to the connection piece by piece, its last byte alone, so as long
as that byte was not asked for, the service provably cannot have read the request: whatever failed until then
(a proxy, a certificate, a slow line, an answer that came too early) is NotSent.

`requests` in plain threads: each ComfyUI prompt has an event loop of its own, so nothing here may be bound to
one. Redirects are never followed (`requests` would carry the key along), certificates are always verified,
proxies and REQUESTS_CA_BUNDLE from the environment are honoured, ~/.netrc never overrides the key. No answer
leaves here with the key in it.
"""

from __future__ import annotations

import http.cookiejar
import json
import logging
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ..base.sentences import say
from .connection_errors import explain
from .errors import Expired, NotSent, RemoteError, TransportError, Unclear, Unsafe
from .hosts import Endpoint, check_public
from .keys import Secret
from .redact import hide_key, redact, shorten
from .retry import Deadline, RetryPolicy
from .services.base import Answer, HttpCall

logger = logging.getLogger("kleinod.remote")

PICTURE_BYTES = 64 << 20
_AGENT = "kleinod (ComfyUI)"
_TEXT = 1 << 16
# What the system may hold of a request that has not left yet. More would say "sent" too early on a slow line.
_SEND_BUFFER = 1 << 18
_NO_PROXY: Any = {"http": None, "https": None, "all": None}
_GZIP = b"\x1f\x8b"

Watch = Callable[[int, int], None]


class _KeyHeader(requests.auth.AuthBase):
    """Puts the key into its header. Given explicitly, it keeps `requests` from asking ~/.netrc."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


class _Upload:
    """A request's body on its way. `watch(sent, total)` is called before each piece and may raise."""

    def __init__(self, data: bytes, watch: Watch | None = None) -> None:
        self._data, self._watch = data, watch
        self._handed = 0

    @property
    def is_whole(self) -> bool:
        """Whether the last byte was handed to the connection."""
        return self._handed == len(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 14):
            yield piece

    def read(self, size: int = -1) -> bytes:
        total = len(self._data)
        if self._watch is not None and not self.is_whole:
            self._watch(self._handed, total)
        rest = total - self._handed
        size = rest if size < 0 else min(size, rest)
        if rest > 1:
            size = min(size, rest - 1)
        piece = self._data[self._handed : self._handed + size]
        self._handed += size
        return piece


class Transport:
    """Requests to one service with one key. Safe to use from several threads."""

    def __init__(self, endpoint: Endpoint, secret: Secret, policy: RetryPolicy) -> None:
        self.endpoint = endpoint
        self.policy = policy
        self._secret = secret
        self._auth = _KeyHeader(endpoint.service.make_key_header(secret.value))
        self._nobody = _KeyHeader({})
        self._session = _open_session(policy)

    def clean(self, text: str) -> str:
        """`text` without the key and other secrets, as one short line."""
        return shorten(redact(_mend(text), [self._secret.value]))

    def close(self) -> None:
        self._session.close()

    def submit(self, call: HttpCall, watch: Watch | None = None) -> Answer:
        """Send once. NotSent or Unclear tell what is known when no answer comes; an answer that broke off is
        given as far as it came. What `watch` raises goes through, and nothing was sent then.

        A connection of its own: one kept alive may be half dead, and dying on it would be Unclear, not
        NotSent.
        """
        self.endpoint.check_key_url(call.url)
        upload = _Upload(_dump(call.body), watch)
        read = self.policy.read_sync if call.slow else self.policy.read
        try:
            with _open_session(self.policy) as session, self._open(session, call, read, upload) as response:
                raw, problem = self._read(response, call.answer_bytes, read)
                answer = self._answer(response, raw, whole=problem is None, sent=upload.is_whole)
        except RemoteError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, what counts is how far the body had come
            if not isinstance(error, (requests.exceptions.RequestException, OSError)):
                logger.exception("A request stopped on an unexpected error.")
            if upload.is_whole:
                raise Unclear(type(error).__name__) from None
            raise NotSent(self.clean(explain(error, call.url))) from None
        if not answer.sent and answer.status >= 500:
            status = answer.status
            raise NotSent(say("the service answered HTTP %1 before the request had left", status)) from None
        return answer

    def ask(self, call: HttpCall, deadline: Deadline) -> Answer:
        """A request that may be repeated freely (polls, balance): tried again on 429, 5xx and lost
        connections. Raises TransportError when there is no answer at all.
        """
        self.endpoint.check_key_url(call.url)
        for attempt in range(self.policy.tries):
            last = attempt == self.policy.tries - 1
            try:
                answer = self._ask_once(call)
                if (answer.status != 429 and answer.status < 500) or last:
                    return answer
                wait = self.policy.retry(attempt, answer.retry_after)
            except TransportError:
                if last:
                    raise
                wait = self.policy.backoff(attempt)
            deadline.wait(wait)
        raise Unclear("no tries left")

    def download(self, url: str, allowed: frozenset[str], deadline: Deadline) -> bytes:
        """The bytes behind a result's address: no key, no redirect, at most 64 MB, three tries.

        allowed: hosts beyond the service's own. Raises Unsafe, and Expired when the address is no longer
        valid (403, 404, 410) or gives no answer: ask the service for a fresh one.
        """
        self.endpoint.check_picture_url(url, allowed)
        for attempt in range(3):
            try:
                if not self.endpoint.is_override(url) and not requests.utils.get_environ_proxies(url):
                    check_public(urlsplit(url).hostname or "")
                data, status = self._fetch(url)
                if status == 200:
                    return data
                if status in (403, 404, 410):
                    raise Expired(f"HTTP {status}")
                if status < 500 and status != 429:
                    raise Unsafe(
                        say(
                            "%1's picture server answered HTTP %2 instead of a picture.",
                            self.endpoint.service.title,
                            status,
                        )
                    )
            except Expired:
                raise
            except TransportError:
                pass
            if attempt < 2:
                deadline.wait(self.policy.backoff(attempt))
        raise Expired("no answer")

    def _ask_once(self, call: HttpCall) -> Answer:
        upload = None if call.body is None else _Upload(_dump(call.body))
        try:
            with self._open(self._session, call, self.policy.read / 2, upload) as response:
                raw, problem = self._read(response, call.answer_bytes, self.policy.read / 2)
                if problem is not None:
                    raise problem
                return self._answer(response, raw)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NotSent(self.clean(explain(error, call.url))) from None

    def _fetch(self, url: str) -> tuple[bytes, int]:
        try:
            with self._open(self._session, HttpCall("GET", url), 30.0, None, self._nobody) as response:
                if response.status_code != 200:
                    return b"", response.status_code
                raw, problem = self._read(response, PICTURE_BYTES, self.policy.download)
                if problem is not None:
                    raise problem
                return _unpack(raw, response.headers.get("Content-Encoding", ""), PICTURE_BYTES), 200
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unclear(type(error).__name__) from None

    def _open(
        self,
        session: requests.Session,
        call: HttpCall,
        read: float,
        upload: _Upload | None,
        auth: _KeyHeader | None = None,
    ) -> requests.Response:
        return session.request(
            call.method,
            call.url,
            auth=auth or self._auth,
            data=upload,  # an iterable with a length and `read`
            headers={**({"Content-Type": "application/json"} if upload is not None else {}), **call.headers},
            timeout=(self.policy.connect, read),
            stream=True,
            allow_redirects=False,
            proxies=_NO_PROXY if self.endpoint.is_near else None,
        )

    def _answer(
        self, response: requests.Response, raw: bytes, whole: bool = True, sent: bool = True
    ) -> Answer:
        logger.debug("%s answered HTTP %d", self.endpoint.service.name, response.status_code)
        raw = _unpack(raw, response.headers.get("Content-Encoding", ""), len(raw) * 1000 + _TEXT)
        try:
            # `loads` finds out the kind of Unicode and takes a byte-order mark.
            body = self._scrub(json.loads(raw.strip(b" \t\r\n")))
        except (ValueError, RecursionError):
            body = None
        text = self._scrub(raw[:_TEXT].decode("utf-8", "replace"))
        retry_after = response.headers.get("Retry-After")
        return Answer(response.status_code, body, text, retry_after, whole, sent)

    def _scrub(self, value: Any) -> Any:
        """Every text of an answer without the key, and fit to be written down."""
        if isinstance(value, str):
            return hide_key(_mend(value), self._secret.value)
        if isinstance(value, list):
            return [self._scrub(entry) for entry in value]
        if isinstance(value, dict):
            return {self._scrub(name): self._scrub(entry) for name, entry in value.items()}
        return value

    def _read(
        self, response: requests.Response, limit: int, seconds: float
    ) -> tuple[bytes, Unsafe | Unclear | None]:
        """The body as it came over the wire and, where that is not all of it, why: never more than `limit`
        bytes or `seconds`, however slowly it drips.
        """
        ends = time.monotonic() + seconds
        title = self.endpoint.service.title
        stated = response.headers.get("Content-Length", "")
        if stated.isdigit() and int(stated) > limit:
            return b"", Unsafe(
                say("%1 announced %2 MB, more than the %3 MB allowed.", title, int(stated) >> 20, limit >> 20)
            )
        parts: list[bytes] = []
        size = 0
        try:
            for part in _pieces(response.raw):
                size += len(part)
                if size > limit:
                    problem = Unsafe(
                        say("%1 sent more than the %2 MB allowed; it was cut off.", title, limit >> 20)
                    )
                    return b"".join(parts), problem
                parts.append(part)
                if time.monotonic() > ends:
                    return b"".join(parts), Unclear("too slow")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return b"".join(parts), Unclear(type(error).__name__)
        if stated.isdigit() and size < int(stated):
            return b"".join(parts), Unclear("cut short")
        return b"".join(parts), None


def _dump(body: Any) -> bytes:
    return json.dumps(body).encode()


def _mend(text: str) -> str:
    """Half surrogates cannot be written down anywhere."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _unpack(raw: bytes, encoding: str, limit: int) -> bytes:
    """The body without its compression, also one that nobody asked for or announced."""
    encoding = encoding.strip().lower()
    if raw[:2] == _GZIP:
        windows = [31]
    elif encoding == "deflate":
        windows = [15, -15]
    else:
        return raw
    for window in windows:
        try:
            unpacked = zlib.decompressobj(window).decompress(raw, limit)
        except zlib.error:
            continue
        return unpacked
    return raw


def _pieces(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    # read1 returns what is there; read would wait for a full block and never notice a body that drips.
    read: Callable[[int], bytes] = getattr(raw, "read1", None) or (lambda size: raw.read(1024))
    while part := read(1 << 18):
        yield part


def _open_session(policy: RetryPolicy) -> requests.Session:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(policy.stall))
    session.headers.update(
        {"User-Agent": _AGENT, "Accept": "application/json, image/*", "Accept-Encoding": "identity"}
    )
    session.cookies.set_policy(_NoCookies())
    return session


_SOCKET_OPTIONS = [
    *urllib3.connection.HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER),
]


class _Adapter(HTTPAdapter):
    """Gives sending a limit of its own. Without it the limit for connecting holds for each piece sent."""

    def __init__(self, stall: float) -> None:
        self._stall = stall
        super().__init__(pool_maxsize=32, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named, socket_options=_SOCKET_OPTIONS)
        self.poolmanager.pool_classes_by_scheme = _make_pools(self._stall)

    def proxy_manager_for(self, *arguments: Any, **named: Any) -> urllib3.ProxyManager:
        manager = super().proxy_manager_for(*arguments, **named, socket_options=_SOCKET_OPTIONS)
        if type(manager) is urllib3.ProxyManager:  # a SOCKS manager brings pools of its own
            manager.pool_classes_by_scheme = _make_pools(self._stall)
        return manager


def _make_pools(stall: float) -> dict[str, Any]:
    class Plain(urllib3.connection.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(stall)

    class Secure(urllib3.connection.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(stall)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False
