"""The API within a web server: switched on and off by its owner, and never disturbed by other settings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from kleinod_pure.base.errors import InputError
from kleinod_pure.service.host import Host, Surroundings
from kleinod_pure.service.service import Machine

from tests.core.api_stage import NANO, Painter


def test_the_first_key_is_shown_once_and_settings_act_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    machine = Machine(lambda: [NANO], list, list)
    around = Surroundings(lambda: tmp_path, lambda: "http://127.0.0.1:8188", Painter, machine, said.append)

    async def run() -> None:
        host = Host(around)
        app = web.Application()
        await host.on_startup(app)

        async def change(**values: object) -> dict:
            return await asyncio.to_thread(host.change, values)

        assert not host.describe()["running"] and said == []
        told = await change(enabled=True)
        secret = told["secret"]
        assert told["running"] and [key["name"] for key in told["keys"]] == ["first"]
        assert secret in said[0], "where no page is, the console tells it"
        assert "secret" not in await change(picture_usd=0.5), "and that was all"
        assert len(said) == 1, "nothing was started anew"
        assert secret not in str(await change(enabled=True, reachable=["nas.local"]))
        with pytest.raises(InputError, match="folder on this machine"):
            await change(classifier=str(tmp_path / "nothing"))
        assert host.describe()["settings"]["reachable"] == ("nas.local",)
        assert not (await change(enabled=False))["running"]
        with pytest.raises(InputError, match="folder on this machine"):
            await change(classifier=str(tmp_path / "nothing"), enabled=True)
        told = await change(enabled=True)
        assert told["running"] and "secret" not in told and told["settings"]["picture_usd"] == 0.5
        await asyncio.to_thread(host.revoke_key, {"name": "first"})
        await change(enabled=False)
        assert (await change(enabled=True))["secret"] != secret, "nobody has a key: there is a new first one"
        await host.on_cleanup(app)

    asyncio.run(asyncio.wait_for(run(), 60))
