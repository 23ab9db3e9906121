"""ComfyUI's own BFL node: `python comfyui_bfl.py URL KEY` with ComfyUI at COMFYUI_PATH. Prints JSON."""

import asyncio
import json
import os
import sys
import types

url, key = sys.argv[1:3]
sys.path.insert(0, os.environ["COMFYUI_PATH"])
sys.argv = ["main.py", "--cpu", "--comfy-api-base", url]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import server  # noqa: E402
from comfy_api_nodes.nodes_bfl import Flux2ProImageNode  # noqa: E402

server.PromptServer.instance = types.SimpleNamespace(
    send_progress_text=lambda *arguments: None,
    send_sync=lambda *arguments: None,
    client_id="x",
    last_node_id="1",
)


async def main() -> None:
    hidden = {hidden: None for hidden in Flux2ProImageNode.GET_SCHEMA().hidden}
    values = {name: {"api_key_comfy_org": key, "unique_id": "1"}.get(name.value) for name in hidden}
    clone = Flux2ProImageNode.PREPARE_CLASS_CLONE({"hidden_inputs": values})
    result = await clone.execute("a fox", 256, 192, 4, False)
    print(json.dumps(list(result[0].shape)))


asyncio.run(main())
