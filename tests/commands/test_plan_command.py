"""`trimtab plan`: what it says is what the run then does, and it writes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trial_runs import TINY, call, rows_of, tree_of
from trimtab.commands import plan as plan_command
from trimtab.engine import kl, memory
from trimtab.engine.communication import ProcessPlan
from trimtab.engine.order import Order
from trimtab.engine.trie import LEAST_SHARED
from trimtab.records import TokenPair

WINDTUNNEL = ["--windtunnel.pairs", "120", "--train.max-steps", "2", "--benchmark", "none", "--judge", "none"]
UKP = ["--data.limit", "80", "--data.max-rejected", "1", "--train.max-steps", "2"]
CASES: dict[str, tuple[str, list[str]]] = {
    "windtunnel": ("", WINDTUNNEL),
    "stories260K full": ("stories260K", [*UKP, "--train.batch-pairs", "16"]),
    "cardputer lora": ("cardputer-chat-3M", [*UKP, "--adapter", "lora", "--data.max-prompt-tokens", "100",
                                            "--data.max-response-tokens", "150", "--train.batch-pairs", "4"]),
}  # fmt: skip


def in_a_process(words: list[str], home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *words],
        capture_output=True, text=True, check=False, env=os.environ | {"TRIMTAB_HOME": str(home)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def _beginnings(batch: list[dict[str, Any]]) -> int:
    """Distinct beginnings of the batch's sequences, among prompts that begin with the same tokens."""
    return len(
        {
            (tuple(row["prompt_ids"][:LEAST_SHARED]), tuple((row["prompt_ids"] + row[side])[:n]))
            for row in batch
            for side in ("chosen_ids", "rejected_ids")
            for n in range(1, len(row["prompt_ids"] + row[side]) + 1)
        }
    )


