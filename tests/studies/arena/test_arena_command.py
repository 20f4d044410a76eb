"""`trimtab arena A B`: what it reads, that nothing chosen is lost, and what it says at the end."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from arena_runs import Process, Said, a_run, answers, ask, prefer, put
from trimtab import cli
from trimtab.errors import ConfigError, DataError, UserError
from trimtab.judging.annotations import read_annotations
from trimtab.judging.verdict_cache import verdict_cache_path
from trimtab.studies.arena import Choice, Match, Outcome, words
from trimtab.studies.arena import command as arena
from trimtab.studies.arena.numbers import ArenaNumbers, numbers_of, rows
from trimtab.studies.arena.read import meet


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with runs a and b."""
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "a", "alpha")
    a_run(tmp_path / "b", "beta")
    return tmp_path


class Sitting:
    """The command in a thread; the address of its page."""

    def __init__(self, *words: str, **told: Any) -> None:
        self.said, self.numbers, self.error = Said(), list[ArenaNumbers](), list[BaseException]()
        self._thread = threading.Thread(target=self._run, args=words, kwargs=told, daemon=True)
        self._thread.start()
        self.url = self.said.url

    def _run(self, *words: str, **told: Any) -> None:
        try:
            self.numbers.append(arena.main(*words, browser=False, reporter=self.said, **told))  # type: ignore[arg-type,misc]  # a reporter that only says
        except BaseException as error:
            self.error.append(error)

    def finish(self) -> dict[str, Any]:
        ask(self.url, "finish", {"ticket": ask(self.url, "state")["ticket"]})
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error[0]
        return self.numbers[0].to_json()


def kept() -> list[tuple[str, str, float]]:
    """What is in the verdict cache."""
    with sqlite3.connect(verdict_cache_path()) as connection:
        found = connection.execute("SELECT judge, subject, value FROM verdicts ORDER BY subject").fetchall()
    connection.close()
    return found


def test_a_sitting_from_the_words_to_the_verdicts(here: Path) -> None:
    sitting = Sitting("a", "b", name="ann")
    prefer(sitting.url, "beta", 3)
    prefer(sitting.url, "alpha", 1)
    told = sitting.finish()
    assert (told["wins_a"], told["wins_b"], told["n_judged"], told["win_rate"]) == (1, 3, 4, 75.0)
    assert told["verdict"] == "not distinguishable (only 4 prompts)"
    assert told["file"] == "arena/a-vs-b.ann.json"
    verdicts = read_annotations(here / told["file"]).verdicts
    assert sorted(one.prompt_id for one in verdicts) == ["p0", "p1", "p2", "p3"]
    assert sorted(one.preference or 0 for one in verdicts) == [1.0, 2.0, 2.0, 2.0]
    for one in verdicts:
        assert (one.generator_1, one.generator_2, one.annotator) == ("alpha aligned", "beta aligned", "human:ann")
        assert one.output_1.startswith("alpha says")
        assert one.output_2.startswith("beta says")
    assert [judge for judge, _, _ in kept()] == ["human:ann"] * 4


def test_the_file_is_read_by_winrate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sitting = Sitting("a", "b")
    prefer(sitting.url, "beta", 4)
    told = sitting.finish()
    cli.main(["winrate", told["file"], "--json"])
    read = json.loads(capsys.readouterr().out)
    assert (read["win_rate"], read["n_total"], read["n_missing"]) == (100.0, 4, 0)


