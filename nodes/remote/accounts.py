"""Connections to the services, one for each address and key, and how many jobs a key may have under way."""

from __future__ import annotations

import hashlib
import threading
import uuid

from ..base.sentences import Sentence
from .concurrency import ConcurrencyLimit
from .hosts import Endpoint, make_endpoint, make_endpoint_at
from .job_request import RunningJob
from .keys import KeyStore
from .own_servers import OwnServers
from .retry import RetryPolicy
from .services import find_service
from .submission import Conversation, refuse_key
from .transport import Transport

_CHECK_SECONDS = 15.0


class Accounts:
    """Safe to use from several threads."""

    def __init__(self, keys: KeyStore, policy: RetryPolicy, own_port: int = 0) -> None:
        self.keys, self.policy = keys, policy
        self.servers = OwnServers(keys, own_port)
        self._limits: dict[tuple[str, str], ConcurrencyLimit] = {}
        self._transports: dict[tuple[str, str, str], Transport] = {}
        self._lock = threading.Lock()

    def find_endpoint(self, service: str, profile: str, region: str = "", base: str = "") -> Endpoint:
        """Where a request goes. base: the address that an own server must have had when it was made."""
        known = find_service(service)
        if known.own_path:
            return self.servers.find_endpoint(service, profile, base)
        return make_endpoint(known, region)

    def find_endpoint_at(self, service: str, profile: str, base: str) -> Endpoint:
        """Where an earlier job went. Raises Refused where an own server has another address now."""
        known = find_service(service)
        if known.own_path:
            return self.servers.find_endpoint(service, profile, base)
        return make_endpoint_at(known, base)

    def converse(self, endpoint: Endpoint, profile: str, running: RunningJob, limit: int = 4) -> Conversation:
        """Talk with a service under a profile's key. NoKey if there is none."""
        service = endpoint.service
        secret = self.keys.find(service.name, profile)
        key = hashlib.sha256(secret.value.encode()).hexdigest()
        # The name too: under one address and one key, as an emulator has them, each says its key differently.
        account = (service.name, endpoint.base, key)
        with self._lock:
            shared = self._limits.setdefault((service.name, key), ConcurrencyLimit(limit))
            transport = self._transports.setdefault(account, Transport(endpoint, secret, self.policy))

        def tell(words: Sentence, share: float | None) -> None:
            running.progress.words = words
            running.progress.share = running.progress.share if share is None else share

        return Conversation(transport, shared, running.deadline, running.is_wanted, tell)

    def ask_balance(self, name: str, profile: str, seconds: float = _CHECK_SECONDS) -> float | None:
        """USD on the account, None where the service does not say. Raises Refused for a key that does not
        work, NoKey, and TransportError.
        """
        service = find_service(name)
        talk = self.converse(self.find_endpoint(name, profile), profile, RunningJob(seconds))
        answer = talk.transport.ask(
            service.make_balance(talk.endpoint.base, str(uuid.uuid4())), talk.deadline
        )
        try:
            return service.read_balance(answer)
        except PermissionError:
            raise refuse_key(service, profile) from None

    def forget_limits(self) -> None:
        """Let the next jobs take up a changed limit of jobs at once."""
        with self._lock:
            self._limits.clear()
