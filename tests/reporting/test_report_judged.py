"""What the report says of judges that are not the truth: baselines, missing verdicts, canaries, lengths, marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report_runs import (
    BASELINE,
    CHROMIUM,
    LOSS,
    WIN,
    a_config,
    a_judged_run,
    a_marked_run,
    make_report,
    page,
    width_on_a_phone,
    write_json,
)
from trimtab.analysis.canaries import canary_rows
from trimtab.analysis.comparison import compare
from trimtab.config import Config
from trimtab.errors import StoreError
from trimtab.judging.official import LengthTables
from trimtab.records import Answer
from trimtab.reporting import read
from trimtab.runtime.folder import Folder

UP = [WIN] * 30 + [LOSS] * 30
DOWN = [WIN] * 8 + [LOSS] * 52


def of_alpaca(out: Path, **more: Any) -> Config:
    return a_config(out, benchmark="alpaca_eval", judge="openai:gpt-4o", model="tiny", **more)


def of_mt_bench(out: Path) -> Config:
    return a_config(out, benchmark="mt_bench", judge="openai:gpt-4o", model="tiny")


def text_of(numbers: dict[str, Any]) -> str:
    return " ".join(sentence["text"] for sentence in numbers["headline"]).replace("\u00a0", " ")


# --- a published baseline --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aligned", "unaligned", "tone", "says"),
    [
        (UP, DOWN, "good", "Alignment made the answers better"),
        (DOWN, UP, "bad", "Alignment made the answers worse"),
        (UP, UP[::-1], "even", "No change for better or worse can be distinguished"),
    ],
    ids=["better", "worse", "neither"],
)
def test_the_verdict_is_the_paired_difference(
    tmp_path: Path, aligned: list[float | None], unaligned: list[float | None], tone: str, says: str
) -> None:
    a_judged_run(tmp_path, aligned, unaligned)
    numbers = make_report(of_alpaca(tmp_path))
    assert numbers["headline"][0]["tone"] == tone
    text = numbers["headline"][0]["text"].replace("\u00a0", " ")
    assert says in text
    assert f"against {BASELINE} the aligned model wins" in text
    assert f"50 % would be as good as {BASELINE}, not no change" in text
    assert "60 prompts" in text
    assert "judge: gpt-4o (weighted) [prompt 784227e6, official seeded order]" in text


def test_its_numbers_are_those_of_the_comparison(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN)
    judge = make_report(of_alpaca(tmp_path))["benchmark"]["judges"][0]
    expected = compare({str(i): p - 1 for i, p in enumerate(UP)}, {str(i): p - 1 for i, p in enumerate(DOWN)})
    change = judge["unaligned"]["change"]
    assert judge["win_rate"]["value"] == 50
    assert judge["unaligned"]["win_rate"]["value"] == pytest.approx(100 * 8 / 60)
    assert change["value"] == pytest.approx(expected.delta)
    assert change["ci95"] == pytest.approx(list(expected.ci95))
    assert (change["wins_a"], change["ties"], change["wins_b"]) == (22, 38, 0)


def test_half_is_not_called_no_change_against_another_model(tmp_path: Path) -> None:
    """50 % against a published baseline, with the unaligned model far below."""
    a_judged_run(tmp_path, UP, DOWN)
    numbers = make_report(of_alpaca(tmp_path))
    assert "no change**, which would be" not in text_of(numbers)
    html = page(of_alpaca(tmp_path)).replace("\u00a0", " ")
    assert "The dashed line is 50: as good as gpt4_1106_preview, which is not no change." in html
    assert "What alignment changed" in html


def test_without_the_unaligned_model_no_change_is_claimed(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP)
    numbers = make_report(of_alpaca(tmp_path))
    assert numbers["headline"][0]["tone"] == "plain"
    assert "whether alignment changed anything was not measured" in text_of(numbers)
    assert "What alignment did to length was not measured" in text_of(numbers)
    assert numbers["benchmark"]["before"] == "baseline"


def test_a_file_of_prompts_without_answers_is_still_against_the_unaligned_model(tmp_path: Path) -> None:
    folder = a_judged_run(tmp_path, UP[:40] + [WIN] * 20, baseline="tiny", benchmark="mine")
    write_json(tmp_path / "mine.json", [])
    numbers = make_report(
        a_config(tmp_path, benchmark=str(tmp_path / "mine.json"), judge="reward:some/model", model="tiny")
    )
    assert folder.verdicts("mine").is_file()
    assert numbers["benchmark"]["baseline"] == {"name": "tiny", "published": False}
    assert "better than the unaligned model's on" in text_of(numbers)


def test_seeds_are_pooled_and_the_difference_with_them(tmp_path: Path) -> None:
    config = of_alpaca(tmp_path, seeds=3)
    for k in range(3):
        a_judged_run(tmp_path / f"seed-{k}", UP[k:] + UP[:k], DOWN)
    numbers = make_report(config)
    change = numbers["benchmark"]["judges"][0]["unaligned"]["change"]
    assert (change["n_seeds"], change["n"]) == (3, 60)
    assert "60 prompts, 3 seeds" in text_of(numbers)
    assert numbers["benchmark"]["identity"]["cost_usd"] == pytest.approx(9.75)
    assert numbers["benchmark"]["identity"]["n_prompts"] == 180


# --- missing verdicts ------------------------------------------------------------------------------------------------


def test_too_many_missing_give_no_headline_number(tmp_path: Path) -> None:
    a_judged_run(tmp_path, [None] * 5 + UP[5:], DOWN, record={"n_missing": 5, "reasons": "rate limit: 5"})
    numbers = make_report(of_alpaca(tmp_path))
    first = numbers["headline"][0]
    assert first["tone"] == "warn"
    assert (
        first["text"]
        .replace("\u00a0", " ")
        .startswith("**No headline number**: 5 of 60 verdicts are missing, 8.3 % (rate limit: 5)")
    )
    assert "wins" not in text_of(numbers)
    assert "No headline number: 5 of 60" in page(of_alpaca(tmp_path))


def test_missing_ones_that_are_allowed_are_still_told(tmp_path: Path) -> None:
    a_judged_run(tmp_path, [None] * 5 + UP[5:], DOWN, record={"n_missing": 5, "allow_missing": True})
    numbers = make_report(of_alpaca(tmp_path))
    assert "Alignment made the answers better" in numbers["headline"][0]["text"]
    assert "they are left out of every number here, as --allow-missing asked" in text_of(numbers)
    change = numbers["benchmark"]["judges"][0]["unaligned"]["change"]
    assert (change["n"], change["n_missing"]) == (55, 5)


# --- who judged ------------------------------------------------------------------------------------------------------


def test_the_judge_is_named_with_prompt_order_and_cost(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN)
    make_report(of_alpaca(tmp_path))
    for form in ("html", "md"):
        visible_text = page(of_alpaca(tmp_path), form).replace("\\", "")
        for part in ("784227e600000000…", "official seeded order", "1,610, 12, 3", "3.25 USD", "api.openai.com"):
            assert part in visible_text


def test_a_canary_that_rings_stands_at_the_top(tmp_path: Path) -> None:
    rows = canary_rows({"baseline": [1.5] * 20, "constant": [WIN] * 15 + [LOSS] * 5, "empty": [LOSS] * 20})
    a_judged_run(tmp_path, UP, DOWN, canaries=[row.to_json() for row in rows])
    numbers = make_report(of_alpaca(tmp_path))
    assert numbers["headline"][1]["tone"] == "warn"
    assert "One constant answer to every prompt wins 75 %" in numbers["headline"][1]["text"].replace("\u00a0", " ")
    assert sum("Canary" in sentence["text"] for sentence in numbers["headline"]) == 1
    html = page(of_alpaca(tmp_path))
    assert "⚠ yes" in html
    assert [row["name"] for row in numbers["benchmark"]["canaries"]] == ["baseline", "constant", "empty"]


def test_without_canaries_that_is_said(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN)
    assert any("judge.canaries" in gap for gap in make_report(of_alpaca(tmp_path))["not_measured"])


def test_one_answer_to_everything_is_warned_of(tmp_path: Path) -> None:
    folder = a_judged_run(tmp_path, UP, DOWN)
    for path in (folder.verdicts("alpaca_eval"), folder.answers("alpaca_eval")):
        rows = json.loads(path.read_text())
        write_json(path, [row | {"output_2" if "output_2" in row else "output": "null"} for row in rows])
    numbers = make_report(of_alpaca(tmp_path))
    assert "One answer to everything" in numbers["headline"][1]["text"]


# --- length ----------------------------------------------------------------------------------------------------------


def test_bins_of_length_hold_every_prompt(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN, longer=2)
    benchmark = make_report(of_alpaca(tmp_path))["benchmark"]
    assert sum(row["n_prompts"] for row in benchmark["length_bins"]) == 60
    assert len(benchmark["length_bins"]) == 5
    low = [row["gap"][0] for row in benchmark["length_bins"]]
    assert low == sorted(low)
    assert "Win rate by difference in length" in page(of_alpaca(tmp_path))


@pytest.mark.parametrize(
    ("record", "calibrated"),
    [
        ({}, False),
        ({"model": "gpt-4-1106-preview"}, True),
        ({"model": "gpt-4-1106-preview", "order": "both orders"}, False),
    ],
)
def test_length_control_of_another_judge_is_called_uncalibrated(
    tmp_path: Path, record: dict[str, Any], calibrated: bool
) -> None:
    a_judged_run(tmp_path, UP, DOWN, longer=2, record=record)
    numbers = make_report(of_alpaca(tmp_path))
    assert numbers["benchmark"]["judges"][0]["length_controlled"]["calibrated"] is calibrated
    assert ("uncalibrated for this judge" in text_of(numbers)) is not calibrated


def test_official_tables_make_the_full_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = LengthTables(
        [0.1 * (i % 7) for i in range(805)],
        {"preference": [0.6, 0.2], "std_delta_len": [-1.0, 1.0], "instruction_difficulty": [0.0, 0.5]},
    )
    monkeypatch.setattr(read, "length_tables", lambda _name, source: tables)
    a_judged_run(tmp_path, UP, DOWN, longer=2)
    length_control = make_report(of_alpaca(tmp_path))["benchmark"]["judges"][0]["length_controlled"]
    assert length_control["variant"] == "length_controlled_v1"
    assert set(length_control["by_seed"][0]["lc_weights"]) == {"length", "difficulty", "own"}


def test_tables_that_cannot_be_had_are_told(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN)
    length_control = make_report(of_alpaca(tmp_path))["benchmark"]["judges"][0]["length_controlled"]
    assert length_control["variant"] == "length_controlled_minimal"
    assert any("instruction_difficulty.csv" in note for note in length_control["notes"])


# --- marks -----------------------------------------------------------------------------------------------------------


def test_marks_of_both_models_by_turn_and_category(tmp_path: Path) -> None:
    a_marked_run(tmp_path, [7.0 + i % 3 for i in range(80)], [6.0 + i % 3 for i in range(80)])
    numbers = make_report(of_mt_bench(tmp_path))
    marks = numbers["benchmark"]["marks"]
    assert marks["models"] == {"aligned": "tiny aligned", "unaligned": "tiny"}
    assert marks["all"]["means"]["aligned"]["value"] == pytest.approx(7.4875)  # 7.9875 and, in turn 2, one less
    assert marks["all"]["change"]["value"] == pytest.approx(1)
    assert [group["name"] for group in marks["groups"]][:4] == ["turn 1", "turn 2", "writing", "roleplay"]
    math = next(group for group in marks["groups"] if group["name"] == "math")
    assert math["turns"]["2"]["means"]["aligned"]["value"] == pytest.approx(math["means"]["aligned"]["value"] - 0.5)
    first = numbers["headline"][0]
    assert first["tone"] == "good"
    assert "mean mark is **7.49 of 10**" in first["text"].replace("\u00a0", " ")
    assert "80 questions, judge: gpt-4o [single-answer grading" in first["text"]
    html = page(of_mt_bench(tmp_path))
    assert "<title>Mean mark by category</title>" in html
    assert "Aligned minus unaligned, paired by question" in html
    assert numbers["benchmark"]["judges"] == []
    assert "not judged" not in text_of(numbers)


def test_marks_of_the_aligned_model_alone(tmp_path: Path) -> None:
    a_marked_run(tmp_path, [7.0] * 80)
    numbers = make_report(of_mt_bench(tmp_path))
    assert numbers["benchmark"]["marks"]["all"]["change"] is None
    assert "mean mark is **6.50 of 10**" in text_of(numbers)
    assert "Whether alignment changed anything was not measured" in text_of(numbers)
    assert "<h2>Marks</h2>" in page(of_mt_bench(tmp_path))


def test_marks_that_cannot_be_read_are_missing(tmp_path: Path) -> None:
    folder = a_marked_run(tmp_path, [7.0] * 80, [6.0] * 80, record={"n_missing": 8})
    rows = [json.loads(line) for line in folder.verdicts("mt_bench", turns=True).read_text().splitlines()]
    text = "".join(json.dumps(row | ({"score": -1} if k < 8 else {})) + "\n" for k, row in enumerate(rows))
    folder.verdicts("mt_bench", turns=True).write_text(text)
    numbers = make_report(of_mt_bench(tmp_path))
    assert numbers["headline"][0]["text"].startswith("**No headline number**")
    assert numbers["benchmark"]["marks"]["n_missing"] == {"aligned": 8, "unaligned": 0}
    assert numbers["benchmark"]["marks"]["all"]["change"]["n"] == 76


def test_a_damaged_answer_file_is_named(tmp_path: Path) -> None:
    folder = a_marked_run(tmp_path, [7.0] * 80, [6.0] * 80)
    folder.answers("mt_bench", turns=True).write_text('{"question_id": 81}\n')
    with pytest.raises(StoreError, match=r"mt_bench\.jsonl does not have the form"):
        make_report(of_mt_bench(tmp_path))


# --- the page --------------------------------------------------------------------------------------------------------


def test_names_and_judges_are_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    record = {
        "judge": hostile,
        "base_url": "javascript:alert(1)",
        "notes": [hostile],
        "texts": {hostile: {"sha256": hostile}},
    }
    rows = [row.to_json() for row in canary_rows({"constant": [WIN] * 20})]
    a_judged_run(tmp_path, UP, DOWN, record=record, baseline=f"{hostile}\u202e", instruction=hostile, canaries=rows)
    folder = Folder(tmp_path)
    write_json(
        folder.canaries("alpaca_eval"), [{"judge": hostile, "canaries": [row | {"sentence": hostile} for row in rows]}]
    )
    make_report(of_alpaca(tmp_path))
    html = page(of_alpaca(tmp_path))
    assert "<script" not in html
    assert "\u202e" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "\\<script\\>" in page(of_alpaca(tmp_path), "md")


def test_samples_show_what_the_judge_saw(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN)
    numbers = make_report(of_alpaca(tmp_path))
    sample = numbers["samples"][0]["samples"][0]
    assert sample["before"]["text"].startswith("a published answer")
    assert sample["labels"] == {"before": BASELINE, "after": "aligned"}


def test_lengths_are_of_the_same_model_before_and_after(tmp_path: Path) -> None:
    a_judged_run(tmp_path, UP, DOWN)
    folder = Folder(tmp_path)
    before = [
        len(Answer.from_json(row).output) for row in json.loads(folder.unaligned_answers("alpaca_eval").read_text())
    ]
    numbers = make_report(of_alpaca(tmp_path))["benchmark"]["lengths"]
    assert numbers["characters"]["before"]["value"] == pytest.approx(sum(before) / len(before))


def test_a_changed_judge_makes_the_report_again(tmp_path: Path) -> None:
    folder = a_judged_run(tmp_path, UP, DOWN)
    make_report(of_alpaca(tmp_path))
    before = folder.report("json").read_text()
    write_json(folder.judge("alpaca_eval"), json.loads(folder.judge("alpaca_eval").read_text()) | {"cost_usd": 9.99})
    make_report(of_alpaca(tmp_path))
    assert folder.report("json").read_text() != before


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("kind", ["alpaca", "marks"])
def test_on_a_phone_nothing_is_wider_than_the_screen(tmp_path: Path, kind: str) -> None:
    name = "an-organisation-with-a-long-name/a-model-with-an-even-longer-name-without-any-break-Q4_K_M-GGUF-2024-11-06"
    out = tmp_path / "run"
    if kind == "alpaca":
        a_judged_run(out, UP, DOWN, baseline=name, record={"judge": name, "base_url": f"http://{name}.example/v1"})
        make_report(of_alpaca(out))
    else:
        a_marked_run(out, [7.0] * 80, [6.0] * 80, record={"judge": name})
        make_report(of_mt_bench(out))
    text = (out / "report.html").read_text(encoding="utf-8")
    assert width_on_a_phone(text, tmp_path) <= 360
