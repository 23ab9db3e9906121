"""BFL's own client: `python bfl_sdk.py URL KEY`. Prints JSON on its last line."""

import json
import sys

from blackforest import BFLClient
from blackforest.types.general.client_config import ClientConfig
from blackforest.types.inputs.flux_pro_1_1 import FluxPro11Inputs

url, key = sys.argv[1:3]
client = BFLClient(api_key=key, base_url=url)
config = ClientConfig(sync=True, polling_interval=1)
found = {}
for model in sys.argv[3:] or ("flux-pro-1.1", "flux-2-klein-4b"):
    # The client is older than klein and lets new models be registered.
    client.model_input_registry[model] = FluxPro11Inputs
    result = client.generate(model, {"prompt": "a fox", "width": 256, "height": 256, "seed": 4}, config)
    found[model] = result if isinstance(result, dict) else result.model_dump(mode="json")
print(json.dumps(found, default=str))
