"""Every sentence of a report has a run in which it must not stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report_runs import LOSS, WIN, a_config, a_judged_run, a_run, make_report, page, write_json
from trimtab.analysis.canaries import canary_rows
from trimtab.runtime.folder import Folder


def of_alpaca(out: Path) -> Any:
    return a_config(out, benchmark="alpaca_eval", judge="openai:gpt-4o", model="tiny")


def text_of(numbers: dict[str, Any]) -> str:
    return " ".join(sentence["text"] for sentence in numbers["headline"]).replace("\u00a0", " ")


def cut(folder: Folder, *, before: int = 0, after: int = 0, n_tokens: int | None = None) -> None:
    """The first answers of either side cut at the limit; with `n_tokens` all of both sides as long as that."""
    for path, n_cut in ((folder.baseline_answers("windtunnel"), before), (folder.answers("windtunnel"), after)):
        rows = json.loads(path.read_text())
        write_json(
            path,
            [row | {"finished": i >= n_cut, "n_tokens": n_tokens or row["n_tokens"]} for i, row in enumerate(rows)],
        )


# --- lengths ---------------------------------------------------------------------------------------------------------


def test_answers_all_cut_at_the_limit_have_not_kept_their_length(tmp_path: Path) -> None:
    cut(a_run(tmp_path, {"oracle": [WIN] * 20}), before=20, after=20, n_tokens=64)
    text = text_of(make_report(a_config(tmp_path)))
    assert "Whether answers kept their length is not known" in text
    assert "100.0 % before and 100.0 % after were cut at the limit" in text
    assert "are as long as they were" not in text
    assert "those cut at the limit would have been longer" in page(a_config(tmp_path))


def test_answers_that_are_all_equally_long_and_whole_are_as_long_as_they_were(tmp_path: Path) -> None:
    cut(a_run(tmp_path, {"oracle": [WIN] * 20}), n_tokens=64)
    text = text_of(make_report(a_config(tmp_path)))
    assert "Answers are as long as they were" in text
    assert "cut at the limit" not in text


@pytest.mark.parametrize(
    ("words", "before", "after", "says", "leaves_out"),
    [
        ("a good answer and one word more and another", 0, 10, "Answers grew longer", "is not known"),
        ("a good answer and one word more and another", 10, 0, "is not known", "grew longer"),
        ("short", 10, 0, "Answers became shorter", "is not known"),
        ("short", 0, 10, "is not known", "became shorter"),
    ],
    ids=["longer at least", "longer perhaps", "shorter at least", "shorter perhaps"],
)
def test_cut_answers_decide_only_what_whole_ones_would(
    tmp_path: Path, words: str, before: int, after: int, says: str, leaves_out: str
) -> None:
    """A whole answer would be longer than a cut one: that can only add to a difference on its own side."""
    cut(a_run(tmp_path, {"oracle": [WIN] * 20}, after=words), before=before, after=after)
    text = text_of(make_report(a_config(tmp_path)))
    assert says in text
    assert leaves_out not in text
    assert "50.0 %" in text


def test_length_control_is_promised_only_where_it_stands(tmp_path: Path) -> None:
    """The oracle sees no length and is not controlled for it; the biased judge is."""
    words = "a good answer and one word more and another"
    a_run(tmp_path / "truth", {"oracle": [WIN] * 20}, after=words)
    assert "length control corrects" not in text_of(make_report(a_config(tmp_path / "truth")))
    judged = a_run(tmp_path / "judged", {"oracle": [WIN, LOSS] * 20, "biased": [1.9, 1.1, 1.6] * 13 + [1.5]})
    texts = ["word " * (1 + i % 20) for i in range(40)]
    for file, key in (
        (judged.answers("windtunnel"), "output"),
        (judged.verdicts("windtunnel", "oracle"), "output_2"),
        (judged.verdicts("windtunnel", "biased"), "output_2"),
    ):
        rows = [row | {key: text} for row, text in zip(json.loads(file.read_text()), texts, strict=True)]
        write_json(file, [row | ({"n_tokens": len(row[key].split())} if key == "output" else {}) for row in rows])
    assert "length control corrects" in text_of(make_report(a_config(tmp_path / "judged")))


def test_without_the_unaligned_model_nothing_is_said_to_be_the_same_before_and_after(tmp_path: Path) -> None:
    a_judged_run(tmp_path, [WIN] * 30 + [LOSS] * 30)
    make_report(of_alpaca(tmp_path))
    assert "letter by letter, from the baseline and the aligned model" in page(of_alpaca(tmp_path))


# --- the headline ----------------------------------------------------------------------------------------------------

UP = [WIN] * 45 + [LOSS] * 15
DOWN = [WIN] * 15 + [LOSS] * 45


def first_of(config: Any) -> dict[str, Any]:
    sentence: dict[str, Any] = make_report(config)["headline"][0]
    return sentence | {"text": sentence["text"].replace("\u00a0", " ")}


def test_a_headline_that_holds_is_not_qualified(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN)
    first = first_of(of_alpaca(tmp_path))
    assert first["tone"] == "good"
    assert "Do not rely on this" not in first["text"]


def test_a_judge_that_follows_the_position_carries_no_headline(tmp_path: Path) -> None:
    position = [row.to_json() for row in canary_rows({"baseline": [WIN] * 19 + [LOSS]})]
    a_judged_run(tmp_path, UP, DOWN, canaries=position)
    first = first_of(of_alpaca(tmp_path))
    assert first["tone"] == "warn"
    assert "**Do not rely on this**: the judge failed a canary" in first["text"]


def test_another_judges_canary_does_not_touch_the_truth(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20, "biased": [WIN] * 20})
    rang = [row.to_json() for row in canary_rows({"empty": [WIN] * 20})]
    write_json(folder.canaries("windtunnel"), [{"judge": "biased", "canaries": rang}])
    assert first_of(a_config(tmp_path))["tone"] == "good"
    write_json(folder.canaries("windtunnel"), [{"judge": "oracle", "canaries": rang}])
    assert first_of(a_config(tmp_path))["tone"] == "warn"


def test_answers_that_were_cut_carry_no_headline(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    cut(folder, after=1)
    assert first_of(a_config(tmp_path))["tone"] == "good"
    cut(folder, after=5)
    first = first_of(a_config(tmp_path))
    assert first["tone"] == "warn"
    assert "25.0 % of one side's answers were cut at the limit" in first["text"]


def test_verdicts_that_are_missing_carry_no_headline(tmp_path: Path) -> None:
    """All of 10 win, and 10 have no verdict: were those losses, it would be 50 %."""
    a_run(tmp_path, {"oracle": [WIN] * 10 + [None] * 10})
    first = first_of(a_config(tmp_path))
    assert first["tone"] == "warn"
    assert "50.0 % of the prompts have no verdict" in first["text"]


def test_six_wins_of_six_conclude_nothing(tmp_path: Path) -> None:
    """Wilson's interval of 6 of 6 begins at 61 %, and six prompts are no sample of anything."""
    a_run(tmp_path, {"oracle": [WIN] * 6})
    first = first_of(a_config(tmp_path))
    assert first["tone"] == "warn"
    assert "nothing can be concluded" in first["text"]
    assert "better than no change" not in first["text"]
    text = text_of(make_report(a_config(tmp_path)))
    assert "too few prompts to say more" in text, "of the true scores, which rose on every prompt"
    assert "Too few answers to say what became of their length" in text


