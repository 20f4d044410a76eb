"""Tokens a second of `trimtab.sampling` beside transformers' `generate`: same model, prompts and sampling parameters.

`python benchmarks/sampling.py` writes sampling.json and SAMPLING.md; jobs that it is not asked for stay as they are.
The contenders take turns, in one process but for the real model's (`real_model.py`); ratios are taken in a repeat.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

import machine
import real_model
from workload import SHAPES

ALONE, PADDED = "generate, one by one", "generate, one padded batch"
OURS, STAGE = "trimtab.sampling, model as it is", "trimtab, as its generate stage runs"
TEMPERATURE = 0.7
WIND_TUNNEL = "wind tunnel"


@dataclass(frozen=True, slots=True)
class Job:
    """Prompts to continue: to a stop id, at most `limits[i]` tokens."""

    name: str
    words: str
    model: Any
    prompts: list[tuple[int, ...]]
    limits: list[int]
    stop_ids: tuple[int, ...]


def embedded(count: int) -> Job:
    """The wind tunnel's model and its own prompts; answers end by themselves."""
    from trimtab import windtunnel
    from trimtab.data.chat import ChatTemplate
    from trimtab.engine import models
    from trimtab.records import Message

    loaded = models.load(str(windtunnel.model_folder()), device="cpu", offline=True)
    template = ChatTemplate.of(loaded.tokenizer)
    tasks = windtunnel.tasks(count, seed=1, split="eval")
    prompts = [template.prompt_ids((Message("user", task.prompt),)) for task in tasks]
    words = "The embedded wind-tunnel model; its own prompts; answers end by themselves, at most 128 tokens."
    return Job(WIND_TUNNEL, words, loaded.model, prompts, [128] * count, template.stop_ids)


def random_weights(shape: str, count: int, *, longest: int) -> Job:
    """Random weights never end an answer, so each prompt's answer has a length of its own, the same for everyone."""
    draw = random.Random(0)
    model = SHAPES[shape].build().eval()
    prompts = [
        tuple(draw.randrange(3, SHAPES[shape].vocabulary) for _ in range(size))
        for size in _lengths(count, longest=longest, draw=draw)
    ]
    limits = _lengths(count, longest=longest, draw=draw)
    words = (
        f"Random weights in the {shape} shape ({SHAPES[shape].parameters / 1e6:.3g}M parameters); "
        f"prompts of {_range(list(map(len, prompts)))} tokens, answers forced to {_range(limits)}."
    )
    return Job(shape, words, model, prompts, limits, ())


def _lengths(count: int, *, longest: int, draw: random.Random) -> list[int]:
    """The quantiles of a lognormal (median a quarter of the longest, sigma .8), shuffled."""
    quantiles = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    sizes = [min(longest, max(1, round(longest / 4 * math.exp(0.8 * z)))) for z in quantiles]
    draw.shuffle(sizes)
    return sizes


def _range(sizes: Sequence[int]) -> str:
    return f"{min(sizes)} to {max(sizes)} (mean {sum(sizes) / len(sizes):.0f})"


def alone(job: Job, seed: int) -> int:
    """`generate` for one prompt after the other; the number of tokens it gave, stop ids included."""
    import torch

    torch.manual_seed(seed)
    total = 0
    for prompt, limit in zip(job.prompts, job.limits, strict=True):
        row = torch.tensor([prompt])
        out = job.model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=limit, **_sampling(job))
        total += out.shape[1] - len(prompt)
    return total


def padded(job: Job, seed: int) -> int:
    """`generate` for all prompts in one batch, padded on the left."""
    import torch

    torch.manual_seed(seed)
    width = max(map(len, job.prompts))
    ids = torch.tensor([[2] * (width - len(prompt)) + list(prompt) for prompt in job.prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in job.prompts])
    limits = torch.tensor(job.limits)
    out = job.model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=max(job.limits),
        stopping_criteria=[lambda ids, _scores: ids.shape[1] - width >= limits],
        **_sampling(job),
    )[:, width:]
    return sum(_said(row, job.stop_ids, limit) for row, limit in zip(out.tolist(), job.limits, strict=True))


def _said(row: list[int], stop_ids: Sequence[int], limit: int) -> int:
    ends = [number + 1 for number, token in enumerate(row) if token in stop_ids]
    return min([limit, *ends])


def ours(job: Job, seed: int) -> int:
    """All prompts by `sample`."""
    from trimtab.sampling import sample

    given = 0

    def count(n_given: int, _n_read: int) -> None:
        nonlocal given
        given += n_given

    sample(
        job.model,
        job.prompts,
        stop_ids=job.stop_ids,
        max_new_tokens=job.limits,
        temperature=TEMPERATURE,
        seed=seed,
        on_step=count,
    )
    return given