def test_the_rows_say_what_was_said(here: Path) -> None:
    put(here / "b/answers/eval.json", answers(["alpha says 0", *(f"beta says {i}" for i in range(1, 5))], "beta"))
    put(here / "a/answers/eval.json", answers([f"alpha says {i}" for i in range(5)], "alpha"))
    sitting = Sitting("a", "b")
    for said in ("tie", "both bad"):
        ask(sitting.url, "choose", {"ticket": ask(sitting.url, "state")["ticket"], "said": said})
    ask(sitting.url, "skip", {"ticket": 2})
    told = sitting.finish()
    assert {name: told[name] for name in ("ties", "both_bad", "identical", "skipped", "not_reached", "n_judged")} == {
        "ties": 1, "both_bad": 1, "identical": 1, "skipped": 1, "not_reached": 1, "n_judged": 2,
    }  # fmt: skip
    rows = json.loads((here / told["file"]).read_text())
    assert sorted((row["choice"], row["preference"]) for row in rows) == [
        ("both bad", 1.5), ("identical", 1.5), ("skipped", None), ("tie", 1.5),
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        cli.main(["winrate", told["file"]])  # one of four skipped: no headline number
    assert "trimtab winrate reads it with --allow-missing" in words.lines(sitting.numbers[0])[-1]
    cli.main(["winrate", told["file"], "--allow-missing"])
    assert {row["shown_left"] for row in rows if row["choice"] in {"tie", "both bad"}} <= {"output_1", "output_2"}


def test_another_sitting_goes_on_also_with_the_runs_the_other_way_round(here: Path) -> None:
    first = Sitting("a", "b")
    prefer(first.url, "beta", 2)
    ask(first.url, "choose", {"ticket": 2, "said": "left"})
    ask(first.url, "undo", {"ticket": 3})
    assert first.finish()["n_judged"] == 2
    second = Sitting("b", "a", seed=7)
    assert ask(second.url, "state")["progress"] == {"total": 4, "judged": 2, "skipped": 0, "identical": 0}
    prefer(second.url, "beta", 2)
    told = second.finish()
    assert (told["wins_a"], told["wins_b"]) == (4, 0), "b is A now, and its two earlier wins are its own"
    assert told["file"] == "arena/b-vs-a.json"
    again = arena.main("a", "b", browser=False, reporter=Said()).to_json()  # type: ignore[arg-type]  # a reporter that only says
    assert (again["wins_b"], again["n_judged"]) == (4, 4), "nothing is left to ask, so nothing is served"


def test_two_judges_do_not_share_verdicts(here: Path) -> None:
    first = Sitting("a", "b", name="ann")
    prefer(first.url, "beta", 4)
    first.finish()
    second = Sitting("a", "b", name="bob")
    assert ask(second.url, "state")["progress"]["judged"] == 0
    assert second.finish()["file"] is None


def test_limit_takes_a_random_part_and_more_adds_to_it(here: Path) -> None:
    first = Sitting("a", "b", limit=2)
    assert ask(first.url, "state")["progress"]["total"] == 2
    prefer(first.url, "alpha", 2)
    first.finish()
    second = Sitting("a", "b", limit=3)
    assert ask(second.url, "state")["progress"] == {"total": 3, "judged": 2, "skipped": 0, "identical": 0}
    second.finish()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_everything_is_written(here: Path, number: int, code: int) -> None:
    process = Process(["a", "b"], cwd=here)
    prefer(process.url, "beta", 3)
    ended, out, err = process.ended(number)
    assert (ended, out) == (code, "")
    assert "1 of 4 prompts are left to judge; verdicts are in arena/a-vs-b.json" in err
    assert "the same command goes on from there" in err
    assert [one.preference for one in read_annotations(here / "arena/a-vs-b.json").verdicts] == [2.0, 2.0, 2.0]


def test_killed_without_warning_nothing_is_lost(here: Path) -> None:
    process = Process(["a", "b", "--no-browser", "--json"], cwd=here)
    prefer(process.url, "beta", 3)
    assert process.ended(signal.SIGKILL)[0] == -signal.SIGKILL
    assert not (here / "arena").exists()
    process = Process(["a", "b", "--no-browser", "--json"], cwd=here)
    url = process.url
    assert ask(url, "state")["progress"]["judged"] == 3
    prefer(url, "beta", 1)
    ask(url, "finish", {"ticket": 1})
    code, out, err = process.ended()
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["wins_b"], told["file"]) == (4, "arena/a-vs-b.json")


def test_a_run_against_its_baseline_and_its_unaligned_model(here: Path) -> None:
    for which in ("baseline", "unaligned"):
        meeting = meet(f"a:{which}", "a", benchmark=None, benchmark_dir=None)
        assert meeting.names == ("tiny", "alpha aligned")
        assert meeting.matches[0].first == ("tiny says 0",)
    put(here / "a/answers/eval.baseline.json", answers([f"gpt says {i}" for i in range(4)], "gpt"))
    with pytest.raises(ConfigError, match=r"a:unaligned has no answers to eval"):
        meet("a:unaligned", "a", benchmark=None, benchmark_dir=None)
    put(here / "a/answers/eval.unaligned.json", answers([f"plain says {i}" for i in range(4)], "tiny"))
    assert meet("a:unaligned", "a", benchmark=None, benchmark_dir=None).matches[0].first == ("plain says 0",)
    assert meet("a", "a:baseline", benchmark=None, benchmark_dir=None).names == ("alpha aligned", "gpt")


def test_files_of_others_are_joined_by_the_prompt(here: Path) -> None:
    put(here / "theirs.json", answers([f"x{i}" for i in range(3)] + ["more"] * 4, "theirs", ids=False))
    meeting = meet("theirs.json", "b", benchmark=None, benchmark_dir=None)
    assert [(m.prompt_id, m.first, m.second) for m in meeting.matches[:2]] == [
        ("question 0", ("x0",), ("beta says 0",)),
        ("question 1", ("x1",), ("beta says 1",)),
    ]
    assert (len(meeting.matches), meeting.n_one_sided) == (4, 3)


