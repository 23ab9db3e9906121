"""Runware's former client over a websocket: `python runware_legacy.py URL KEY`. Prints JSON."""

import asyncio
import json
import sys

from runware import IImageInference, Runware


async def main(url: str, key: str) -> None:
    client = Runware(api_key=key, url=url.replace("http", "ws") + "/v1")
    await client.connect()
    request = IImageInference(
        model="runware:400@5",
        positivePrompt="a fox",
        width=256,
        height=192,
        numberResults=2,
        includeCost=True,
    )
    images = await client.imageInference(requestImage=request)
    print(json.dumps([{"imageURL": i.imageURL, "seed": i.seed, "cost": i.cost} for i in images]))
    await client.disconnect()


asyncio.run(main(*sys.argv[1:3]))
