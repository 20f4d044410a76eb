"""What computing shared text once saves: seconds a pair of this build against an earlier one, in one run, taking turns.

    git worktree add ../earlier 94a410f
    python benchmarks/shared_text.py --model MODEL --pairs-file ukp-convarg1-strict/pairs.jsonl --earlier ../earlier/src

Two cases on one model with its real weights, each a whole optimizer step (gradient, clip, update) of which every pair
is active:

    ranked   a prompt of 140 tokens with four completions of 150 to 320, and the six pairs that they make, cut from
             the file's texts
    real     16 pairs of a file, in the batches that each build makes of it with its defaults

Writes `shared_text.json` (every single measurement) and `SHARED_TEXT.md`. With `--worker` it is the side that measures:
it runs on whichever build its PYTHONPATH names, so it asks for nothing that the earlier one has not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import machine
from workload import TokenIds

HERE = Path(__file__).parent
PACK_TOKENS = 2048  # a run takes 1,024 on a CPU, and up to this for a prompt with all its responses
BATCH_PAIRS = 16
LORA = {"rank": 16, "alpha": 32.0}
SIDES = ("earlier", "this")


def main() -> None:
    options = _options()
    if options.worker:
        _work(options)
        return
    sys.path.insert(0, str(HERE.parent / "src"))  # this build's order, whatever is installed
    began, commit = datetime.now(UTC), machine.commit()
    batches = {"ranked": _ranked(options), "real": _real(options)}
    rows: list[dict[str, Any]] = []
    with _side(options, options.earlier) as earlier, _side(options, HERE.parent / "src") as this:
        sides = dict(zip(SIDES, (earlier, this), strict=True))
        for case, by_side in batches.items():
            for turn in range(options.turns + 1):  # the first is a warm-up
                for side in SIDES if turn % 2 else SIDES[::-1]:
                    batch = by_side[side][turn % len(by_side[side])]
                    row = {"case": case, "side": side, "turn": turn, **_ask(sides[side], batch)}
                    print(json.dumps(row), flush=True)
                    rows += [row] if turn else []
    about = machine.about("shared_text.py", began, commit, threads=options.threads)
    about |= {"earlier": options.earlier_name, "model": options.model_name, "adapter": options.adapter}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "shared_text.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    (options.out / "SHARED_TEXT.md").write_text(page(about, rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What computing shared text once saves, against an earlier build.")
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--model", required=True, help="folder of a transformers model with a chat template")
    parser.add_argument("--model-name", default="SmolLM2-135M-Instruct", help="for the page")
    parser.add_argument("--pairs-file", type=Path, help="JSON lines with prompt, chosen and rejected")
    parser.add_argument("--earlier", type=Path, help="src folder of the build to compare with")
    parser.add_argument("--earlier-name", default="94a410f", help="its commit, for the page")
    parser.add_argument("--adapter", choices=("lora", "none"), default="lora")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=machine.threads_here())
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


# --- what is computed ------------------------------------------------------------------------------------------------


def _ranked(options: argparse.Namespace) -> dict[str, list[list[TokenIds]]]:
    """The same pairs for both builds: stretches of the file's responses. Of tokens drawn by chance a model with real
    weights is so unsure that rounding alone exceeds what the self-check allows."""
    from transformers import AutoTokenizer

    rows = (json.loads(line) for line in options.pairs_file.read_text(encoding="utf-8").splitlines())
    text = " ".join(dict.fromkeys(row["chosen"] for row in itertools.islice(rows, 4_000)))
    stream = iter(AutoTokenizer.from_pretrained(options.model)(text, add_special_tokens=False).input_ids)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(itertools.islice(stream, n))

    prompt, completions = ids(140), [ids(n) for n in (150, 205, 260, 320)]
    assert len(completions[-1]) == 320, "the file's texts are too short"
    pairs = [(prompt, a, b) for a, b in itertools.combinations(completions, 2)]
    return {side: [pairs] for side in SIDES}


def _real(options: argparse.Namespace) -> dict[str, list[list[TokenIds]]]:
    """The first batches of an epoch: of the earlier build in its order, of this one in that of its default."""
    from transformers import AutoTokenizer

    from trimtab.config.sections import TrainSection
    from trimtab.engine.grouping import order_by
    from trimtab.engine.order import Order
    from trimtab.records import TokenPair

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = [json.loads(line) for line in options.pairs_file.read_text(encoding="utf-8").splitlines()]

    def prompt_ids(text: str) -> tuple[int, ...]:
        chat = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return tuple(tokenizer(whole, add_special_tokens=False).input_ids)

    def response_ids(text: str) -> tuple[int, ...]:
        return (*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id)

    prompts = {text: prompt_ids(text) for text in {row["prompt"] for row in rows}}
    responses = {text: response_ids(text) for text in {row[side] for row in rows for side in ("chosen", "rejected")}}
    pairs = [
        TokenPair(str(i), prompts[row["prompt"]], responses[row["chosen"]], responses[row["rejected"]])
        for i, row in enumerate(rows)
    ]
    plain = Order(len(pairs), BATCH_PAIRS, 1, seed=0)
    default = TrainSection.model_fields["group_by"].default
    orders = {"earlier": plain, "this": order_by(default, plain, pairs)}
    return {side: [[_ids(pairs[i]) for i in order.batch(step).indices] for step in range(options.turns + 1)]
            for side, order in orders.items()}  # fmt: skip


def _ids(pair: Any) -> TokenIds:
    return pair.prompt_ids, pair.chosen_ids, pair.rejected_ids


# --- the side that measures ------------------------------------------------------------------------------------------


def _work(options: argparse.Namespace) -> None:
    """A batch a line on stdin, what its step took on stdout."""
    import torch

    from trimtab import objectives
    from trimtab.engine import gradient, models, trainable
    from trimtab.engine.optim import AdamW
    from trimtab.engine.scoring import Scorer
    from trimtab.records import TokenPair

    torch.set_num_threads(options.threads)
    model = models.load(options.model, dtype="float32", device="cpu").model
    if options.adapter == "lora":
        model = trainable.attach_lora(model, **LORA)
    optimizer = AdamW(model, weight_decay=0.0)
    trainable.lean_embedding(model)
    scorer, objective = Scorer(model, packed="on"), objectives.make("ipo")
    for line in sys.stdin:
        pairs = [TokenPair(str(i), *map(tuple, ids)) for i, ids in enumerate(json.loads(line))]
        start, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_gradients()
        # the squared loss has no dead zone: with any reference every pair keeps its gradient
        result = gradient.accumulate(
            scorer,
            pairs,
            objective=objective,
            reference_logps_R=torch.zeros(2 * len(pairs)),
            pack_tokens=PACK_TOKENS,
        )
        optimizer.clip(1.0)
        optimizer.step(learning_rate=1e-9)
        seconds = time.perf_counter() - start
        share = (time.process_time() - cpu) / seconds / options.threads
        assert bool(result.active_R.all()), "every pair is active"
        reply = {"pairs": len(pairs), "seconds": seconds, "tokens": result.forward_tokens, "cpu_share": share}
        print(json.dumps(reply), flush=True)


@contextmanager
def _side(options: argparse.Namespace, source: Path) -> Iterator[subprocess.Popen[str]]:
    words = ["--worker", "--model", options.model, "--adapter", options.adapter, "--threads", str(options.threads)]
    environment = machine.environment(options.threads) | {"PYTHONPATH": os.pathsep.join([str(source), str(HERE)])}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _ask(process: subprocess.Popen[str], batch: list[TokenIds]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(batch) + "\n")
    process.stdin.flush()
    reply: dict[str, Any] = json.loads(process.stdout.readline())
    return reply


# --- the page --------------------------------------------------------------------------------------------------------

_CASES = {"ranked": "four completions, six pairs a prompt", "real": "ukp-convarg1-strict, 16 pairs a batch"}


def page(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Medians, and what one is of the other."""
    table = [
        "| case | tokens a pair, earlier / this | s a pair, earlier / this | times cheaper |",
        "|---|---|---|---|",
    ]
    for case, name in _CASES.items():
        of = {side: [row for row in rows if (row["case"], row["side"]) == (case, side)] for side in SIDES}
        tokens, seconds = (
            [median(row[what] / row["pairs"] for row in of[side]) for side in SIDES] for what in ("tokens", "seconds")
        )
        table.append(
            f"| {name} | {tokens[0]:.0f} / {tokens[1]:.0f} | {seconds[0]:.2f} / {seconds[1]:.2f} | "
            f"{seconds[0] / seconds[1]:.2f} |"
        )
    return "\n".join(
        [
            "# Shared text, computed once",
            "",
            f"Against commit {about['earlier']}, {about['model']}, fp32, "
            f"{'LoRA rank 16' if about['adapter'] == 'lora' else 'all weights'}, packs of {PACK_TOKENS:,} tokens, "
            "every pair active. Medians of the turns in `shared_text.json`; real pairs in the order that each build "
            "gives them with its defaults.",
            "",
            *table,
            "",
            *machine.lines(about),
        ]
    )


if __name__ == "__main__":
    main()
