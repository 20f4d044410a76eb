"""llama.cpp's side of `sampling.py`: its own server (package xllamacpp) over a GGUF file, all prompts asked at once.

sampling.py → {"prompts": [[id, …], …], "limit": tokens an answer, "seed": …}
worker → {"seconds": …, "tokens": …}
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from worker import open_channel, orders, tell


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--threads", type=int, required=True)
    words.add_argument("--model", required=True)
    words.add_argument("--rows", type=int, required=True, help="prompts at once")
    words.add_argument("--columns", type=int, required=True, help="tokens of a prompt and its answer, at most")
    words.add_argument("--temperature", type=float, required=True)
    told = words.parse_args()
    channel = open_channel()
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = told.model
    settings.n_parallel = told.rows
    settings.n_ctx = told.rows * (-(-told.columns // 256) * 256)  # shared out among the rows
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = told.threads
    settings.cache_ram_mib = 0
    server = xllamacpp.Server(settings)
    address = server.listening_address.rstrip("/") + "/completion"
    tell(channel, {"version": xllamacpp.__version__})
    for order in orders():
        bodies = [
            {
                "prompt": prompt,
                "n_predict": order["limit"],
                "temperature": told.temperature,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "samplers": ["temperature"],
                "ignore_eos": True,
                "cache_prompt": False,
                "seed": order["seed"] * 1000 + number,
            }
            for number, prompt in enumerate(order["prompts"])
        ]
        start = time.perf_counter()
        with ThreadPoolExecutor(len(bodies)) as pool:
            replies = list(pool.map(lambda body: _post(address, body), bodies))
        seconds = time.perf_counter() - start
        tell(channel, {"seconds": seconds, "tokens": sum(reply["tokens_predicted"] for reply in replies)})


def _post(address: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - our own server
    with urllib.request.urlopen(request) as reply:  # noqa: S310 - as above
        answer: dict[str, Any] = json.load(reply)
    return answer


if __name__ == "__main__":
    main()
