"""The real-model row of `sampling.py`: trimtab, an earlier trimtab and llama.cpp's server, a process each, in turns."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from contenders import Worker

NAME = "real model"
LIMIT = 128  # tokens of every answer; stop tokens do not end it
OURS, EARLIER, LLAMA = "trimtab", "trimtab, the earlier build", "llama.cpp's server"


def add_options(words: argparse.ArgumentParser) -> None:
    words.add_argument("--model", help="a real model's folder")
    words.add_argument("--texts", help="a file of pairs, whose first prompts are asked")
    words.add_argument("--earlier", type=Path, help="src/ of another checkout of trimtab")
    words.add_argument("--llama-python", help="a python that has xllamacpp")
    words.add_argument("--gguf", help="the same model for llama.cpp, in F32")


def measure(told: argparse.Namespace, *, temperature: float, log: Path) -> dict[str, Any]:
    """Tokens and seconds of every contender in every repeat, after a short warm-up of each."""
    prompts = _prompts(told.model, told.texts, told.prompts)
    sizes = list(map(len, prompts))
    common = ["--temperature", str(temperature)]
    ours = ["--model", told.model, *common]
    starts: dict[str, tuple[str, str, list[str]]] = {}
    if told.llama_python:
        shape = ["--rows", str(len(prompts)), "--columns", str(max(sizes) + LIMIT)]
        starts[LLAMA] = (told.llama_python, "llama_worker.py", ["--model", told.gguf, *shape, *common])
    if told.earlier:
        starts[EARLIER] = (sys.executable, "sampling_worker.py", [*ours, "--source", str(told.earlier)])
    starts[OURS] = (sys.executable, "sampling_worker.py", ours)
    workers = {
        name: Worker.start(python, script, arguments, threads=told.threads, log=log)
        for name, (python, script, arguments) in starts.items()
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for repeat in range(-1, told.repeats):
        for name, worker in workers.items():
            limit, seed = (LIMIT, repeat) if repeat >= 0 else (8, 0)
            answer = worker.order(prompts=prompts, limit=limit, seed=seed)
            assert answer["tokens"] == limit * len(prompts), (name, answer)
            if repeat >= 0:
                runs[name].append({"tokens": answer["tokens"], "seconds": round(answer["seconds"], 3)})
                speed = answer["tokens"] / answer["seconds"]
                print(f"real model, repeat {repeat + 1}, {name}: {speed:,.0f} tokens/s", flush=True)
    for worker in workers.values():
        worker.stop()
    words = (
        f"{Path(told.model).name}, float32: real prompts of {min(sizes)} to {max(sizes)} "
        f"(mean {sum(sizes) / len(sizes):.0f}) tokens, all asked at once, answers of {LIMIT}. "
        "trimtab as its generate stage runs; llama.cpp from F32 weights, a slot a prompt."
    )
    return {"name": NAME, "words": words, "n_prompts": len(prompts), "runs": runs}


def _prompts(model: str, texts: str, count: int) -> list[tuple[int, ...]]:
    """The first `count` distinct prompts of the pairs, as the model reads them."""
    from trimtab.data.formats import detect_format
    from trimtab.data.loading import load_chat_template
    from trimtab.data.sources import read_rows
    from trimtab.records import Pair

    rows, template = read_rows(texts), load_chat_template(model, offline=True)
    form = detect_format(rows.head, source=texts)
    pairs = (form.to_record(row_id, row) for row_id, row in rows)
    prompts = dict.fromkeys(pair.prompt for pair in pairs if isinstance(pair, Pair))
    return [template.prompt_ids(prompt) for prompt in islice(prompts, count)]
