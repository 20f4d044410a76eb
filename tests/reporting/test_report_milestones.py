"""The report's block on milestones: the pick, the rule, quality against drift; none where nothing was held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from report_runs import WIN, a_config, a_run, make_report, page, write_json
from trimtab.analysis import selection
from trimtab.runtime.folder import Folder

RULE = selection.RULE


def a_selected_run(root: Path, *, seed: int = 0, drift: bool = True, **overrides: Any) -> Folder:
    """Steps 10, 20 and 30: the second fits the held-out pairs best."""
    folder = a_run(root, {"oracle": [WIN] * 20}, seed=seed)
    rng = np.random.default_rng(seed)
    base = rng.normal(0.0, 0.1, size=40)

    def milestone(step: int, loss: float) -> selection.Milestone:
        drift_P = np.full(40, step / 100) if drift else None
        return selection.Milestone(step, step / 10, 1.0 - base, loss + base, drift_P, drift_P, drift_P)

    candidates = [milestone(10, 1.5), milestone(20, 1.0), milestone(30, 1.2)]
    choice = selection.choose(candidates, by="held_out")
    document = {
        "by": "held_out", "rule": RULE, "last": 30, "n": 40, "ids": [f"h{i}" for i in range(40)], "lost": [],
        "picked": choice.step, "why": choice.why, "drift_note": "half squares" if drift else "no reference",
        "milestones": [row.to_json() for row in selection.numbers(candidates, picked=choice.step)],
    }  # fmt: skip
    write_json(folder.selection, document | overrides)
    return folder


def texts(root: Path, **tree: Any) -> tuple[str, str]:
    make_report(a_config(root, **tree))
    html, md = (page(a_config(root, **tree), suffix) for suffix in ("html", "md"))
    return html.replace("\u00a0", " "), md.replace("\u00a0", " ").replace("\\", "")


def test_the_pick_its_reason_and_the_curve(tmp_path: Path) -> None:
    a_selected_run(tmp_path)
    numbers = make_report(a_config(tmp_path))
    (entry,) = numbers["milestones"]["seeds"]
    assert (entry["seed"], entry["picked"], entry["last"]) == (0, 20, 30)
    assert "ids" not in entry
    assert any("step 20 of 30" in sentence["text"] for sentence in numbers["headline"])
    html, md = texts(tmp_path)
    for text in (html, md):
        assert "Step 20 of 30, because its loss on the 40 held-out pairs is distinguishably lower" in text
        assert "95 % interval of the paired difference" in text
        assert "20 (picked)" in text
    assert '<section id="milestones">' in html
    assert html.count("drift from the reference, nats a token") == 2
    assert 'href="#milestones"' in html


def test_a_last_step_is_no_headline(tmp_path: Path) -> None:
    a_selected_run(tmp_path, picked=30, why="select.by is last")
    numbers = make_report(a_config(tmp_path))
    assert not any("step 30" in sentence["text"] for sentence in numbers["headline"])
    assert "Step 30 of 30, because select.by is last" in texts(tmp_path)[1]


def test_lost_milestones_are_warned_of(tmp_path: Path) -> None:
    a_selected_run(tmp_path, lost=[3, 8])
    headline = make_report(a_config(tmp_path))["headline"]
    warnings = [sentence for sentence in headline if "gone or damaged" in sentence["text"]]
    assert [sentence["tone"] for sentence in warnings] == ["warn"]
    assert "3, 8" in warnings[0]["text"]


def test_an_accuracy_that_fell_is_warned_of_by_seed(tmp_path: Path) -> None:
    fell = "held-out accuracy was distinguishably higher after step 9"
    a_selected_run(tmp_path, warning=fell)
    headline = [(sentence["tone"], sentence["text"]) for sentence in make_report(a_config(tmp_path))["headline"]]
    assert ("warn", f"H{fell[1:]}.") in headline


def test_without_a_reference_the_curve_is_over_steps(tmp_path: Path) -> None:
    a_selected_run(tmp_path, drift=False)
    html, md = texts(tmp_path)
    assert "drift from the reference, nats a token" not in html
    assert "no reference" in html
    assert "| drift |" not in md


def test_nothing_held_out_no_block(tmp_path: Path) -> None:
    a_selected_run(tmp_path, picked=30, milestones=[], drift_note=None, why="no pairs were held out")
    html, md = texts(tmp_path)
    assert "Milestones" not in html
    assert "## Milestones" not in md


def test_several_seeds_are_named(tmp_path: Path) -> None:
    for seed in range(2):
        a_selected_run(tmp_path / f"seed-{seed}", seed=seed)
    html, md = texts(tmp_path, seeds=2)
    for text in (html, md):
        assert "Seed 1: step 20 of 30, because" in text
        assert "Seed 1: the model is that of" in text
    assert len(make_report(a_config(tmp_path, seeds=2))["milestones"]["seeds"]) == 2
