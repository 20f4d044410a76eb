"""`trimtab check`: lm-eval on local files, sample by sample against plain transformers, kept, and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stage_runs import Recorder
from trial_runs import TINY, alone
from trimtab import cli, store
from trimtab.commands import check
from trimtab.engine import models
from trimtab.errors import ConfigError, DataError, StoreError
from trimtab.reporting.numbers.check import check_numbers
from trimtab.reporting.words import check as words
from trimtab.runtime import capability

pytestmark = pytest.mark.filterwarnings("ignore")  # of lm-eval's own packages

COLOURS = ("red", "blue", "green")
QUESTIONS = [
    {"question": f"Which colour is number {n} ?", "choices": list(COLOURS), "answer": n % 3} for n in range(1, 13)
]


def write_task(folder: Path, *, name: str = "colours", **changes: Any) -> Path:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    tree = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(data), "cache_dir": str(folder / "cache")},
        "test_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(tree | changes))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("check")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A run of seconds at a rate that moves the model."""
    words = ("--train.learning-rate", "0.005", "--benchmark", "none", "--judge", "none", "--quiet")
    with alone(home / "home"):
        cli.main(["run", *TINY, *words, "--out", str(home / "run")])
    return home / "run"


def asked_plainly(folder: Path) -> list[float]:
    """Whether the likeliest answer is the right one, by log-probabilities of its text behind the question."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    right = []
    for row in QUESTIONS:
        scores = []
        for choice in row["choices"]:
            whole = tokenizer(f"{row['question']} {choice}", add_special_tokens=False).input_ids
            n = len(tokenizer(row["question"], add_special_tokens=False).input_ids)
            with torch.no_grad():
                logps = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            scores.append(sum(float(logps[at - 1, whole[at]]) for at in range(n, len(whole))))
        right.append(float(scores.index(max(scores)) == row["answer"]))
    return right


def test_every_sample_is_what_plain_transformers_says_and_the_report_answers(run: Path, home: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs pip install 'trimtab[check]'")
    from trimtab import windtunnel

    result = check.main(str(run), tasks=str(write_task(home)), reporter=Recorder())
    tree = store.read_json(run / "check.json")
    assert tree["unaligned"][0]["metrics"]["acc"] == asked_plainly(windtunnel.model_folder())
    assert tree["seeds"][0]["tasks"][0]["metrics"]["acc"] == asked_plainly(run / "model")
    [measure] = result.numbers.measures
    assert (measure.task, measure.measure, measure.change.difference.n) == ("colours", "acc", 12)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Did it harm?" in page
    assert store.read_json(run / "report.json")["check"]["measures"][0]["measure"] == "acc"
    assert any("No harm" in line or "harm" in line for line in check.lines(result))


def test_what_was_answered_is_not_asked_again_and_another_model_is(
    run: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs pip install 'trimtab[check]'")
    task = str(write_task(home, name="twice"))
    first = check.main(str(run), tasks=task, limit=5, reporter=Recorder())
    loads: list[str] = []
    real = models.load
    monkeypatch.setattr(models, "load", lambda name, **options: (loads.append(name), real(name, **options))[1])
    again = check.main(str(run), tasks=task, limit=5, reporter=Recorder())
    assert loads == []
    assert again.to_json() == first.to_json()
    assert first.numbers.measures[0].change.difference.n == 5
    check.main(str(run), tasks=task, limit=6, reporter=Recorder())
    assert len(loads) == 2  # other samples, both models
    write_task(home, name="twice", doc_to_text="Say: {{question}}")
    check.main(str(run), tasks=task, limit=5, reporter=Recorder())
    assert len(loads) == 4  # another task of that name


def test_a_task_that_cannot_be_had_is_said_in_one_message(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs pip install 'trimtab[check]'")
    before = (run / "check.json").read_bytes() if (run / "check.json").is_file() else None

    def refused(tasks: str, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            check.main(str(run), tasks=tasks, offline=True, reporter=Recorder())

    broken = tmp_path / "broken.yaml"
    broken.write_text("task: [a\n  b: }")
    refused(str(broken), ConfigError, r"broken\.yaml: lm-eval cannot read this task")
    refused(str(tmp_path / "none.yaml"), ConfigError, "there is no such file")
    refused(str(write_task(tmp_path, name="wrong", output_type="riddles")), ConfigError, "cannot read this task")
    refused("arc_easi", ConfigError, "has no task 'arc_easi'")
    refused("arc_easy", DataError, "the documents of arc_easy cannot be had")
    refused(" , ", ConfigError, "nothing to ask")
    colours = write_task(tmp_path)
    refused(f"{colours},{colours}", ConfigError, "task colours is asked already")
    after = (run / "check.json").read_bytes() if (run / "check.json").is_file() else None
    assert before == after


def test_without_lm_eval_it_says_how_to_get_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        check.main(str(run), tasks="x.yaml", reporter=Recorder())
    assert "trimtab[check]" in str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability.util, "find_spec", lambda _name: object())
    with pytest.raises(ConfigError, match="no run folder"):
        check.main(str(tmp_path), tasks="x.yaml", reporter=Recorder())


# --- the numbers, without lm-eval ------------------------------------------------------------------------------------


def tree_of(before: list[float], *afters: list[float], up: bool = True, task: str = "colours") -> dict[str, Any]:
    def scores(values: list[float]) -> dict[str, Any]:
        samples = [str(n) for n in range(len(values))]
        return capability.TaskScores(
            task, tuple(samples), {"acc": tuple(values)}, {"acc": up}, ("perplexity",)
        ).to_json()

    return {
        "format": 1,
        "lm_eval": "0",
        "limit": None,
        "chat": False,
        "unaligned": [scores(before)],
        "seeds": [{"seed": k, "tasks": [scores(after)]} for k, after in enumerate(afters)],
    }


def text(tree: dict[str, Any]) -> str:
    return " ".join(sentence.text.replace("\u00a0", " ") for sentence in words.check(check_numbers(tree)))


def test_before_after_and_the_paired_difference_by_hand() -> None:
    """40 samples: 30 right before, 20 after, all of those right before; Tango's interval of 0 gained and 10 lost."""
    numbers = check_numbers(tree_of([1.0] * 30 + [0.0] * 10, [1.0] * 20 + [0.0] * 20))
    [measure] = numbers.measures
    assert measure.change.before.value == 0.75
    assert measure.change.after.value == 0.5
    assert measure.change.difference.value == -0.25
    assert measure.change.difference.ci95 == pytest.approx((-0.40194, -0.14047), abs=1e-4)
    assert measure.direction == "below"
    assert numbers.left_out == ("colours perplexity",)


