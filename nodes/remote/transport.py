"""HTTP as money needs it: every failure says whether the request can have reached the service.

`requests` in plain threads: each ComfyUI prompt has an event loop of its own, so nothing here may be bound to
one. Redirects are never followed (`requests` would carry x-key along), certificates are always verified,
proxies and REQUESTS_CA_BUNDLE from the environment are honoured, ~/.netrc never overrides the key.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from .errors import Unsafe
from .hosts import Service, check_public
from .keys import Secret
from .pace import Pace, Patience
from .redact import redact, shorten

logger = logging.getLogger("kleinod.remote")

PICTURE_BYTES = 64 << 20
ANSWER_BYTES = 8 << 20
ANSWER_BYTES_WITH_PICTURES = 256 << 20
_AGENT = "kleinod (ComfyUI)"


class NotSent(Exception):
    """The connection never stood: the service has not seen the request."""


class Unclear(Exception):
    """The request went out and no answer came back."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `body` is parsed JSON, or None where there was none."""

    status: int
    body: Any
    text: str
    retry_after: str | None = None


class _Key(requests.auth.AuthBase):
    """Puts the key into its header. Given explicitly, it keeps `requests` from asking ~/.netrc."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


class Transport:
    """Requests to one service with one key. Safe to use from several threads."""

    def __init__(self, service: Service, secret: Secret, pace: Pace) -> None:
        self.service = service
        self.pace = pace
        self._secret = secret
        name, value = (
            ("x-key", secret.value) if service.name == "bfl" else ("Authorization", f"Bearer {secret.value}")
        )
        self._auth = _Key({name: value})
        self._nobody = _Key({})
        self._session = _open_session()

    def clean(self, text: str) -> str:
        """`text` without the key and other secrets, as one short line."""
        return shorten(redact(text, [self._secret.value]))

    def close(self) -> None:
        self._session.close()

    def submit(
        self,
        url: str,
        body: Any,
        *,
        sync: bool = False,
        headers: dict[str, str] | None = None,
        limit: int = ANSWER_BYTES,
    ) -> Answer:
        """POST once. NotSent or Unclear tell what is known when no answer comes.

        A connection of its own: one kept alive may be half dead, and dying on it would be Unclear, not
        NotSent.
        """
        with _open_session() as session:
            read = self.pace.read_sync if sync else self.pace.read
            return self._send(session, "POST", url, self._auth, read, limit, json=body, headers=headers)

    def ask(
        self,
        method: str,
        url: str,
        patience: Patience,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        limit: int = ANSWER_BYTES,
    ) -> Answer:
        """A request that may be repeated freely (polls, balance): tried again on 429, 5xx and lost
        connections.
        """
        for attempt in range(self.pace.tries):
            last = attempt == self.pace.tries - 1
            try:
                answer = self._send(
                    self._session,
                    method,
                    url,
                    self._auth,
                    self.pace.read / 2,
                    limit,
                    json=body,
                    headers=headers,
                )
                if answer.status != 429 and answer.status < 500 or last:
                    return answer
                wait = self.pace.retry(attempt, answer.retry_after)
            except (NotSent, Unclear):
                if last:
                    raise
                wait = self.pace.backoff(attempt)
            patience.wait(wait)
        raise AssertionError("unreachable")

    def download(self, url: str, patience: Patience) -> bytes:
        """The bytes behind a result's address: no key, no redirect, at most 64 MB, three tries.

        LookupError when the address is no longer valid (403, 404, 410): ask the service for a fresh one.
        """
        self.service.check_picture_url(url)
        for attempt in range(3):
            try:
                if not self.service.override and not _goes_through_proxy(url):
                    check_public(url.split("/")[2].partition(":")[0])
                data, status = self._fetch(url)
                if status == 200:
                    return data
                if status in (403, 404, 410):
                    raise LookupError(f"HTTP {status}")
                if status < 500 and status != 429:
                    raise Unsafe(
                        f"{self.service.title}'s picture server answered HTTP {status} instead of a picture."
                    )
            except (NotSent, Unclear):
                pass
            if attempt < 2:
                patience.wait(self.pace.backoff(attempt))
        raise LookupError("no answer")

    def _fetch(self, url: str) -> tuple[bytes, int]:
        with self._open(self._session, "GET", url, self._nobody, 30.0) as response:
            if response.status_code != 200:
                return b"", response.status_code
            return self._read(response, PICTURE_BYTES, self.pace.download), 200

    def _send(
        self,
        session: requests.Session,
        method: str,
        url: str,
        auth: _Key,
        read: float,
        limit: int,
        **more: Any,
    ) -> Answer:
        self.service.check_key_url(url)
        started = time.monotonic()
        with self._open(session, method, url, auth, read, **more) as response:
            raw = self._read(response, limit, read)
        logger.debug(
            "%s %s %d in %.0f ms",
            self.service.name,
            method,
            response.status_code,
            (time.monotonic() - started) * 1000,
        )
        text = raw.decode("utf-8", "replace")
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        return Answer(
            response.status_code, body, self.clean(text[:2000]), response.headers.get("Retry-After")
        )

    def _open(
        self, session: requests.Session, method: str, url: str, auth: _Key, read: float, **more: Any
    ) -> requests.Response:
        try:
            return session.request(
                method,
                url,
                auth=auth,
                timeout=(self.pace.connect, read),
                stream=True,
                allow_redirects=False,
                **more,
            )
        except requests.exceptions.RequestException as error:
            raise _classify(error) from None

    def _read(self, response: requests.Response, limit: int, seconds: float) -> bytes:
        """The whole body, never more than `limit` bytes or `seconds`, however slowly it drips."""
        ends = time.monotonic() + seconds
        stated = response.headers.get("Content-Length", "")
        if stated.isdigit() and int(stated) > limit:
            raise Unsafe(
                f"{self.service.title} announced {int(stated) >> 20} MB, more than the {limit >> 20} MB "
                f"allowed."
            )
        parts: list[bytes] = []
        size = 0
        try:
            for part in _pieces(response.raw):
                size += len(part)
                if size > limit:
                    raise Unsafe(
                        f"{self.service.title} sent more than the {limit >> 20} MB allowed; it was cut off."
                    )
                if time.monotonic() > ends:
                    raise Unclear("too slow")
                parts.append(part)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unclear(type(error).__name__) from None
        if stated.isdigit() and size < int(stated):
            raise Unclear("cut short")
        return b"".join(parts)


def _pieces(raw: urllib3.HTTPResponse):
    # read1 returns what is there; read would wait for a full block and never notice a body that drips.
    read: Callable[[int], bytes] = getattr(raw, "read1", None) or (lambda size: raw.read(1024))
    while part := read(1 << 18):
        yield part


def _open_session() -> requests.Session:
    session = requests.Session()
    session.mount("https://", HTTPAdapter(pool_maxsize=32, max_retries=0))
    session.mount("http://", HTTPAdapter(pool_maxsize=32, max_retries=0))
    session.headers.update(
        {"User-Agent": _AGENT, "Accept": "application/json, image/*", "Accept-Encoding": "identity"}
    )
    session.cookies.set_policy(_NoCookies())
    return session


class _NoCookies(requests.cookies.cookielib.DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False


def _goes_through_proxy(url: str) -> bool:
    return bool(requests.utils.get_environ_proxies(url))


def _classify(error: requests.exceptions.RequestException) -> Exception:
    """NotSent where the request cannot have left this machine, Unclear otherwise."""
    if isinstance(
        error,
        (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError, requests.exceptions.InvalidURL),
    ):
        return NotSent(_name(error))
    # Any other SSLError may come while reading, when the request is long gone.
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return NotSent("the certificate could not be verified")
    if isinstance(error, requests.exceptions.ConnectionError) and error.args:
        inner = getattr(error.args[0], "reason", error.args[0])
        if isinstance(inner, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
            return NotSent(_name(inner))
    return Unclear(_name(error))


def _name(error: Exception) -> str:
    return type(error).__name__
