"""Runware's own client against the address given: `python runware_sdk.py URL KEY`. Prints JSON."""

import asyncio
import json
import sys
from typing import get_args, get_type_hints

from runware import Runware
from runware.types.task_map import BflFlux2Klein4bBaseParams


async def main(url: str, key: str) -> None:
    task = {
        "model": "runware:400@5",
        "positivePrompt": "a fox",
        "width": 256,
        "height": 192,
        "includeCost": True,
    }
    found = {}
    for transport, more in (
        ("rest", {"http_base_url": f"{url}/v1"}),
        ("websocket", {"ws_base_url": url.replace("http", "ws") + "/v1"}),
    ):
        for delivery in ("async", "sync"):
            async with Runware(api_key=key, transport=transport, **more) as client:
                images = await client.run(task | {"numberResults": 2, "deliveryMethod": delivery})
                found[f"{transport} {delivery}"] = [
                    {name: image.get(name) for name in ("imageURL", "seed", "cost", "imageUUID")}
                    for image in images
                ]
    hints = get_type_hints(BflFlux2Klein4bBaseParams)
    fields = {name: [c for c in get_args(kind) if isinstance(c, str)] for name, kind in hints.items()}
    print(json.dumps({"images": found, "fields": fields}))


asyncio.run(main(*sys.argv[1:3]))
