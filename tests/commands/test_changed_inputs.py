"""A finished run whose pairs, tokenizer or weights changed since is refused before a byte of it is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trial_runs import call, contents, tree_of
from trimtab import windtunnel

DIALS = ("--train.max-steps", "2", "--train.batch-pairs", "8", "--engine.threads", "1")


def write_pairs(path: Path, n: int) -> None:
    rows = [{"prompt": f"What is {k} plus {k}?", "chosen": f"It is {2 * k}.", "rejected": "No."} for k in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def words(folder: Path) -> list[str]:
    model, data = (str(folder / name) for name in ("model", "pairs.jsonl"))
    return ["--model", model, "--data", data, "--out", str(folder / "run"), *DIALS]


@pytest.fixture
def finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with a model and pairs of its own, and a run on them."""
    shutil.copytree(windtunnel.model_folder(), tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", 24)
    code, _, errors = call(["run", *words(tmp_path), "--quiet"], capsys)
    assert code == 0, errors
    return tmp_path


def more_pairs(folder: Path) -> None:
    write_pairs(folder / "pairs.jsonl", 25)


def other_template(folder: Path) -> None:
    path = folder / "model" / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["chat_template"] = config["chat_template"] + "\n"
    path.write_text(json.dumps(config), encoding="utf-8")


def other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1e-3
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (more_pairs, "the pairs of"),
        (other_template, "the tokenizer or chat template of"),
        (other_weights, "the weights of"),
    ],
)
def test_a_run_that_was_trained_on_other_inputs_is_refused_whole(
    finished: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], named: str
) -> None:
    before = contents(finished / "run")
    change(finished)
    for command in (["run"], ["prepare"], ["train"], ["run", "--resume"], ["run", "--resume-anyway"]):
        code, _, errors = call([*command, *words(finished), "--quiet"], capsys)
        assert code == 2, errors
        assert named in errors
        assert "--out" in errors
    assert contents(finished / "run") == before


def test_a_changed_held_out_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pairs to train on were said to have changed. A run of an earlier version cannot tell which did."""
    shutil.copytree(windtunnel.model_folder(), tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", 24)
    held, notes = tmp_path / "held.jsonl", tmp_path / "run" / "training_inputs.json"

    def write_held(answer: str) -> None:
        row = {"prompt": "Who are you?", "chosen": answer, "rejected": "No."}
        held.write_text(json.dumps(row) + "\n", encoding="utf-8")

    again = ["run", *words(tmp_path), "--data.eval", str(held), "--quiet"]
    write_held("I.")
    assert call(again, capsys)[0] == 0
    write_held("You.")
    code, _, errors = call(again, capsys)
    assert (code, f"was trained before the held-out pairs of {held} changed" in errors) == (2, True), errors
    more_pairs(tmp_path)
    both = f"the pairs of {tmp_path / 'pairs.jsonl'} and the held-out pairs of {held} changed"
    assert both in call(again, capsys)[2]
    write_held("I.")
    assert f"before the pairs of {tmp_path / 'pairs.jsonl'} changed" in call(again, capsys)[2]
    tree = tree_of(notes)
    notes.write_text(json.dumps({name: tree[name] for name in ("pairs", "tokenizer", "weights")}), encoding="utf-8")
    assert both.replace(" and ", " or ") in call(again, capsys)[2]
    write_pairs(tmp_path / "pairs.jsonl", 24)
    assert call(again, capsys)[0] == 0


def test_what_only_reads_the_model_goes_on_beside_the_plan_that_it_was_trained_by(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished / "run")
    prompts = finished / "prompts.json"
    prompts.write_text(json.dumps([{"instruction": "What is 2 plus 2?", "output": "4."}]), encoding="utf-8")
    more_pairs(finished)
    evaluation = ["--benchmark", str(prompts), "--generate.max-new-tokens", "4"]
    code, _, errors = call(["generate", *words(finished), *evaluation, "--quiet"], capsys)
    assert code == 0, errors
    assert call(["report", *words(finished), *evaluation, "--quiet"], capsys)[0] == 0
    after = contents(finished / "run")
    assert tree_of(finished / "run" / "config.json")["benchmark"]["name"] == str(prompts)
    for name in ("plan.json", "training_inputs.json", "data/audit.json", "data/train.jsonl", "model/model.safetensors"):
        assert after[name] == before[name]


def test_the_same_inputs_again_are_not_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more_pairs(finished)
    assert call(["run", *words(finished), "--quiet"], capsys)[0] == 2
    write_pairs(finished / "pairs.jsonl", 24)
    before = contents(finished / "run")
    assert call(["run", *words(finished), "--quiet"], capsys)[0] == 0
    assert contents(finished / "run").keys() == before.keys()


def test_a_run_of_an_earlier_version_is_noted_when_it_is_next_met(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "run" / "training_inputs.json").unlink()
    assert call(["report", *words(finished), "--quiet"], capsys)[0] == 0
    more_pairs(finished)
    assert call(["run", *words(finished), "--quiet"], capsys)[0] == 2


def test_pairs_may_change_before_the_first_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(windtunnel.model_folder(), tmp_path / "model")
    for n in (24, 30):
        write_pairs(tmp_path / "pairs.jsonl", n)
        code, _, errors = call(["prepare", *words(tmp_path), "--quiet"], capsys)
        assert code == 0, errors
        assert tree_of(tmp_path / "run" / "data" / "audit.json")["rows"] == n