def test_twenty_prompts_are_enough_to_say_so(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN] * 20}, after="short")
    text = text_of(make_report(a_config(tmp_path)))
    assert "too few" not in text.lower()
    assert "became shorter" in text


# --- length control and canaries -------------------------------------------------------------------------------------


def test_length_control_that_is_not_identified_says_nothing_of_the_truth(tmp_path: Path) -> None:
    """The aligned answers are longer by nearly the same everywhere: what has no interval lies outside nothing."""
    words = "a good answer and one word more and another and many a word beside them"
    a_run(tmp_path, {"oracle": [LOSS] * 30 + [WIN] * 10, "biased": [1.9, 1.8] * 20}, after=words)
    report = make_report(a_config(tmp_path))
    assert report["benchmark"]["judges"][1]["length_controlled"]["win_rate"]["ci95"] is None
    text = text_of(report)
    assert "with answer length controlled nothing can be said: the model's answers differ" in text
    assert "both intervals" not in text
    assert "its interval:" not in page(a_config(tmp_path))


def test_a_baseline_canary_of_few_prompts_is_not_called_sound() -> None:
    """3 of 4 is far from even and tells nothing."""
    (row,) = canary_rows({"baseline": [WIN, WIN, WIN, LOSS]})
    assert not row.alarm
    assert row.sentence.endswith("no bias that can be distinguished from none.")


# --- held-out pairs --------------------------------------------------------------------------------------------------


