"""The report's last section follows from the run's own numbers, and held-out accuracy is given by source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report_runs import LOSS, TIE, WIN, a_config, a_run, lines, make_report, metrics_row, page, write_json
from trimtab.analysis.outlook import Outlook, Remedy
from trimtab.runtime.folder import Folder

REMEDY = Remedy(0.8, (9.0, 12.0, 18.0), (10.0, 12.0, 14.0))


def an_outlook(regime: Any, remedy: Remedy | None, *, step: int = 100) -> dict[str, Any]:
    return Outlook(
        step=step,
        steps=100,
        regimes=(regime, regime, regime),
        share_at_end=(1.0, 1.0, 1.0),
        chosen=(0.1, 0.2, 0.3),
        rejected=(-0.3, -0.2, -0.1),
        reach=10.0,
        remedy=remedy,
    ).to_json()


def a_moving_run(root: Path, wins: list[float | None], **over: float) -> Folder:
    """The rewards of its first step are 0, as those of a policy that still is its reference."""
    folder = a_run(root, {"oracle": wins})
    rows = [metrics_row(step, 0) | over for step in range(1, 101)]
    rows[0] |= {"rewards/chosen": 0.0, "rewards/rejected": 0.0}
    lines(folder.metrics, rows)
    return folder


def a_linear_run(root: Path) -> Folder:
    folder = a_moving_run(root, [WIN, LOSS] * 15, **{"active/rejected": 1.0})
    early, final = an_outlook("linear", REMEDY, step=10), an_outlook("linear", REMEDY)
    write_json(folder.outlook, {"early": early, "final": final})
    return folder


def test_a_linear_run_is_told_what_would_leave_it(tmp_path: Path) -> None:
    """12 times a rate of 1e-4 is .0012; 12 times β = .1 is 1.2. Even wins leave the rate at 50 %."""
    a_linear_run(tmp_path)
    next_steps = make_report(a_config(tmp_path, objective={"name": "apo_hinge_zero", "beta": 0.1}))["next_steps"]
    assert next_steps[0] == (
        "To leave the linear regime: about 12 times this learning rate, which is 0.0012 (9 to 18 times); or "
        "objective.beta ≥ 1.2 (1 to 1.4). At the end 100 % still pulled, and these would bring that to about 80 %."
    )
    assert next_steps[1].startswith("Ask more prompts: 30 leave the win rate at ")
    assert len(next_steps) == 2
    for suffix in ("html", "md"):
        text = page(a_config(tmp_path, objective={"name": "apo_hinge_zero", "beta": 0.1}), suffix)
        assert text.rindex("What to try next") > text.rindex("What these numbers mean")


def test_a_run_whose_numbers_ask_for_nothing_is_left_alone(tmp_path: Path) -> None:
    """Selective, ranked right on 31 of 40 held-out pairs, and better by every prompt."""
    a_moving_run(tmp_path, [WIN] * 30)
    assert make_report(a_config(tmp_path))["next_steps"] == ["Nothing: no number of this run asks for another setting."]


def test_a_remedy_needs_the_regime_that_the_run_had(tmp_path: Path) -> None:
    """The rows are selective: what an outlook said of a linear course is no evidence, and that it erred is said."""
    folder = a_moving_run(tmp_path, [WIN] * 30)
    early = an_outlook("linear", REMEDY, step=10)
    write_json(folder.outlook, {"early": early, "final": an_outlook("selective", None)})
    tree = make_report(a_config(tmp_path))
    assert tree["next_steps"] == ["Nothing: no number of this run asks for another setting."]
    said = " ".join(json.dumps(sentence) for sentence in tree["regime"])
    assert "After step 10 the run seemed to be heading for the linear regime; it did not go there." in said


@pytest.mark.parametrize(("holdout", "n_steps"), [(0.2, 1), (0, 0)])
def test_nothing_held_out_is_evidence_where_a_share_was_asked_for(tmp_path: Path, holdout: float, n_steps: int) -> None:
    folder = a_moving_run(tmp_path, [WIN] * 30)
    folder.heldout.unlink()
    audit = json.loads((folder.data / "audit.json").read_text())
    write_json(folder.data / "audit.json", audit | {"heldout": 0, "train_prompts": 2})
    next_steps = make_report(a_config(tmp_path, data={"source": "windtunnel", "holdout": holdout}))["next_steps"]
    expected = "Bring more prompts, raise data.holdout, or hold pairs of your own out (--data.eval): of 2 prompts none"
    assert sum(step.startswith(expected) for step in next_steps) == n_steps


def test_held_out_accuracy_is_given_by_source(tmp_path: Path) -> None:
    """12 pairs of a.jsonl, 9 right; 8 of b.jsonl, 2 right and 2 ties: .75 and (2 + 1)/8 = .375."""
    folder = a_moving_run(tmp_path, [WIN] * 15 + [TIE] * 15)
    gaps = {f"a.jsonl:{n}": 1.0 if n < 9 else -1.0 for n in range(12)}
    gaps |= {f"b.jsonl:{n}": (1.0, 1.0, 0.0, 0.0, -1.0, -1.0, -1.0, -1.0)[n] for n in range(8)}
    sources = [
        {"source": "a.jsonl", "rows": 60, "train": 45, "heldout": 12, "leaked": 0, "dropped": 3},
        {"source": "b.jsonl", "rows": 30, "train": 15, "heldout": 8, "leaked": 7, "dropped": 0},
    ]
    write_json(folder.heldout, {"ids": [*gaps], "before": None, "after": {"reward_gaps": [*gaps.values()]}})
    audit = json.loads((folder.data / "audit.json").read_text())
    write_json(folder.data / "audit.json", audit | {"sources": sources, "evaluation": "held.jsonl", "leaked": 7})
    by_source = make_report(a_config(tmp_path))["heldout"]["by_source"]
    values = {row["source"]: (row["accuracy"]["value"], row["accuracy"]["n"]) for row in by_source}
    assert values == {"a.jsonl": (0.75, 12), "b.jsonl": (0.375, 8)}
    text = page(a_config(tmp_path), "md")
    assert "7 pairs have a prompt of the held-out set and were left out of training" in text
    assert "| a.jsonl | 60 | 45 | 12 | 0 | 3 | 75.0 % |" in text
