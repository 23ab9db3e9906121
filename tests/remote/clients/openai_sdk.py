"""OpenAI's own client: `python openai_sdk.py URL KEY`. Prints JSON on its last line."""

import base64
import io
import json
import struct
import sys
import zlib

import openai

url, key = sys.argv[1:3]
client = openai.OpenAI(api_key=key, base_url=url, max_retries=0)


def make_png(width: int, height: int, hole: bool = False) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    """One colour; with a hole, its right half can be seen through."""
    left, right = bytes((200, 160, 20, 255)), bytes((200, 160, 20, 0 if hole else 255))
    rows = b"".join(b"\0" + left * (width // 2) + right * (width - width // 2) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


found = {"models": [model.id for model in client.models.list()]}
made = client.images.generate(model="gpt-image-1", prompt="a fox", size="256x256", n=1, quality="low")
found["generated"] = made.data[0].b64_json[:16]
made = client.images.generate(model="dall-e-3", prompt="a fox", size="256x256", response_format="url")
found["url"] = made.data[0].url
file = io.BytesIO(make_png(128, 128))
file.name = "apple.png"
made = client.images.edit(model="gpt-image-1", image=[file], prompt="image 1 on a blue background")
found["edited"] = len(base64.b64decode(made.data[0].b64_json))
mask = io.BytesIO(make_png(128, 128, hole=True))
mask.name = "mask.png"
file.seek(0)
made = client.images.edit(
    model="gpt-image-1", image=file, mask=mask, prompt="a frog on a yellow background", quality="low"
)
found["masked"] = made.data[0].b64_json
for name, work in (
    ("bad", lambda: client.images.generate(model="gpt-image-1", prompt="a fox", size="1x1")),
    ("model", lambda: client.images.generate(model="midjourney", prompt="a fox")),
    ("key", lambda: openai.OpenAI(api_key="wrong", base_url=url, max_retries=0).models.list()),
):
    try:
        work()
        found[name] = "no error"
    except openai.APIStatusError as error:
        found[name] = [type(error).__name__, error.status_code, error.param]
print(json.dumps(found))