def heldout_sentence(folder: Folder, gaps: list[float], *, before: list[float] | None = None) -> str:
    side = {"accuracy": 0.0, "reward_gap": 0.0}
    write_json(
        folder.heldout,
        {
            "n": len(gaps), "ids": [f"h{i}" for i in range(len(gaps))],
            "before": side | {"reward_gaps": before or [0.0] * len(gaps)}, "after": side | {"reward_gaps": gaps},
        },
    )  # fmt: skip
    texts = [sentence["text"].replace("\u00a0", " ") for sentence in make_report(a_config(folder.root))["headline"]]
    (text,) = [text for text in texts if "kept out of training" in text]
    return text


@pytest.mark.parametrize(
    ("gaps", "says", "leaves_out"),
    [
        ([1.0] * 15 + [-1.0] * 5, "**75.0 %** as their labels do (95 % CI 53.1 to 88.8; 50 % is chance)", "ties"),
        ([1.0] * 15 + [-1.0] * 3 + [0.0] * 2, "2 ties counted as half", "ranks none"),
        ([0.0] * 20, "every reward gap is 0: the model's own reward ranks none of them", "50.0 %"),
        ([1.0] * 6, "6 preference pairs kept out of training are too few", "100.0 %"),
        ([1.0], "1 preference pair kept out of training is too few", "100.0 %"),
    ],
    ids=["ranked", "ties", "all ties", "few", "one"],
)
def test_held_out_accuracy_is_a_finding_only_where_pairs_were_ranked(
    tmp_path: Path, gaps: list[float], says: str, leaves_out: str
) -> None:
    text = heldout_sentence(a_run(tmp_path, {"oracle": [WIN] * 20}), gaps)
    assert says in text
    assert leaves_out not in text


def test_a_reward_that_ranked_pairs_before_training_is_not_held_against_chance_alone(tmp_path: Path) -> None:
    """Without a reference a reward is a log-probability: 16 of 20 pairs were right before a step was made. Their mean
    gap is 0 all the same, which says nothing of whether there was something to rank."""
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    text = heldout_sentence(folder, [1.0] * 17 + [-1.0] * 3, before=[1.0] * 16 + [-4.0] * 4)
    assert "80.0 % before training; 50 % is chance" in text
    assert "there was nothing to rank" not in page(a_config(tmp_path))
    heldout_sentence(folder, [1.0] * 17 + [-1.0] * 3)
    assert "there was nothing to rank" in page(a_config(tmp_path))


# --- families, samples, gaps -----------------------------------------------------------------------------------------


def test_families_of_few_prompts_conclude_nothing(tmp_path: Path) -> None:
    a_run(tmp_path / "few", {"oracle": [WIN] * 12})
    make_report(a_config(tmp_path / "few"))
    assert "Too few prompts to conclude anything: math, writing." in page(a_config(tmp_path / "few"))
    a_run(tmp_path / "many", {"oracle": [WIN] * 40})
    make_report(a_config(tmp_path / "many"))
    assert "Too few prompts to conclude anything" not in page(a_config(tmp_path / "many"))


def test_answers_that_all_became_shorter_are_not_shown_as_grown(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    rows = json.loads(folder.answers("windtunnel").read_text())
    write_json(folder.answers("windtunnel"), [row | {"output": "n", "n_tokens": 1} for row in rows])
    groups = {group["group"] for group in make_report(a_config(tmp_path))["samples"]}
    assert "win" in groups
    assert "drift" not in groups


def test_samples_beside_a_baseline_did_not_grow(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN, longer=9)
    titles = [group["title"] for group in make_report(of_alpaca(tmp_path))["samples"]]
    assert "Aligned answers longest beside the baseline's" in titles
    assert not any("grew" in title for title in titles)


def test_unjudged_samples_say_nothing_of_wins(tmp_path: Path) -> None:
    a_run(tmp_path, {})
    config = a_config(tmp_path, judge="none")
    make_report(config)
    assert "As many losses as wins" not in page(config)


def test_a_single_family_is_not_called_none(tmp_path: Path) -> None:
    folder = a_run(tmp_path, {"oracle": [WIN] * 20})
    for path in (folder.answers("windtunnel"), folder.baseline_answers("windtunnel")):
        write_json(path, [row | {"dataset": "math"} for row in json.loads(path.read_text())])
    gaps = " ".join(make_report(a_config(tmp_path))["not_measured"])
    assert "Families: the prompts name fewer than two" in gaps
    assert "carry no family" not in gaps
