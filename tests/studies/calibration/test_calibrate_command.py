"""`trimtab calibrate` on real runs of seconds: every number again by plain transformers, and what it refuses."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trial_runs import TINY, alone, call, contents, rows_of, tree_of
from trimtab import cli, store, windtunnel

SHORT = (*TINY, *("--train.learning-rate", "0.005"), *("--benchmark", "none"), *("--judge", "none"), "--quiet")
HELD = ("--data.holdout", "0.4")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One full run, one with LoRA and two seeds."""
    parent = tmp_path_factory.mktemp("calibrate")
    with alone(parent / "home"):
        cli.main(["run", *SHORT, *HELD, "--out", str(parent / "full")])
        cli.main(["run", *SHORT, *HELD, "--adapter", "lora", "--seeds", "2", "--out", str(parent / "lora")])
    return parent


@pytest.fixture(autouse=True)
def _own_warnings() -> Iterator[None]:
    """The command line sends warnings to a stream that closes with the test; others want them as they were."""
    logger = logging.getLogger("trimtab")
    handlers, propagate = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate


def plain(model: Any, row: dict[str, Any], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities before every token of a response [N, V], fp64, and the tokens."""
    prompt, response = row["prompt_ids"], row[f"{side}_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1), torch.tensor(response)


def again(folder: Path, policy: Any, base: Any) -> dict[str, float]:
    """Every mean over tokens, without trimtab."""
    sums: dict[str, list[torch.Tensor]] = {}
    for row in rows_of(folder / "data" / "heldout.jsonl"):
        found = {name: plain(model, row, "chosen") for name, model in (("aligned", policy), ("unaligned", base))}
        for name, (logps, tokens) in found.items():
            top, which = logps.max(-1)
            nll = -logps[range(len(tokens)), tokens]
            right = (which == tokens).double()
            for key, values in (
                ("nll", nll), ("entropy", -(logps.exp() * logps).sum(-1)), ("confidence", top.exp()),
                ("accuracy", right), ("brier", (top.exp() - right) ** 2),
            ):  # fmt: skip
                sums.setdefault(f"{name} {key}", []).append(values)
        own, other = found["aligned"][0], found["unaligned"][0]
        sums.setdefault("divergence", []).append((own.exp() * (own - other)).sum(-1))
        own, tokens = plain(policy, row, "rejected")
        other, _ = plain(base, row, "rejected")
        sums.setdefault("rejected", []).append((own - other)[range(len(tokens)), tokens])
    told = {name: float(torch.cat(values).mean()) for name, values in sums.items()}
    for name in ("aligned", "unaligned"):
        sure, right = (torch.cat(sums[f"{name} {key}"]).numpy() for key in ("confidence", "accuracy"))
        which = np.minimum((sure * 10).astype(int), 9)
        told[f"{name} ece"] = sum(abs((right - sure)[which == b].sum()) for b in range(10)) / len(sure)
    return told


def agrees(told: dict[str, Any], truth: dict[str, float]) -> None:
    for name in ("aligned", "unaligned"):
        side = told["next_token"][name]
        for key in ("nll", "entropy", "accuracy", "brier"):
            assert side[key]["value"] == pytest.approx(truth[f"{name} {key}"], abs=1e-5), (name, key)
            low, high = side[key]["ci95"]
            assert low < side[key]["value"] < high
        over = truth[f"{name} confidence"] - truth[f"{name} accuracy"]
        assert side["over_confidence"]["value"] == pytest.approx(over, abs=1e-5)
        assert side["perplexity"]["value"] == pytest.approx(math.exp(truth[f"{name} nll"]), abs=1e-4)
        assert side["ece"] == pytest.approx(truth[f"{name} ece"], abs=1e-5)
    moved = truth["aligned nll"] - truth["unaligned nll"]
    assert told["next_token"]["change"]["nll"]["value"] == pytest.approx(moved, abs=1e-5)
    assert told["drift"]["log_ratio_chosen"]["value"] == pytest.approx(-moved, abs=1e-5)
    assert told["drift"]["log_ratio_rejected"]["value"] == pytest.approx(truth["rejected"], abs=1e-5)
    assert told["drift"]["divergence"]["value"] == pytest.approx(truth["divergence"], abs=1e-5)
    assert truth["divergence"] > 1e-4  # something moved


def reward_agrees(told: dict[str, Any], heldout: dict[str, Any]) -> None:
    gaps = np.array(heldout["after"]["reward_gaps"])
    probability = 1 / (1 + np.exp(-gaps))
    after = told["reward_gap"]["after"]
    assert after["accuracy"]["value"] == pytest.approx(heldout["after"]["accuracy"])
    assert after["brier"]["value"] == pytest.approx(float(((1 - probability) ** 2).mean()))
    assert after["reward_gap"]["value"] == pytest.approx(float(gaps.mean()))
    sure = np.maximum(probability, 1 - probability)
    assert after["over_confidence"]["value"] == pytest.approx(float((sure - (gaps > 0)).mean()))
    assert told["reward_gap"]["before"] is None
    assert "by construction" in told["reward_gap"]["note"]
    assert heldout["before"]["reward_gap"] == 0.0


def drift_is_the_gap(told: dict[str, Any]) -> None:
    """What was measured here along tokens is what the run recorded by response: β·(Σ chosen − Σ rejected) a pair."""
    tokens, drift = told["n_tokens"], told["drift"]
    apart = (
        drift["log_ratio_chosen"]["value"] * tokens["chosen"]
        - drift["log_ratio_rejected"]["value"] * tokens["rejected"]
    )
    gap = told["objective"]["beta"] * apart / told["n_pairs"]
    assert told["reward_gap"]["after"]["reward_gap"]["value"] == pytest.approx(gap, abs=1e-5)


def test_a_full_run_again_by_plain_transformers(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM

    folder = runs / "full"
    before = contents(folder)
    code, printed, said = call(["calibrate", folder, "--json"], capsys)
    assert code == 0, said
    told = json.loads(printed)
    assert told == tree_of(folder / "calibration.json")
    policy, base = (
        AutoModelForCausalLM.from_pretrained(path) for path in (folder / "model", windtunnel.model_folder())
    )
    agrees(told, again(folder, policy.eval(), base.eval()))
    reward_agrees(told, tree_of(folder / "heldout.json"))
    drift_is_the_gap(told)
    assert told["n_pairs"] == len(rows_of(folder / "data" / "heldout.jsonl")) > 5
    assert told["by_seed"] == []
    assert set(contents(folder)) - set(before) == {"calibration.html", "calibration.json"}
    assert all(contents(folder)[name] == content for name, content in before.items())  # nothing else was touched


def test_two_seeds_with_lora(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = runs / "lora"
    code, printed, said = call(["calibrate", folder, "--json"], capsys)
    assert code == 0, said
    told = json.loads(printed)
    assert [one["seed"] for one in told["by_seed"]] == told["seeds"] == [0, 1]
    truths = []
    for one in told["by_seed"]:
        own = folder / f"seed-{one['seed']}"
        base = AutoModelForCausalLM.from_pretrained(windtunnel.model_folder()).eval()
        policy = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(windtunnel.model_folder()), own / "model"
        )
        truths.append(again(own, policy.eval(), base))
        agrees(one, truths[-1])
        reward_agrees(one, tree_of(own / "heldout.json"))
    pooled = told["drift"]["divergence"]
    assert pooled["value"] == pytest.approx(np.mean([truth["divergence"] for truth in truths]), abs=1e-5)
    assert pooled["n_seeds"] == 2
    assert told["next_token"]["unaligned"]["ece"] == pytest.approx(truths[0]["unaligned ece"], abs=1e-5)


def test_the_page_and_the_terminal(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, said = call(["calibrate", runs / "full"], capsys)
    assert code == 0, said
    told = tree_of(runs / "full" / "calibration.json")
    page = (runs / "full" / "calibration.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 2
    assert not re.search(r"<script|https?://|<link|@import", page)
    assert "default-src 'none'" in page
    for sentence in told["headline"]:
        assert sentence["text"].replace("**", "") in printed
    assert f"{told['next_token']['aligned']['perplexity']['value']:.3f}" in printed
    assert f"{told['next_token']['aligned']['perplexity']['value']:.3f}" in page
    assert "held-out pairs" in said


def test_a_reference_free_objective_is_calibrated_before_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(tmp_path / "home"):
        cli.main(["run", *SHORT, *HELD, "--objective", "simpo", "--out", str(tmp_path / "run")])
    code, printed, said = call(["calibrate", tmp_path / "run", "--json"], capsys)
    assert code == 0, said
    before = json.loads(printed)["reward_gap"]["before"]
    gaps = np.array(tree_of(tmp_path / "run" / "heldout.json")["before"]["reward_gaps"])
    assert before["accuracy"]["value"] == pytest.approx(float((gaps > 0).mean()))
    assert before["reward_gap"]["value"] == pytest.approx(float(gaps.mean()))
    assert np.abs(gaps).max() > 0


def refused(words: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    code, printed, said = call(["calibrate", *map(str, words)], capsys)
    assert code == 2
    assert not printed
    assert "→" in said
    return said


def rewritten(folder: Path, name: str, text: str) -> None:
    """As if the stage that made the file had left this."""
    (folder / name).write_text(text)
    for note in (folder / ".stages").glob("*.json"):
        told = tree_of(note)
        if name in told["outputs"]:
            told["outputs"][name] = store.file_digest(folder / name)
            note.write_text(json.dumps(told))


def test_what_cannot_be_calibrated_says_why(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such run folder" in refused([tmp_path / "nowhere"], capsys)
    assert "no config.json" in refused([tmp_path], capsys)
    unfinished = shutil.copytree(runs / "full", tmp_path / "unfinished")
    shutil.rmtree(unfinished / "model")
    (unfinished / "calibration.json").unlink(missing_ok=True)
    said = refused([unfinished], capsys)
    assert "no trained model yet" in said
    assert "--resume" in said
    none = shutil.copytree(runs / "full", tmp_path / "none")
    rewritten(none, "data/heldout.jsonl", "")
    said = refused([none], capsys)
    assert "held out no pairs" in said
    assert "--data.holdout" in said
    other = shutil.copytree(runs / "full", tmp_path / "other")
    rows = (other / "data" / "heldout.jsonl").read_text().splitlines(keepends=True)
    rewritten(other, "data/heldout.jsonl", "".join(rows[1:]))
    assert "does not speak of the pairs" in refused([other], capsys)
    seeds = shutil.copytree(runs / "lora", tmp_path / "seeds")
    shutil.rmtree(seeds / "seed-1" / "model")
    assert "seed-1 has no trained model yet" in refused([seeds], capsys)
    assert not (unfinished / "calibration.json").exists()


def with_gaps(folder: Path, gaps: list[float]) -> None:
    """As if the run had recorded these reward gaps after training."""
    heldout = tree_of(folder / "heldout.json")
    heldout["after"]["reward_gaps"] = gaps
    rewritten(folder, "heldout.json", json.dumps(heldout))


def test_over_and_under_confidence_that_cancel_are_no_calibration(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the pairs sure (σ(5) = .993) and right half of the time, half unsure (σ(.02) = .505) and always right:
    confidence and accuracy are both near 75 %, and the error is .49 where chance alone stays below about .2."""
    folder = shutil.copytree(runs / "full", tmp_path / "run")
    n = len(rows_of(folder / "data" / "heldout.jsonl"))
    assert n % 4 == 0
    with_gaps(folder, [5.0, -5.0, 0.02, 0.02] * (n // 4))
    code, printed, said = call(["calibrate", folder, "--json"], capsys)
    assert code == 0, said
    tree = json.loads(printed)
    after, sentence = tree["reward_gap"]["after"], tree["headline"][0]
    low, high = after["over_confidence"]["ci95"]
    assert low < 0 < high
    assert after["ece"] == pytest.approx(0.49, abs=0.01)
    assert after["ece"] > after["ece_by_chance"]["below95"]
    assert "**miscalibrated**" in sentence["text"]
    assert "not distinguishable" not in sentence["text"]
    assert sentence["tone"] == "warn"
    with_gaps(folder, [1.0986, 1.0986, 1.0986, -1.0986] * (n // 4))  # σ(ln 3) = .75, three of four right
    code, printed, said = call(["calibrate", folder, "--json"], capsys)
    assert code == 0, said
    text = json.loads(printed)["headline"][0]["text"]
    assert "**not distinguishable**" in text
    assert "miscalibrated" not in text


def test_one_pair_has_no_interval(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(runs / "full", tmp_path / "one")
    rows = (folder / "data" / "heldout.jsonl").read_text().splitlines(keepends=True)
    rewritten(folder, "data/heldout.jsonl", rows[0])
    heldout = tree_of(folder / "heldout.json")
    heldout["after"]["reward_gaps"] = heldout["after"]["reward_gaps"][:1]
    rewritten(folder, "heldout.json", json.dumps(heldout | {"ids": heldout["ids"][:1]}))
    code, printed, said = call(["calibrate", folder, "--json"], capsys)
    assert code == 0, said
    told = json.loads(printed)
    assert told["next_token"]["change"]["nll"]["value"] is not None
    assert told["next_token"]["change"]["nll"]["ci95"] is None
    assert told["reward_gap"]["after"]["accuracy"]["ci95"] is None
    assert told["next_token"]["aligned"]["ece_by_chance"]["mean"] is None
    assert "no interval" in told["headline"][1]["text"]
    assert "too few pairs to tell over- from under-confidence" in told["headline"][0]["text"]


def test_a_moved_run_folder_is_read_where_it_is(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = shutil.copytree(runs / "full", tmp_path / "moved here")
    (moved / "calibration.json").unlink(missing_ok=True)
    code, _, said = call(["calibrate", moved], capsys)
    assert code == 0, said
    assert (moved / "calibration.json").is_file()
    assert "'" in tree_of(moved / "calibration.json")["command"]  # the space is quoted