@pytest.mark.parametrize(
    "name", [n if n == "windtunnel" else pytest.param(n, marks=pytest.mark.needs_shared) for n in CASES]
)
def test_the_plan_is_what_the_run_does_and_memory_within_a_quarter(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, words = CASES[name]
    if model:
        shared = request.getfixturevalue("shared_data")
        words = [*words, "--model", str(shared / "models" / model), "--data",
                 str(shared / "pairs/ukp-convarg1-strict/pairs.jsonl")]  # fmt: skip
    out = tmp_path / "run"
    in_a_process(["run", *words, "--out", str(out), "--quiet"], tmp_path / "home")
    told: dict[str, Any] = tree_of(out / "plan.json")  # made by the same process before it loaded anything
    rows = rows_of(out / "metrics.jsonl")
    pairs = rows_of(out / "data/train.jsonl")
    tokens = [len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in pairs]
    numbers: dict[tuple[int, ...], int] = {}
    prompts = tuple(numbers.setdefault(tuple(row["prompt_ids"]), len(numbers)) for row in pairs)
    batch_pairs = -(-len(pairs) // told["train"]["steps_per_epoch"])
    order = Order(len(pairs), batch_pairs, 1, 0, prompts=prompts if told["train"]["group_by"] == "prompt" else None)
    beginnings = [_beginnings([pairs[i] for i in order.batch(step).indices]) for step in range(order.steps)]
    visits = rows_of(out / "visits.jsonl")
    assert [row["pairs"] for row in visits] == [list(order.batch(step).indices) for step in range(2)]
    steps = told["train"]
    assert steps["pairs"] == len(pairs)
    assert told["heldout_pairs"] == len(rows_of(out / "data/heldout.jsonl"))
    assert steps["steps"] == len(rows) == rows[-1]["step"] == 2
    assert (steps["tokens_per_epoch"], steps["longest_pair_tokens"]) == (sum(beginnings), max(tokens))
    assert steps["largest_batch_tokens"] == max(beginnings)
    assert max(row["learning_rate"] for row in rows) == pytest.approx(steps["learning_rate"])
    assert told["step_zero_loss"] == pytest.approx(rows[0]["loss"], abs=1e-4)
    ratio = told["engine"]["predicted_peak_bytes"] / rows[-1]["peak_memory_bytes"]
    print(f"{name}: predicted {told['engine']['predicted_peak_bytes'] / 1e6:.0f} MB, measured "
          f"{rows[-1]['peak_memory_bytes'] / 1e6:.0f} MB, ratio {ratio:.2f}")  # fmt: skip
    assert 0.75 <= ratio <= 1.25


def test_plan_speaks_to_people_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, said = call(["plan", *TINY, "--seeds", "3"], capsys)
    assert code == 0, said
    for word in (
        "parameters",
        "pairs",
        "steps",
        "tokens an epoch",
        "peak memory",
        "for each of 3 seeds",
        "3 checkpoints of",
    ):
        assert word in printed
    assert "about" not in printed
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_several_processes_says_what_each_does() -> None:
    each = ProcessPlan(
        4, "optimizer", tokens_a_step=1000.4, bytes_a_step=750_000_000, peak_bytes=2_000_000_000, seconds=60
    )
    (line,) = plan_command._process_lines(each)
    assert line.startswith("processes  4, engine.shard optimizer; each: 1,000 tokens a step, 750.00 MB sent a step")
    assert "peak memory 2.00 GB" in line
    assert plan_command._process_lines(None) == []


def test_a_plan_from_a_part_of_the_rows_says_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "many.jsonl"
    rows = [{"prompt": f"What is {n} plus {n}?", "chosen": f"{2 * n}.", "rejected": "No."} for n in range(1500)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["plan", "--model", "windtunnel", "--data", str(source), "--train.batch-pairs", "60"]
    code, printed, said = call(words, capsys)
    assert code == 0, said
    assert "about" in printed
    assert "from 1,000 of 1,500 rows" in printed
    told = json.loads(call([*words, "--json"], capsys)[1])
    assert (told["rows"], told["lengths_from"]) == (1500, 1000)
    assert told["train"]["pairs"] + told["heldout_pairs"] == pytest.approx(1500, abs=2)
    assert call([*words, "--data.limit", "1000"], capsys)[1].count("about") == 0


def test_a_plan_of_kto_counts_the_passes_of_its_kl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completions behind other prompts: a forward pass, a third of a token's training, and as many reference rows."""
    monkeypatch.setattr(memory, "matmul_speed", lambda *_: 1e10)
    source = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Say {n}.", "completion": f"{n} it is, {n}.", "label": n % 2 == 0} for n in range(40)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", "windtunnel", "--data", str(source), "--benchmark", "none", "--judge", "none", "--quiet"]
    kto, plain = (
        json.loads(call(["plan", *words[:-1], "--objective", name, "--json"], capsys)[1])
        for name in ("kto", "apo_zero_unpaired")
    )
    code, _, said = call(["prepare", *words, "--objective", "kto", "--out", str(tmp_path / "run")], capsys)
    assert code == 0, said
    prepared = [TokenPair.from_json(row) for row in rows_of(tmp_path / "run/data/train.jsonl")]
    (steps,) = {kto["train"]["steps_per_epoch"], plain["train"]["steps_per_epoch"]}
    assert steps > 1
    # the completions are those of the rows, dealt anew; what prompts of a batch share is computed once for both
    tokens, more = kto["train"]["tokens_per_epoch"], kto["train"]["kl_tokens_per_epoch"]
    assert more == pytest.approx(tokens, rel=0.05)
    assert 0 < more <= sum(row.n_tokens for row in kl.mismatches(prepared))
    assert plain["train"]["kl_tokens_per_epoch"] == 0
    assert kto["reference"]["rows"] == 2 * plain["reference"]["rows"] == 2 * len(prepared)
    seconds = [told["engine"]["predicted_training_seconds"] for told in (kto, plain)]
    assert seconds[0] / seconds[1] == pytest.approx(1 + more / (3 * tokens), rel=1e-3)
    printed = call(["plan", *words[:-1], "--objective", "kto"], capsys)[1]
    assert f"kl         {more:,} tokens an epoch more, in forward passes alone" in printed


def test_a_plan_refuses_what_the_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "bad.jsonl"
    rows = [{"prompt": f"What is {n}?", "chosen": "A number.", "rejected": ""} for n in range(20)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, printed, said = call(["plan", "--model", "windtunnel", "--data", str(source), "--json"], capsys)
    assert (code, printed) == (2, "")
    assert "none of the 20 rows is a usable pair" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl"]


def test_the_plan_follows_the_data_file_under_the_same_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "pairs.jsonl"

    def prepared(n: int) -> dict[str, Any]:
        rows = [{"prompt": f"What is {k} plus {k}?", "chosen": f"{2 * k}.", "rejected": "No."} for k in range(n)]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = ["prepare", "--model", "windtunnel", "--data", str(source), "--out", str(tmp_path / "run"), "--quiet"]
        code, _, said = call(words, capsys)
        assert code == 0, said
        told: dict[str, Any] = tree_of(tmp_path / "run" / "plan.json")
        return told

    assert prepared(40)["rows"] == 40
    told = prepared(60)
    assert told["rows"] == 60
    assert told["train"]["pairs"] == len(rows_of(tmp_path / "run/data/train.jsonl"))
    monkeypatch.setattr(plan_command, "plan", lambda *_, **__: pytest.fail("planned again though nothing changed"))
    assert prepared(60) == told


def test_plan_json_in_the_run_folder_is_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, "--out", str(tmp_path / "run")]
    told = json.loads(call(["plan", *words, "--json"], capsys)[1])
    assert call(["prepare", *words, "--quiet"], capsys)[0] == 0
    kept = tree_of(tmp_path / "run" / "plan.json")
    for tree in (told, kept):  # depend on what else the process holds
        tree["engine"].pop("predicted_training_seconds")
        tree["engine"].pop("predicted_peak_bytes")
        tree["engine"].pop("leaner")
    assert kept == told