def test_runs_of_one_model_get_names_that_differ(here: Path) -> None:
    a_run(here / "c", "alpha", n=4)
    put(here / "c/answers/eval.json", answers([f"other {i}" for i in range(4)], "alpha aligned"))
    names = meet("a", "c", benchmark=None, benchmark_dir=None).names
    assert names == ("alpha aligned (a)", "alpha aligned (c)")


def test_the_benchmark_is_the_one_they_share(here: Path) -> None:
    put(here / "a/answers/other.json", answers(["alpha says"], "alpha aligned"))
    assert len(meet("a", "b", benchmark=None, benchmark_dir=None).matches) == 4
    put(here / "b/answers/other.json", answers(["beta says"], "beta aligned"))
    with pytest.raises(ConfigError, match="several benchmarks") as raised:
        meet("a", "b", benchmark=None, benchmark_dir=None)
    assert "--benchmark" in raised.value.remedy
    assert len(meet("a", "b", benchmark="other", benchmark_dir=None).matches) == 1
    with pytest.raises(ConfigError, match="a has no answers to third"):
        meet("a", "b", benchmark="third", benchmark_dir=None)


def conversation(question: int, turns: list[str], model: str) -> str:
    return json.dumps({"question_id": question, "model_id": model, "choices": [{"index": 0, "turns": turns}]}) + "\n"


