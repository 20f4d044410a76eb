"""A person's verdicts on the arena's page become pairs, and so do any judge's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder
from trimtab import cli, store, windtunnel
from trimtab.commands import arena_answers, pairs, verdict_pairs
from trimtab.errors import ConfigError, DataError
from trimtab.studies.arena.matches import Choice, Match
from trimtab.studies.arena.numbers import rows as arena_rows
from trimtab.studies.arena.read import meet
from trimtab.studies.arena.session import Outcome


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def judged(preferences: list[float | None]) -> list[dict[str, Any]]:
    row = {"generator_1": "a", "generator_2": "b", "annotator": "human:me"}
    return [
        {"instruction": f"do {n}", "output_1": f"first {n}", "output_2": f"second {n}", "preference": value} | row
        for n, value in enumerate(preferences)
    ]


def test_the_preferred_answer_is_chosen_and_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows = judged([1.0, 2.0, 1.5, None, 1.8])
    Path("verdicts.json").write_text(json.dumps([*rows, rows[0] | {"instruction": "same", "output_2": "first 0"}]))
    cli.main(["pairs", "verdicts.json", "--json", "--data.holdout", "0"])
    told = json.loads(capsys.readouterr().out)
    assert (told["verdicts"], told["pairs"], told["judges"]) == (6, 3, ["human:me"])
    assert told["left_out"] == {"a tie": 1, "no verdict": 1, "the answers are the same": 1}
    made = store.read_jsonl(Path("verdicts.pairs.jsonl"))
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in made] == [
        ("first 0", "second 0"),
        ("second 1", "first 1"),
        ("second 4", "first 4"),
    ]
    assert told["audit"]["kept"] == 3
    # 1.8 is a probability of .8, .6 of the way from a tie to certainty
    few = verdict_pairs.main(Path("verdicts.json"), {"data": {"holdout": 0}}, out=None, min_gap=0.61)
    assert (few.n_pairs, few.left_out["a tie"]) == (2, 2)


def test_what_the_arena_writes_is_read() -> None:
    match = Match("p", ("Greet Ann.",), ("Hello, Ann.",), ("No.",))
    side = "left" if match.first_is_low else "right"
    outcome = Outcome(match, Choice(side, low_on_left=True, seconds=2.0), was_skipped=False)  # type: ignore[arg-type]
    several = Outcome(
        Match("q", ("Greet.", "Again."), ("Hello.", "Hi."), ("No.", "No.")), outcome.choice, was_skipped=False
    )
    store.write_json(Path("a-vs-b.json"), arena_rows([outcome, several], names=("a", "b"), judge="human:me"))
    assert verdict_pairs.holds_verdicts(Path("a-vs-b.json"))
    told = verdict_pairs.main(Path("a-vs-b.json"), {"data": {"holdout": 0}}, out="mine.jsonl")
    assert (told.n_verdicts, dict(told.left_out)) == (2, {"a conversation of several turns": 1})
    (row,) = store.read_jsonl(Path("mine.jsonl"))
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("Hello, Ann.", "No.")


def test_what_makes_no_pair_is_one_message() -> None:
    Path("ties.json").write_text(json.dumps(judged([1.5, None])))
    with pytest.raises(DataError, match=r"no verdict makes a pair \(a tie: 1, no verdict: 1\)"):
        verdict_pairs.main(Path("ties.json"), {}, out=None)
    with pytest.raises(ConfigError, match="train has no effect here"):
        verdict_pairs.main(Path("ties.json"), {"train": {}}, out=None)
    Path("mine.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="holds something else already"):
        verdict_pairs.main(Path("ties.json"), {}, out="mine.jsonl")
    assert not verdict_pairs.holds_verdicts(Path("mine.jsonl"))
    assert not verdict_pairs.holds_verdicts(Path("nowhere.json"))


def test_answers_sampled_for_a_person_meet_in_the_arena() -> None:
    keys = {"model": "windtunnel", "windtunnel": {"pairs": 8}, "engine": {"threads": 1}, "out": "mine"}
    config = pairs.resolve_config("windtunnel", keys, judges=False)
    told = arena_answers.main(config, reporter=Recorder())
    assert told.n_prompts + told.left_out.total() == 8
    matches = meet(str(told.files[0]), str(told.files[1]), benchmark=None, benchmark_dir=None).matches
    tasks = {task.id: task.prompt for task in windtunnel.tasks(8, seed=0, split="pairs")}
    assert {match.prompt_id: match.prompt for match in matches} == {
        match.prompt_id: (tasks[match.prompt_id],) for match in matches
    }
    assert len(matches) == told.n_prompts > 0
    assert all(match.first != match.second for match in matches)


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["pairs", *words])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_flags_of_sampling_are_refused_where_nothing_is_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    """Each was ignored, and a dry run wrote the file."""
    Path("verdicts.json").write_text(json.dumps(judged([1.0, 2.0])))
    words = ["--samples", "9", "--rule", "all", "--length-matched", "--rounds", "2", "--reference", "first"]
    words += ["--held-back", "0.2", "--dry-run", "--for-arena"]
    names = ", ".join(word for word in words if word.startswith("--"))
    message = refusal(["verdicts.json", *words], capsys)
    assert f"{names} have no effect here: verdicts.json holds verdicts" in message
    assert "--dry-run has no effect here" in refusal(["verdicts.json", "--dry-run"], capsys)
    assert not list(Path().glob("*.pairs.jsonl*"))
    arena = refusal(["windtunnel", "--for-arena", "--min-gap", "0.1", "--dry-run"], capsys)
    assert "--dry-run, --min-gap have no effect here: --for-arena" in arena