def test_what_it_says_of_harm() -> None:
    before = [1.0] * 30 + [0.0] * 10
    assert "**It did harm** on lm-eval's tasks (1 task, 1 measure in all): colours acc (−25.0 points" in text(
        tree_of(before, [1.0] * 20 + [0.0] * 20)
    )
    same = text(tree_of(before, before))
    assert "No harm on lm-eval's tasks, as far as these samples can tell" in same
    assert "room for a loss of up to 8.8 points" in same  # z²/(n + z²) = 3.8415/43.8415
    assert "does better than before on colours acc" in text(tree_of(before, [1.0] * 40))
    assert "It did harm" in text(tree_of([0.1] * 20, [0.1 + 0.01 * n for n in range(1, 21)], up=False))
    assert "too few samples" in text(tree_of([1.0] * 5, [0.0] * 5))


def test_no_harm_is_said_of_the_measures_that_can_say_it() -> None:
    """Nine samples that all fell say nothing by themselves; they were covered by the sentence on the others before."""
    same = [1.0] * 30 + [0.0] * 10
    trees = [tree_of(same, same), tree_of([1.0] * 9, [0.0] * 9, task="small")]
    both = trees[0] | {
        "unaligned": [row for tree in trees for row in tree["unaligned"]],
        "seeds": [{"seed": 0, "tasks": [row for tree in trees for row in tree["seeds"][0]["tasks"]]}],
    }
    assert text(both) == (
        "No harm on lm-eval's tasks, as far as these samples can tell (1 task, 1 of 2 measures); they leave room for a "
        "loss of up to 8.8 points; 1 measure (small acc) has too few samples to say."
    )


def test_the_room_for_a_loss_is_in_the_measures_own_unit() -> None:
    """Of 20 differences of ±.5: .5/√19 · t(.975, 19) = .1147 · 2.0930 = .240."""
    before = [3.0] * 20
    after = [3.5, 2.5] * 10
    assert "room for a loss of up to 0.240 in colours acc" in text(tree_of(before, after))
    assert "room for a loss of up to 0.240 in colours acc" in text(tree_of(before, after, up=False))
    assert "they leave no room for a loss" in text(tree_of([0.0] * 40, [1.0] * 40))
    assert "No harm" not in text(tree_of(before, before))
    assert "1 measure (colours acc) has no interval" in text(tree_of(before, before))


def test_several_seeds_are_held_against_one_unaligned_model() -> None:
    numbers = check_numbers(tree_of([1.0] * 30 + [0.0] * 10, [1.0] * 40, [1.0] * 30 + [0.0] * 10))
    [measure] = numbers.measures
    assert measure.change.difference.n_seeds == 2
    assert measure.change.difference.value == pytest.approx(0.125)
    assert measure.change.before.n_seeds == 1


@pytest.mark.parametrize("content", ["[]", "{}", '{"seeds": 3, "unaligned": [1]}', json.dumps({"unaligned": [{}]})])
def test_a_check_of_another_form_is_refused_by_name(run: Path, content: str) -> None:
    from trimtab import config
    from trimtab.config import files
    from trimtab.runtime import set_up
    from trimtab.stages import report

    path = run / "check.json"
    before = path.read_bytes() if path.is_file() else None
    path.write_text(content)
    try:
        with pytest.raises(StoreError, match=r"check\.json does not have the form"):
            report.main(set_up(config.resolve(files.read_run(run, flags={}))), reporter=Recorder())
    finally:
        path.unlink() if before is None else path.write_bytes(before)
