"""A short visit to the cluster that runs here: `python -m cluster.deploy ADDRESS WHAT JSON`.

    deploy     puts the application on Serve, waits until it answers, prints {"key", "again"} as JSON
    new-key    makes a key of that name, prints it as JSON
Ray's client takes over signals and memory, so it is a process of its own that ends.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import ray
from ray import serve

from .application import NAME, build

_SECONDS = 60


def main(address: str, what: str, given: str) -> int:
    ray.init(address=address, namespace=NAME, log_to_driver=False, logging_level="warning")
    answer = _deploy(json.loads(given)) if what == "deploy" else _make_key(json.loads(given))
    print(json.dumps(answer), flush=True)
    ray.shutdown()
    return 0


def _deploy(given: dict[str, Any]) -> dict[str, Any]:
    http = {"host": given.pop("host"), "port": given.pop("port"), "keep_alive_timeout_s": 120}
    serve.start(proxy_location="HeadOnly", http_options=http)
    handle = serve.run(build(given), name=NAME, route_prefix="/")
    return handle.greet.remote().result(timeout_s=_SECONDS)


def _make_key(name: str) -> dict[str, Any]:
    return {"key": serve.get_app_handle(NAME).create_key.remote(name).result(timeout_s=_SECONDS)}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
