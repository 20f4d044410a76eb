"""`trimtab compare`: runs of one seed and several, files of verdicts and of marks, and what cannot be compared."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from trial_runs import call
from trimtab.errors import ConfigError, DataError
from trimtab.records import Verdict
from trimtab.runtime.folder import Folder
from trimtab.studies.comparison import command as compare

KEYS = {
    "delta", "ci95", "p_value", "n_common", "wins_a", "wins_b", "ties", "verdict", "n_missing", "groups", "length",
    "length_controlled", "judge", "baseline", "unit", "notes", "warnings", "n_seeds", "test", "method",
}  # fmt: skip


def verdicts(
    n: int, *, rate: float, seed: int = 0, model: str = "new", judge: str = "judge", longer: int = 0, missing: int = 0
) -> list[dict[str, Any]]:
    """`rate` of the prompts won; the same prompts and baseline answers whatever the seed."""
    rng, fixed = random.Random(seed), random.Random(99)  # noqa: S311  made-up verdicts
    return [
        Verdict(
            f"p{i}",
            f"do {i}",
            "x" * fixed.randint(20, 90),
            "y" * (fixed.randint(20, 90) + longer),
            "base",
            model,
            judge,
            None if i < missing else 1.0 + (rng.random() < rate),
            "koala" if i % 2 else "oasst",
        ).to_json()
        for i in range(n)
    ]


def put(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def marks(model: str, mark: float, *, judge: str = "gpt-4", n: int = 80) -> list[dict[str, Any]]:
    return [
        {"question_id": 81 + i, "model": model, "judge": [judge, "s"], "score": mark + i % 3, "turn": turn}
        for i in range(n)
        for turn in (1, 2)
    ]


def numbers_of(a: str, b: str, **options: str) -> dict[str, Any]:
    """What `--json` prints."""
    return compare.main(a, b, **options).to_json()


# --- files -----------------------------------------------------------------------------------------------------------


def test_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = put(tmp_path / "a.json", verdicts(300, rate=0.7, longer=15))
    b = put(tmp_path / "b.json", verdicts(300, rate=0.3, seed=1))
    code, printed, said = call(["compare", a, b], capsys)
    assert code == 0, said
    assert printed.splitlines()[0] == f"{a} against {b}: {a} is better"
    assert "length of the answers, A minus B: +15.00 characters (95 % CI +1" in printed
    assert "difference with length controlled" in printed
    told = json.loads(call(["compare", a, b, "--json"], capsys)[1])
    assert set(told) >= KEYS
    assert told["ci95"][0] < told["delta"] < told["ci95"][1]
    assert [row["group"] for row in told["groups"]] == ["oasst", "koala"]
    assert sum(row["n_common"] for row in told["groups"]) == told["n_common"] == 300
    assert told["length"]["delta"] == 15
    assert told["length_controlled"]["ci95"][0] > 0


def test_no_difference_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (put(tmp_path / f"{k}.json", verdicts(60, rate=0.5, seed=k)) for k in (1, 2))
    printed = call(["compare", a, b], capsys)[1]
    assert printed.splitlines()[0].endswith("not distinguishable")


def test_missing_verdicts_are_counted_and_said(tmp_path: Path) -> None:
    a = put(tmp_path / "a.json", verdicts(100, rate=0.6, missing=5))
    b = put(tmp_path / "b.json", verdicts(90, rate=0.4, seed=1))
    told = numbers_of(str(a), str(b))
    assert (told["n_common"], told["n_missing"]) == (85, 15)
    assert "15 of 100 prompts (15.0 %) lack a verdict" in told["notes"][0]
    assert "--allow-missing" in told["notes"][0]


def test_missing_verdicts_that_are_known_are_counted_without_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = put(tmp_path / "a.json", verdicts(100, rate=0.6, missing=5))
    b = put(tmp_path / "b.json", verdicts(90, rate=0.4, seed=1))
    code, printed, said = call(["compare", a, b, "--allow-missing", "--json"], capsys)
    assert code == 0, said
    assert json.loads(printed)["n_missing"] == 15
    assert "lack a verdict" not in printed


def test_means_and_counts_that_disagree_are_explained(tmp_path: Path) -> None:
    """A wins 70 prompts by a hair, B 30 by everything."""
    rows = verdicts(100, rate=0.5)
    a = [row | {"preference": 1.51 if i < 70 else 1.0} for i, row in enumerate(rows)]
    b = [row | {"preference": 1.5 if i < 70 else 2.0} for i, row in enumerate(rows)]
    told = numbers_of(str(put(tmp_path / "a.json", a)), str(put(tmp_path / "b.json", b)))
    assert told["delta"] < 0
    assert told["wins_a"] > told["wins_b"]
    assert any("A is ahead on more prompts, B by more" in note for note in told["notes"])


def test_a_constant_answer_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = put(tmp_path / "a.json", [row | {"output_2": "null"} for row in verdicts(40, rate=0.8)])
    b = put(tmp_path / "b.json", verdicts(40, rate=0.3, seed=1))
    assert call(["compare", a, b], capsys)[1].startswith("WARNING: the model (new) gave one and the same answer")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"annotator": "another"}, "was judged by judge, .* by another: another"),
        ({"generator_1": "other base"}, "was judged against base, .* against other base"),
        ({"output_1": "another answer"}, "the baseline answered 20 common prompts differently"),
        ({"prompt_id": "elsewhere"}, "no judged prompt in common"),
    ],
    ids=["judge", "baseline", "answers", "prompts"],
)
def test_what_was_not_judged_alike_is_refused(tmp_path: Path, change: dict[str, str], complaint: str) -> None:
    a = put(tmp_path / "a.json", verdicts(20, rate=0.5))
    b = put(tmp_path / "b.json", [row | change for row in verdicts(20, rate=0.5)])
    with pytest.raises(DataError, match=complaint):
        numbers_of(str(a), str(b))


def test_words_that_name_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = put(tmp_path / "a.json", verdicts(20, rate=0.5))
    two = put(tmp_path / "two.json", verdicts(20, rate=0.5) + verdicts(20, rate=0.5, model="newer"))
    single = lines(tmp_path / "m.jsonl", marks("new", 5))
    (tmp_path / "empty").mkdir()
    for words, complaint in (
        ((a, tmp_path / "none"), "no such run folder or file of judgments"),
        ((a, two), "holds 2 models: new, newer"),
        ((a, f"{two}:newest"), "holds new, newer, judged by judge; not what was asked for"),
        ((a, single), "holds marks of single answers"),
        ((a, tmp_path / "empty"), "has no verdicts, and is no run folder"),
        ((a, a, "--questions", "q.jsonl"), "--questions has no use"),
        ((a, a, "--judge", "nobody"), "not what was asked for"),
    ):
        code, _, said = call(["compare", *words], capsys)
        assert code == 2
        assert complaint in said


# --- marks -----------------------------------------------------------------------------------------------------------


def test_two_models_in_one_file_of_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "m.jsonl", marks("old", 4) + marks("new", 5.5))
    code, printed, said = call(["compare", f"{path}:new", f"{path}:old"], capsys)
    assert code == 0, said
    assert "difference +1.50 marks" in printed
    told = json.loads(call(["compare", f"{path}:new", f"{path}:old", "--json"], capsys)[1])
    assert (told["n_common"], told["wins_a"], told["unit"], told["baseline"]) == (80, 80, "marks", None)
    assert [row["group"] for row in told["groups"]][:3] == ["turn 1", "turn 2", "writing"]
    assert len(told["groups"]) == 10


def test_marks_by_different_judges_are_refused(tmp_path: Path) -> None:
    a = lines(tmp_path / "a.jsonl", marks("new", 5))
    b = lines(tmp_path / "b.jsonl", marks("new", 5, judge="other"))
    with pytest.raises(DataError, match=r"was marked by gpt-4, .* by other"):
        numbers_of(str(a), str(b))
    both = lines(tmp_path / "both.jsonl", marks("new", 5) + marks("new", 6, judge="other"))
    with pytest.raises(ConfigError, match="holds 2 judges: gpt-4, other"):
        numbers_of(str(both), str(a))
    assert numbers_of(str(both), str(a), judge="gpt-4")["delta"] == 0


# --- runs ------------------------------------------------------------------------------------------------------------


def a_run(
    root: Path, rate: float, *, seed: int = 0, n: int = 200, unaligned: float | None = None, **record: str
) -> Path:
    folder = Folder(root)
    put(folder.verdicts("alpaca_eval"), verdicts(n, rate=rate, seed=seed))
    if unaligned is not None:
        put(folder.unaligned_verdicts("alpaca_eval"), verdicts(n, rate=unaligned, seed=seed + 50, model="old"))
    put(folder.canaries("alpaca_eval"), [])
    put(folder.judge("alpaca_eval"), {"judge": "judge", "prompt_sha256": "abc", "order": "both orders"} | record)
    return root


def test_a_runs_single_judge_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = a_run(tmp_path / "a", 0.7), a_run(tmp_path / "b", 0.3, seed=1)
    told = json.loads(call(["compare", a, b, "--json"], capsys)[1])
    assert told["verdict"] == f"{a} is better"
    assert (told["judge"], told["n_seeds"]) == ("judge", 1)


def test_the_unaligned_model_of_a_run(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", 0.7, unaligned=0.2)
    told = numbers_of(str(a), f"{a}:unaligned")
    assert told["verdict"] == f"{a} is better"
    with pytest.raises(ConfigError, match="was not judged apart"):
        numbers_of(str(a), f"{a_run(tmp_path / 'b', 0.5)}:unaligned")
    with pytest.raises(ConfigError, match="a run has no 'baseline'"):
        numbers_of(str(a), f"{a}:baseline")


def test_runs_that_were_not_judged_alike_are_refused(tmp_path: Path) -> None:
    a, b = a_run(tmp_path / "a", 0.5), a_run(tmp_path / "b", 0.5, order="official seeded order")
    with pytest.raises(DataError, match="order is 'both orders' and 'official seeded order'"):
        numbers_of(str(a), str(b))


def test_the_oracle_comes_first_and_others_by_name(tmp_path: Path) -> None:
    for name, rate in (("a", 0.6), ("b", 0.4)):
        for judge, more in (("oracle", 0.0), ("biased", 0.2), ("unbiased", -0.2)):
            rows = verdicts(100, rate=rate + more, judge=judge, seed=ord(name))
            put(Folder(tmp_path / name).verdicts("windtunnel", judge), rows)
        put(Folder(tmp_path / name).verdicts("windtunnel", "scores"), {})
    told = numbers_of(str(tmp_path / "a"), str(tmp_path / "b"))
    assert told["judge"] == "oracle"
    assert told["length_controlled"] is None  # the oracle does not see length
    biased = numbers_of(str(tmp_path / "a"), str(tmp_path / "b"), judge="biased")
    assert biased["judge"] == "biased"
    assert biased["length_controlled"] is not None
    with pytest.raises(ConfigError, match="0 sets of verdicts"):
        numbers_of(str(tmp_path / "a"), str(tmp_path / "b"), judge="nobody")


def seeds(root: Path, rates: list[float]) -> Path:
    for k, rate in enumerate(rates):
        a_run(root / f"seed-{k}", rate, seed=k)
    return root


def test_seeds_are_pooled_by_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = seeds(tmp_path / "a", [0.8, 0.82, 0.78]), seeds(tmp_path / "b", [0.3, 0.32, 0.28])
    code, printed, said = call(["compare", a, b], capsys)
    assert code == 0, said
    assert "; 3 seeds" in printed
    told = json.loads(call(["compare", a, b, "--json"], capsys)[1])
    assert (told["n_seeds"], told["n_common"], told["verdict"]) == (3, 200, f"{a} is better")
    assert told["test"] == "t test over prompts and seeds"
    assert told["length_controlled"]["ci95"][0] > 0


def test_seeds_that_disagree_are_not_called_better(tmp_path: Path) -> None:
    a, b = seeds(tmp_path / "a", [0.9, 0.5, 0.35]), seeds(tmp_path / "b", [0.4, 0.4, 0.4])
    assert numbers_of(f"{a}/seed-0", f"{b}/seed-0")["verdict"].endswith("is better")
    assert numbers_of(str(a), str(b))["verdict"] == "not distinguishable"


def test_seeds_of_one_side_only(tmp_path: Path) -> None:
    three, four = seeds(tmp_path / "a", [0.6] * 3), seeds(tmp_path / "b", [0.4] * 4)
    told = numbers_of(str(three), str(four))
    assert told["n_seeds"] == 3
    assert "left out: seed 3" in told["notes"][0]
    alone = a_run(tmp_path / "c", 0.4)
    told = numbers_of(str(three), str(alone))
    assert told["n_seeds"] == 3
    assert "is one run beside 3 seeds" in told["notes"][0]


def test_marks_of_a_run_and_of_its_unaligned_model(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run")
    for model, path in (
        ("tiny aligned", folder.answers("mt_bench", turns=True)),
        ("tiny", folder.unaligned_answers("mt_bench", turns=True)),
    ):
        text = "long answer" if "aligned" in model else "short"
        lines(
            path,
            [
                {"question_id": 81 + i, "model_id": model, "choices": [{"index": 0, "turns": [text, "x"]}]}
                for i in range(80)
            ],
        )
    lines(folder.verdicts("mt_bench", turns=True), marks("tiny aligned", 6) + marks("tiny", 5))
    told = numbers_of(str(folder.root), f"{folder.root}:unaligned")
    assert (told["delta"], told["n_common"]) == (1, 80)
    assert told["length"]["delta"] == len("long answer") - len("short")
