"""Our side of `sampling.py` on a real model, as the generate stage decodes; `--source` is the src/ of another build.

sampling.py → {"prompts": [[id, …], …], "limit": tokens an answer, "seed": …}
worker → {"seconds": …, "tokens": …}
"""

from __future__ import annotations

import argparse
import sys
import time

from worker import open_channel, orders, tell


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--threads", type=int, required=True)
    words.add_argument("--model", required=True)
    words.add_argument("--dtype", default="float32")
    words.add_argument("--temperature", type=float, required=True)
    words.add_argument("--source")
    told = words.parse_args()
    if told.source:
        sys.path.insert(0, told.source)
    channel = open_channel()
    import torch

    import trimtab
    from trimtab.engine import models
    from trimtab.runtime.answering import faster_products
    from trimtab.sampling import lay_for_decoding, sample

    torch.set_num_threads(told.threads)
    model = models.load(told.model, dtype=told.dtype, device="cpu", offline=True).model
    lay_for_decoding(model)
    tell(channel, {"version": trimtab.__version__, "source": trimtab.__file__})
    for order in orders():
        start = time.perf_counter()
        with faster_products(model):
            answers = sample(
                model,
                order["prompts"],
                stop_ids=(),
                max_new_tokens=order["limit"],
                temperature=told.temperature,
                seed=order["seed"],
            )
        seconds = time.perf_counter() - start
        tell(channel, {"seconds": seconds, "tokens": sum(len(answer.ids) for answer in answers)})


if __name__ == "__main__":
    main()
