"""What is measured of a run on real weights: held-out pairs, unrelated text, answers, and what training cost.

Dims: P pairs, R responses (chosen 2p, rejected 2p + 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from trimtab import objectives, store
from trimtab.engine import evaluation, models, next_token
from trimtab.engine.scoring import Scorer
from trimtab.records import TokenPair
from trimtab.runtime.folder import Folder

PACK_TOKENS = 1024
QUARTERS = 4
PARTS = ("held-out", "unrelated")


def logps(model: Path, folder: Path, *, adapter: Path | None = None) -> torch.Tensor:
    """[R] log-probs of a prepared folder's responses, nats, fp32; `adapter` None: of the untuned model."""
    policy = models.load(str(model), dtype="float32", device="cpu", offline=True).model
    if adapter is not None:
        policy = next_token.with_adapter(policy, adapter)
    dpo = objectives.make("dpo")  # weighs every token alike
    pairs = Folder(folder).train_pairs()
    return evaluation.score(Scorer(policy), pairs, objective=dpo, pack_tokens=PACK_TOKENS).double()


def measure(run: Path, *, model: Path, data: Path, before: Mapping[str, list[float]]) -> dict[str, Any]:
    """Of a finished run that answered: `held_out`, `course`, and tokens of each answer, before and after."""
    answers = {"answers": {name: _answer_tokens(path) for name, path in answer_files(run).items()}}
    return held_out(run, model=model, data=data, before=before) | course(run) | answers


def held_out(run: Path, *, model: Path, data: Path, before: Mapping[str, list[float]]) -> dict[str, Any]:
    """Of a finished run, with or without an adapter; `data` holds the prepared folders `held-out` and `unrelated`,
    `before` the untuned model's log-probs of both.

    log_ratios: [chosen, rejected] a held-out pair, nats; accuracy: share of pairs whose log-ratios are in order;
    drift: mean |log-ratio| a token of held-out responses, nats; unrelated_nll: nats a token before and after, of
    chosen responses alone.
    """
    trained = run / "model"
    is_adapter = (trained / "adapter_config.json").exists()
    after = {
        part: logps(model, data / part, adapter=trained) if is_adapter else logps(trained, data / part)
        for part in PARTS
    }
    ratios_R = after["held-out"] - torch.tensor(before["held-out"], dtype=torch.float64)
    tokens_R = _tokens(Folder(data / "held-out").train_pairs())
    chosen_P, rejected_P = ratios_R[0::2], ratios_R[1::2]
    n_unrelated = float(_tokens(Folder(data / "unrelated").train_pairs())[0::2].sum())
    unrelated = [sum(before["unrelated"][0::2]), float(after["unrelated"][0::2].sum())]
    return {
        "accuracy": float(((chosen_P > rejected_P).double() + 0.5 * (chosen_P == rejected_P).double()).mean()),
        "beta": beta(store.read_json(run / "config.json")["objective"]),
        "log_ratios": [[round(float(a), 4), round(float(b), 4)] for a, b in zip(chosen_P, rejected_P, strict=True)],
        "tokens": [[int(a), int(b)] for a, b in zip(tokens_R[0::2], tokens_R[1::2], strict=True)],
        "drift": float(ratios_R.abs().sum() / tokens_R.sum()),
        "unrelated_nll": [-logp / n_unrelated for logp in unrelated],
    }


def course(run: Path) -> dict[str, Any]:
    """active: percent of responses with a gradient, by side and quarter of the run; skipped_backward: mean share of
    response tokens; losses, one a step; sum_of_rates: of the learning rates of all steps."""
    steps = store.read_jsonl(run / "metrics.jsonl")
    return {
        "active": {side: _quarters([row[f"active/{side}"] for row in steps]) for side in ("chosen", "rejected")},
        "skipped_backward": fmean(row["skipped_backward"] for row in steps),
        "losses": [float(f"{row['loss']:.5g}") for row in steps],
        "sum_of_rates": float(f"{sum(row['learning_rate'] for row in steps):.5g}"),
        "seconds": {"train": steps[-1]["seconds"]},
    }


def beta(section: Mapping[str, Any]) -> float:
    """The β that the objective of a configuration has, given or its own."""
    given = {} if section["beta"] is None else {"beta": section["beta"]}
    return float(objectives.make(section["name"], **given).parameters()["beta"] or 0.0)


def _tokens(pairs: list[TokenPair]) -> torch.Tensor:
    return torch.tensor([len(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)])


def _quarters(values: list[float]) -> list[float]:
    n = len(values)
    parts = [values[n * i // QUARTERS : n * (i + 1) // QUARTERS] for i in range(QUARTERS)]
    return [round(100 * fmean(part), 1) for part in parts if part]


def answer_files(run: Path) -> dict[str, Path]:
    """Of the untuned and the aligned model."""
    before = sorted((run / "answers").glob("*.baseline.json"))
    after = [path for path in (run / "answers").glob("*.json") if path not in before]
    return {"before": before[0], "after": after[0]}


def _answer_tokens(path: Path) -> list[int]:
    return [int(row["n_tokens"]) for row in store.read_json(path)]
