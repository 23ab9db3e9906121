"""Why a connection did not come about, in words that name what to repair."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
import urllib3

from ..base.sentences import Sentence, join, say

_HINT = say("check the computer's clock and whether a proxy or a virus scanner stands in between")


def explain(error: BaseException, url: str) -> Sentence:
    """A clause without a full stop, fit to follow "could not be reached:"."""
    host = urlsplit(url).hostname or say("the service")
    chain = list(_unfold(error))
    text = " ".join(str(entry) for entry in chain)
    through = _name_proxy(url)
    if isinstance(error, requests.exceptions.InvalidSchema) or "SOCKS support" in text:
        if "SOCKS" in text:
            return say("the proxy %1 needs the Python package PySocks and it is not installed", through)
        return say("the proxy %1 has a scheme that cannot be used", through)
    if isinstance(error, requests.exceptions.InvalidProxyURL):
        return say("the address of the proxy %1 cannot be read", through)
    if "invalid path" in text and ("CA certificate" in text or "TLS" in text):
        path = text.rpartition("invalid path:")[2].strip()
        return say(
            "the certificate bundle that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names does not exist (%1)", path
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        unverified = say("the certificate of %1 could not be verified (%2)", host, _reason(chain))
        return join("; ", [unverified, _HINT])
    if any(isinstance(entry, (ssl.SSLError, urllib3.exceptions.SSLError)) for entry in chain):
        insecure = say("no secure connection to %1 could be agreed on (%2)", host, _reason(chain))
        return join("; ", [insecure, _HINT])
    if any(isinstance(entry, urllib3.exceptions.ProxyError) for entry in chain) or isinstance(
        error, requests.exceptions.ProxyError
    ):
        return say("the proxy %1 does not let the connection through (%2)", through, _last(chain))
    if any(isinstance(entry, (socket.gaierror, urllib3.exceptions.NameResolutionError)) for entry in chain):
        return say("the name %1 could not be looked up: there is no network or no name server", host)
    if any(isinstance(entry, ConnectionRefusedError) for entry in chain):
        return say("nothing answers at %1", host)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return say("%1 did not answer in time", host)
    if any(isinstance(entry, (TimeoutError, urllib3.exceptions.TimeoutError)) for entry in chain):
        return say("the line stood still while the request was being sent")
    return say("the connection to %1 broke before the request had left (%2)", host, _last(chain))


def _unfold(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those it was made from."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        entry = todo.pop(0)
        if entry is None or id(entry) in seen:
            continue
        seen.add(id(entry))
        yield entry
        todo += [entry.__cause__, entry.__context__, getattr(entry, "reason", None)]
        todo += [inner for inner in entry.args if isinstance(inner, BaseException)]
        todo = [inner for inner in todo if isinstance(inner, BaseException)]


def _reason(chain: list[BaseException]) -> str:
    for entry in chain:
        if isinstance(entry, ssl.SSLCertVerificationError):
            return entry.verify_message
    for entry in chain:
        if isinstance(entry, ssl.SSLError) and entry.reason:
            return str(entry.reason).lower().replace("_", " ")
    return _last(chain)


def _last(chain: list[BaseException]) -> str:
    """The innermost error that has something to say."""
    for entry in reversed(chain):
        words = entry.strerror if isinstance(entry, OSError) and entry.strerror else ""
        if words:
            return words
    return type(chain[-1]).__name__


def _name_proxy(url: str) -> str:
    """The proxy's address without a password."""
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
    parts = urlsplit(proxy if "://" in proxy else f"//{proxy}")
    return (
        f"{parts.scheme}://{parts.hostname or ''}:{parts.port or ''}".strip(":/")
        if proxy
        else say("in between")
    )
