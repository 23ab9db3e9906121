"""The service within a web server: started where the owner wants so, switched on and off, announced."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from ..base.errors import InputError
from ..base.sentences import say
from .application import MESSAGES
from .classifier import Classifier
from .dialects.runware_channel import Channels
from .executor import Executor
from .messages import answer_json
from .models import kind_of
from .service import Machine, Service
from .settings import ApiSettings, make_settings, read_settings, write_settings
from .web_adapter import PREFIX, WebAdapter

logger = logging.getLogger("kleinod.api")
FOLDER = "service"
FIRST_KEY = "first"
# What `run.py api` says for one start, whatever the settings hold.
START, REMOTE, STAND_IN = "KLEINOD_API", "KLEINOD_API_REMOTE", "KLEINOD_API_STAND_IN"


@dataclass(frozen=True)
class Surroundings:
    """What only the server's process knows. folder: the pack's private one. address: of the server."""

    folder: Callable[[], Path]
    address: Callable[[], str]
    make_executor: Callable[[], Executor]
    machine: Machine
    tell: Callable[[str], None]


class Host:
    """One for each web server."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._service: Service | None = None
        self._adapter: WebAdapter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self._adapter is None:
            words = "Kleinod's API is off: switch it on under Settings > Kleinod, or start with run.py api."
            return web.Response(
                status=404, body=answer_json(404, {"error": words}).body, content_type="application/json"
            )
        return await self._adapter.handle(request)

    async def on_startup(self, app: web.Application) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            settings = self.read_settings()
            if settings.enabled:
                await self._start(settings)
        except InputError as error:
            logger.error("%s", error)

    async def on_cleanup(self, app: web.Application) -> None:
        await self._stop()

    def read_settings(self) -> ApiSettings:
        """What is stored, and what this start was told. Raises InputError."""
        return self._as_started(read_settings(self._around.folder() / FOLDER))

    @staticmethod
    def _as_started(settings: ApiSettings) -> ApiSettings:
        if os.environ.get(START) == "1":
            settings = replace(
                settings, enabled=True, remote=settings.remote or os.environ.get(REMOTE) == "1"
            )
        if os.environ.get(STAND_IN) == "0":
            settings = replace(settings, stand_in=False)
        return settings

    async def _start(self, settings: ApiSettings) -> str:
        """The first key, where there was none, else ""."""
        around = self._around
        folder = around.folder() / FOLDER
        service = Service(folder, settings, around.make_executor(), around.machine, MESSAGES)
        keys = [key for key in service.keys.list() if not key.revoked]
        secret = "" if keys else service.keys.create(self._name_first(service))
        again = await service.start()
        self._service, self._adapter = service, WebAdapter(Channels(service))
        around.tell(announce(around.address(), secret, around.machine.models(), settings, again))
        return secret

    @staticmethod
    def _name_first(service: Service) -> str:
        names = {key.name for key in service.keys.list()}
        return next(n for n in (FIRST_KEY, *(f"{FIRST_KEY} {i}" for i in range(2, 10000))) if n not in names)

    async def _stop(self) -> None:
        adapter, self._adapter = self._adapter, None
        service, self._service = self._service, None
        if adapter is not None:
            with suppress(ConnectionError):
                await adapter.close()
        if service is not None:
            await service.close()

    # --- For the settings' panel: plain functions that run in a thread

    def describe(self, request: object = None) -> dict[str, Any]:
        """Settings, keys without their secrets, and the addresses."""
        settings = self.read_settings()
        service = self._service
        keys = [] if service is None else [asdict(key) for key in service.keys.list()]
        return {
            "running": service is not None,
            "settings": asdict(settings),
            "keys": keys,
            "addresses": list_addresses(self._around.address()),
        }

    def change(self, values: dict[str, Any]) -> dict[str, Any]:
        """Store settings and start or stop as they say; what runs goes on. A first key is shown this once.
        Raises InputError.
        """
        folder = self._around.folder() / FOLDER
        settings = make_settings(values, read_settings(folder))
        service = self._service
        if service is not None and settings.enabled:
            service.apply(self._as_started(settings))
            write_settings(folder, settings)
            return self.describe()
        if settings.classifier:
            Classifier(settings.classifier, settings.flagged).check()
        write_settings(folder, settings)
        secret = self._run(self._restart(self.read_settings()))
        return ({"secret": secret} if secret else {}) | self.describe()

    def create_key(self, values: dict[str, Any]) -> dict[str, Any]:
        """{"name", "at_once", "a_day"} -> the secret, this once."""
        given = {name: values[name] for name in ("at_once", "a_day") if name in values}
        secret = self._need().keys.create(values.get("name", ""), **given)
        return {"secret": secret} | self.describe()

    def revoke_key(self, values: dict[str, Any]) -> dict[str, Any]:
        self._need().keys.revoke(str(values.get("name", "")))
        return self.describe()

    def _need(self) -> Service:
        if self._service is None:
            raise InputError(say("Kleinod's API is off: switch it on first."))
        return self._service

    async def _restart(self, settings: ApiSettings) -> str:
        await self._stop()
        return await self._start(settings) if settings.enabled else ""

    def _run(self, work: Any) -> Any:
        if self._loop is None:
            work.close()
            return None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


def list_addresses(address: str) -> dict[str, str]:
    base = f"{address}{PREFIX}"
    return {"Runware": f"{base}/runware/v1", "BFL": f"{base}/bfl", "OpenAI": f"{base}/openai/v1"}


def announce(address: str, secret: str, models: list[str], settings: ApiSettings, again: int) -> str:
    """What the console tells when it starts; the first key this once."""
    addresses = list_addresses(address)
    lines = ["Kleinod answers API requests:"]
    lines += [f"  {name:<8} {place}" for name, place in addresses.items()]
    key = secret or "YOUR-KEY"
    lines += [
        f"  Key      {secret}   (shown this once)" if secret else "  Key      one that was made before",
        f"  curl {addresses['OpenAI']}/images/generations -H 'Authorization: Bearer {key}' "
        "-H 'Content-Type: application/json' "
        """-d '{"prompt": "a panda on a yellow background", "size": "512x512", "response_format": "url"}'""",
    ]
    if not any(kind_of(name) for name in models):
        if settings.stand_in:
            lines.append(
                "  No FLUX.2 [klein] weights are here: klein-nano, a tiny model of a small drawn world, "
                "stands in for every model name."
            )
        else:
            lines.append(
                "  No FLUX.2 [klein] weights are here, and klein-nano may not stand in: every request is "
                "refused."
            )
    if again:
        lines.append(f"  {again} pictures of the time before are drawn now.")
    if settings.remote:
        lines.append(
            "  Other machines are answered. ComfyUI's own pages stand on the same port without a login: "
            f"publish only {PREFIX}/ through a proxy."
        )
    return "\n".join(lines)