def test_conversations_are_read_with_their_questions(here: Path) -> None:
    asked = [{"question_id": 1, "category": "math", "turns": ["one?", "and two?"]}]
    (here / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    for name in ("x", "y"):
        (here / f"{name}.jsonl").write_text(conversation(1, [f"{name} one", f"{name} two"], f"model {name}"))
        folder = here / f"run-{name}"
        put(folder / "config.json", {"benchmark": {"name": str(here / "questions.jsonl"), "dir": None}})
        (folder / "answers").mkdir()
        (folder / "answers/questions.jsonl").write_text((here / f"{name}.jsonl").read_text())
    expected = Match("1", ("one?", "and two?"), ("x one", "x two"), ("y one", "y two"), "math")
    by_file = meet("x.jsonl", "y.jsonl", benchmark="questions.jsonl", benchmark_dir=None)
    by_run = meet("run-x", "run-y", benchmark=None, benchmark_dir=None)
    assert by_file.matches == by_run.matches == (expected,)
    assert by_run.names == ("model x", "model y")
    [row] = rows([Outcome(expected, Choice("tie", True, 1.0), False)], names=("x", "y"), judge="human:z")
    assert (row["instruction"], row["output_1"]) == ("one?\n\nand two?", "x one\n\nx two")


@pytest.mark.needs_shared
def test_published_conversations_meet(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared_data / "eval/mt_bench"
    files = [str(folder / f"sample_judgments/model_answer/mistral-orpo-{name}.jsonl") for name in ("capybara", "mix")]
    meeting = meet(files[0], files[1], benchmark=None, benchmark_dir=str(folder))
    assert len(meeting.matches) == 80
    assert {len(match.prompt) for match in meeting.matches} == {2}


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("nowhere", "b"), ConfigError, "no such run folder or file of answers: nowhere"),
        (("a:before", "b"), ConfigError, "a run has no 'before'"),
        (("a", "a"), ConfigError, "are the same answers"),
        (("empty", "b"), ConfigError, "has no answers yet"),
        (("seeds", "b"), ConfigError, "holds 2 seeds"),
        (("b", "elsewhere.json"), DataError, "answer no prompt in common"),
        (("b", "renamed.json"), DataError, "is not what renamed.json was asked"),
        (("b", "twice.json"), DataError, "answers prompt 'p0' twice"),
        (("b", "list.json"), DataError, "expected an object"),
        (("b", "verdicts.json"), DataError, "has no 'output'"),
    ],
)
def test_wrong_words_are_told(here: Path, words: tuple[str, str], error: type[UserError], said: str) -> None:
    (here / "empty").mkdir()
    for seed in (0, 1):
        (here / f"seeds/seed-{seed}/answers").mkdir(parents=True)
    rows = answers(["x"], "gen")
    put(here / "elsewhere.json", [{**rows[0], "prompt_id": "other", "instruction": "other"}])
    put(here / "renamed.json", [{**rows[0], "instruction": "another question"}])
    put(here / "twice.json", rows * 2)
    put(here / "list.json", ["x"])
    put(here / "verdicts.json", [{"instruction": "question 0", "output_1": "x"}])
    with pytest.raises(error, match=said) as raised:
        meet(*words, benchmark=None, benchmark_dir=None)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"name": "ann smith"}, "--name"),
        ({"name": ""}, "--name"),
        ({"limit": 0}, "--limit 0"),
        ({"port": 70000}, "port"),
    ],
)
def test_wrong_keys_are_told_before_anything_is_served(here: Path, told: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arena.main("a", "b", browser=False, reporter=Said(), **told)  # type: ignore[arg-type]  # a reporter that only says


def test_a_file_with_other_judgments_is_not_written_over(here: Path) -> None:
    put(here / "mine.json", [{"something": "else"}])
    with pytest.raises(ConfigError, match=r"mine.json holds something else"):
        arena.main("a", "b", out="mine.json", browser=False, reporter=Said())  # type: ignore[arg-type]  # a reporter that only says
    for _ in range(2):  # its own file it replaces
        sitting = Sitting("a", "b", out="own.json")
        prefer(sitting.url, "beta", 1)
        sitting.finish()
    assert len(json.loads((here / "own.json").read_text())) == 2
    with pytest.raises(ConfigError, match=r"own.json holds something else"):
        arena.main("b", "a", out="own.json", browser=False, reporter=Said())  # type: ignore[arg-type]  # a reporter that only says


def outcomes(*said: tuple[str, bool, float]) -> list[Outcome]:
    """First answer "a" (the low text) against "b"."""
    return [
        Outcome(Match(f"p{i}", (f"q{i}",), ("a",), ("b",)), Choice(word, low_on_left, seconds), False)  # type: ignore[arg-type]  # the literals
        for i, (word, low_on_left, seconds) in enumerate(said)
    ]


def test_the_numbers_by_hand() -> None:
    """12 for A, 3 for B, 1 tie, 1 both bad, 1 identical, 1 skipped, 1 not reached: B has (3 + 3/2) / 18 = 25 %."""
    made = outcomes(*[("left", True, 5.0)] * 9, *[("right", False, 7.0)] * 3, *[("left", False, 9.0)] * 3)
    made += outcomes(("tie", True, 1.0), ("both bad", True, 2.0))
    made += [
        Outcome(Match("i", ("q",), ("same",), ("same",)), None, False),
        Outcome(Match("s", ("q",), ("a",), ("b",)), None, True),
        Outcome(Match("n", ("q",), ("a",), ("b",)), None, False, was_reached=False),
    ]
    numbers = numbers_of(made, names=("A", "B"), judge="human:x")
    told = numbers.to_json()
    assert (told["wins_a"], told["wins_b"], told["ties"], told["both_bad"], told["identical"]) == (12, 3, 1, 1, 1)
    assert (told["skipped"], told["not_reached"], told["n_judged"]) == (1, 1, 17)
    assert told["win_rate"] == pytest.approx(25.0)
    # 3 ties of 18: variance 3/16 − 3/72, so 18·(3.375 + 1/3)/(2.625 + 1/3) = 22.563 rows; z = .25·√(22.563/.25)
    assert told["p_value"] == pytest.approx(0.01755, abs=1e-5)
    assert told["verdict"] == "A is better"
    assert (told["n_decided"], told["left_share"], told["median_seconds"]) == (15, 80.0, 5.0)
    low, high = told["left_ci95"]  # Wilson: centre (.8 + .128) / 1.256 = .7388, half-width .1910
    assert (low, high) == (pytest.approx(54.81, abs=0.01), pytest.approx(92.95, abs=0.01))
    lines = words.lines(numbers)
    assert lines[0].startswith("A is better: B was preferred in 25.0")
    assert any("leaning to the left" in line and "favours neither" in line for line in lines)
    assert any("1 skipped, 1 not reached" in line for line in lines)
    page = words.page(numbers)
    assert [share["n"] for share in page["shares"]] == [12, 2, 1, 3]
    assert page["headline"] == "A is better"
    assert page["lines"][0].startswith("B was preferred in 25.0\u00a0% (95\u00a0% CI ")


def test_nothing_judged_is_no_number() -> None:
    numbers = numbers_of(
        [Outcome(Match("n", ("q",), ("a",), ("b",)), None, False, was_reached=False)], names=("A", "B"), judge="human:x"
    )
    assert (numbers.to_json()["win_rate"], numbers.left_share) == (None, None)
    assert words.lines(numbers) == ["nothing was judged"]
    assert words.page(numbers)["headline"] == "Nothing was judged"
    json.dumps(numbers.to_json(), allow_nan=False)
