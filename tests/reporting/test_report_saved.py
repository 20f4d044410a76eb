"""The report's block on compute saved: there for runs that screened, true to their rows, absent without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report_runs import (
    CHROMIUM,
    WIN,
    Lines,
    a_config,
    a_run,
    chromium,
    make_report,
    metrics_row,
    page,
    read_report,
    write_json,
)
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import report

RECORD = {"mode": "screening", "steps": 100, "responses_screened": 800, "promoted": 60}
SHRUNK = RECORD | {"mode": "shrinking", "shrunk_visits": 1200, "rechecked": 340, "missed": 12}


def screened_run(
    root: Path, *, record: dict[str, Any] | None = None, dense_steps: int = 40, shrinking: bool = False
) -> Folder:
    """Dense steps take 2 s for 1,000 tokens; those after them skip half of the backward passes and take 1 s."""
    folder = a_run(root, {"oracle": [WIN] * 20})
    rows = []
    for n in range(1, 101):
        dense = n <= dense_steps
        shares = {"skipped_backward": 0.0 if dense else 0.5, "skipped_forward": 0.0, "promoted": 0.0 if dense else 0.1}
        if shrinking and not dense:
            shares["skipped_forward"] = 0.25
        rows.append(metrics_row(n, 0) | shares | {"tokens_per_second": 500.0 if dense else 1000.0})
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if record is not None:
        write_json(folder.screening, record)
    return folder


def texts(root: Path) -> tuple[str, str]:
    config = a_config(root)
    return tuple(page(config, suffix).replace("\u00a0", " ").replace("\\", "") for suffix in ("html", "md"))  # type: ignore[return-value]  # two of them


def test_the_numbers_are_those_of_the_rows(tmp_path: Path) -> None:
    screened_run(tmp_path, record=RECORD)
    (entry,) = make_report(a_config(tmp_path))["compute_saved"]["seeds"]
    assert entry["shares"] == pytest.approx({"skipped_backward": 0.3, "skipped_forward": 0.0, "promoted": 0.06})
    assert (entry["responses_screened"], entry["responses_promoted"]) == (800, 60)
    assert entry["promoted_share"] == pytest.approx(0.075)
    assert entry["shrinking"] is None
    assert entry["time"]["seconds"] == pytest.approx(40 * 2 + 60 * 1)
    assert entry["time"]["dense_seconds"] == pytest.approx(100 * 2)
    assert entry["time"]["share"] == pytest.approx(0.3)
    for text in texts(tmp_path):
        assert "30.0 % of the response tokens took no backward pass. Of 800 responses screened by" in text
        assert "60 (7.5 %) turned out active and were computed again" in text
        assert (
            "took 2 min 20 s; dense they would have taken about 3 min 20 s, so about 30 % of the time was saved" in text
        )
        assert "the 39 steps that left nothing out, 500 tokens a second" in text
        assert "approximate:" not in text


def test_a_run_that_left_nothing_out_claims_no_time_saved_or_lost(tmp_path: Path) -> None:
    """Screening was on and acted on no step: whatever its steps took, screening did not do it."""
    screened_run(tmp_path, record=RECORD | {"responses_screened": 0, "promoted": 0}, dense_steps=100)
    (entry,) = make_report(a_config(tmp_path))["compute_saved"]["seeds"]
    assert (entry["time"]["method"], entry["time"]["share"]) == ("nothing left out", None)
    for text in texts(tmp_path):
        assert "0.0 % of the response tokens took no backward pass" in text
        assert "of the time was" not in text
        assert "dense they would have taken" not in text


def test_without_a_dense_step_the_estimate_is_called_a_count_and_an_upper_bound(tmp_path: Path) -> None:
    screened_run(tmp_path, record=RECORD, dense_steps=0)
    (entry,) = make_report(a_config(tmp_path))["compute_saved"]["seeds"]
    assert entry["time"]["method"] == "cost model"
    assert entry["time"]["share"] == pytest.approx(1 - (3 - 2 * 0.5 + 0.1) / 3)
    for text in texts(tmp_path):
        assert "An estimate by counting" in text
        assert "upper bound" in text


def test_shrinking_is_labelled_and_its_misses_counted(tmp_path: Path) -> None:
    screened_run(tmp_path, record=SHRUNK, shrinking=True)
    (entry,) = make_report(a_config(tmp_path))["compute_saved"]["seeds"]
    assert entry["shrinking"] == {"visits": 1200, "rechecked": 340, "missed": 12, "rate": pytest.approx(12 / 340)}
    line = (
        "approximate: 12 of 340 re-checked responses had become active unseen (missed-violation rate 3.5 %), after "
        "1,200 visits passed over."
    )
    for text in texts(tmp_path):
        assert line in text
        assert "15.0 % of all were not even computed" in text
    assert ">shrunk<" in page(a_config(tmp_path)), "the drawing has the fourth line"


def test_shrinking_that_was_never_checked_does_not_claim_a_rate(tmp_path: Path) -> None:
    screened_run(tmp_path, record=SHRUNK | {"rechecked": 0, "missed": 0}, shrinking=True)
    assert make_report(a_config(tmp_path))["compute_saved"]["seeds"][0]["shrinking"]["rate"] is None
    assert all("what was missed is not known" in text for text in texts(tmp_path))


@pytest.mark.parametrize("record", [{}, {"mode": "shrinking", "rechecked": 3}, {"responses_screened": "many"}])
def test_keys_that_are_not_there_are_left_out(tmp_path: Path, record: dict[str, Any]) -> None:
    screened_run(tmp_path, record=record)
    (entry,) = make_report(a_config(tmp_path))["compute_saved"]["seeds"]
    assert (entry["responses_screened"], entry["promoted_share"], entry["shrinking"]) == (None, None, None)
    assert all("30.0 % of the response tokens took no backward pass." in text for text in texts(tmp_path))


def test_a_run_that_did_not_screen_has_no_block(tmp_path: Path) -> None:
    a_run(tmp_path, {"oracle": [WIN] * 20})
    assert make_report(a_config(tmp_path))["compute_saved"] is None
    assert all("Compute saved" not in text for text in texts(tmp_path))


def test_rows_alone_are_enough(tmp_path: Path) -> None:
    screened_run(tmp_path, record=None)
    assert make_report(a_config(tmp_path))["compute_saved"]["seeds"][0]["mode"] is None
    assert all("Compute saved" in text for text in texts(tmp_path))


def test_a_change_of_the_record_makes_the_report_again(tmp_path: Path) -> None:
    folder = screened_run(tmp_path, record=RECORD)
    make_report(a_config(tmp_path))
    write_json(folder.screening, RECORD | {"promoted": 80})
    assert make_report(a_config(tmp_path))["compute_saved"]["seeds"][0]["promoted_share"] == pytest.approx(0.1)


def test_seeds_are_told_apart(tmp_path: Path) -> None:
    screened_run(tmp_path / "seed-0", record=RECORD)
    a_run(tmp_path / "seed-1", {"oracle": [WIN] * 20}, seed=1)
    screened_run(tmp_path / "seed-2", record=SHRUNK, shrinking=True)
    config = a_config(tmp_path, seeds=3)
    report.main(set_up(config), reporter=Lines())  # type: ignore[arg-type]  # a reporter that only says
    assert [entry["seed"] for entry in read_report(config)["compute_saved"]["seeds"]] == [0, 2]
    for text in texts(tmp_path):
        assert "Seed 0: 30.0 %" in text
        assert "Seed 2: approximate: 12 of 340" in text


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_block_is_on_the_page_in_a_browser(tmp_path: Path) -> None:
    screened_run(tmp_path, record=SHRUNK, shrinking=True)
    make_report(a_config(tmp_path))
    browser = chromium(set_up(a_config(tmp_path)).folder.report("html"), tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in browser.stderr
    assert 'id="saved"' in browser.stdout
    assert "missed-violation rate 3.5" in browser.stdout