def _sampling(job: Job) -> dict[str, Any]:
    ends = {"eos_token_id": list(job.stop_ids)} if job.stop_ids else {"eos_token_id": None}
    return {"do_sample": True, "temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0, "pad_token_id": 2, **ends}


def as_in_the_stage(job: Job, seed: int) -> int:
    """`ours` with a model of its own, whose weights lie as decoding wants them, and the faster products."""
    from trimtab.runtime.answering import faster_products

    own = replace(job, model=_laid_out(job.model))
    with faster_products(own.model):
        return ours(own, seed)


@cache
def _laid_out(model: Any) -> Any:
    from trimtab.sampling import lay_for_decoding

    own = copy.deepcopy(model)
    lay_for_decoding(own)
    return own


CONTENDERS: dict[str, Callable[[Job, int], int]] = {
    ALONE: alone,
    PADDED: padded,
    OURS: ours,
    STAGE: as_in_the_stage,
}


def measure(job: Job, *, repeats: int) -> dict[str, Any]:
    """Tokens and seconds of every contender in every repeat, after a short warm-up of each."""
    brief = Job(job.name, job.words, job.model, job.prompts[:4], [min(8, n) for n in job.limits[:4]], job.stop_ids)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for repeat in range(-1, repeats):
        for name, run in CONTENDERS.items():
            began = time.perf_counter()
            tokens = run(job if repeat >= 0 else brief, max(repeat, 0))
            seconds = time.perf_counter() - began
            if repeat >= 0:
                runs[name].append({"tokens": tokens, "seconds": round(seconds, 3)})
                print(f"{job.name}, repeat {repeat + 1}, {name}: {tokens / seconds:,.0f} tokens/s", flush=True)
    return {"name": job.name, "words": job.words, "n_prompts": len(job.prompts), "runs": runs}


def text(jobs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Sampling: tokens a second",
        "",
        f"Temperature {TEMPERATURE}, whole vocabulary, float32. Medians of repeats in turns "
        "(smallest to largest); ratios within a repeat. Tokens are those that were asked for: what a padded batch "
        "computes behind the end of an answer does not count. The generate stage lays the weights out for products "
        "with few rows, and on processors where torch's default library is the slower of its two it takes the other.",
        "",
    ]
    for job in jobs:
        first = next(iter(job["runs"]))
        speeds = {name: [run["tokens"] / run["seconds"] for run in runs] for name, runs in job["runs"].items()}
        lines += [
            f"## {job['name'].capitalize()}, {job['n_prompts']} prompts",
            "",
            job["words"],
            "",
            f"| | tokens/s | times {first.removeprefix('generate, ')} | tokens | seconds |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, runs in job["runs"].items():
            ratios = [own / base for own, base in zip(speeds[name], speeds[first], strict=True)]
            lines.append(
                f"| {name} | {_spread(speeds[name], 0)} | {_spread(ratios, 2)} "
                f"| {_spread([run['tokens'] for run in runs], 0)} | {_spread([run['seconds'] for run in runs], 1)} |"
            )
        lines += ["", *machine.lines(job["about"])]
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    low, high = (f"{value:,.{digits}f}" for value in (min(values), max(values)))
    return f"{median(values):,.{digits}f}" + ("" if low == high else f" ({low} to {high})")


def main(arguments: Sequence[str] | None = None) -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--prompts", type=int, default=32)
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--threads", type=int, default=machine.threads_here())
    words.add_argument("--shape", choices=sorted(SHAPES), default="60m")
    words.add_argument("--longest", type=int, default=400, help="tokens of a prompt or an answer, random weights")
    words.add_argument("--out", type=Path, default=Path(__file__).parent)
    words.add_argument("--jobs", nargs="+", choices=[WIND_TUNNEL, *sorted(SHAPES), real_model.NAME])
    real_model.add_options(words)
    told = words.parse_args(arguments)
    began, commit = datetime.now(UTC), machine.commit()
    import torch

    torch.set_num_threads(told.threads)
    file = told.out / "sampling.json"
    jobs = {job["name"]: job for job in json.loads(file.read_text(encoding="utf-8"))} if file.is_file() else {}
    for name in told.jobs or [WIND_TUNNEL, told.shape]:
        if name == real_model.NAME:
            job = real_model.measure(told, temperature=TEMPERATURE, log=told.out / "sampling.log")
        else:
            job = measure(
                embedded(told.prompts)
                if name == WIND_TUNNEL
                else random_weights(name, told.prompts, longest=told.longest),
                repeats=told.repeats,
            )
        about = machine.about("sampling.py", began, commit, threads=told.threads, peer=told.llama_python)
        jobs[name] = job | {"about": about}
    file.write_text(json.dumps(list(jobs.values()), indent=1) + "\n", encoding="utf-8")
    (told.out / "SAMPLING.md").write_text(text(list(jobs.values())), encoding="utf-8")


if __name__ == "__main__":
    main()
