"""Whole runs: screening leaves the trajectory as it is, shrinking says what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stage_runs import Recorder, align, make_config, weights, without_clock, write_model
from trimtab import store
from trimtab.runtime.folder import Folder

LORA = {"kind": "lora", "rank": 4, "alpha": 8.0}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "apo_hinge_zero": {"beta": 2.0, "margin": 1.0},
    "dpo_hinge": {"beta": 2.0, "margin": 1.0},
    "margin_sigmoid": {"beta": 2.0, "delta": 0.3},
    "repo": {"gamma": 0.4},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "qwen")


def _run(tmp_path: Path, model: Path, name: str, *, rate: float = 3e-4, **sections: Any) -> Folder:
    # 52 steps over 13 epochs, at a rate that empties and refills the dead zone on the way
    train = {"epochs": 13, "batch_pairs": 4, "learning_rate": rate, "save_every": 100, "weight_decay": 0.01}
    folder, _ = align(make_config(tmp_path / name, model, train=train, **sections))
    return folder


def _gap(one: Folder, other: Folder) -> float:
    """Largest relative difference of a tensor, in its 2-norm, without the biases of keys.

    Such a bias shifts all scores of a query nearly alike, so its gradient is rounding, which AdamW scales up: two dense
    runs that are packed differently come apart there by 7e-5, and by less than 1e-6 everywhere else.
    """
    a, b = weights(one), weights(other)
    names = [name for name in a if not name.endswith("k_proj.bias")]
    return max(float((a[name] - b[name]).norm() / a[name].norm().clamp_min(1e-12)) for name in names)


@pytest.mark.parametrize("adapter", [{}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_screened_trajectories_are_the_dense_ones(
    name: str, adapter: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    told = {"objective": {"name": name, "margin": None, "beta": None} | OBJECTIVES[name], "adapter": adapter}
    dense = _run(tmp_path, model, "dense", engine={"screening": "off"}, **told)
    screened = _run(tmp_path, model, "screened", engine={"screening": "on"}, **told)
    rows, dense_rows = store.read_jsonl(screened.metrics), store.read_jsonl(dense.metrics)
    assert len(rows) == 52
    assert sum(row["skipped_backward"] for row in rows) > 3  # it did skip
    assert [row["active/pair"] for row in rows] == [row["active/pair"] for row in dense_rows]
    assert _gap(dense, screened) <= 1e-5


def test_while_everything_is_active_screening_is_the_dense_run_bit_for_bit(model: Path, tmp_path: Path) -> None:
    far = {"objective": {"name": "apo_hinge_zero", "beta": 0.01, "margin": 1.0}}
    dense = _run(tmp_path, model, "dense", engine={"screening": "off"}, **far)
    screened = _run(tmp_path, model, "screened", engine={"screening": "on"}, **far)
    assert _gap(dense, screened) == 0.0
    assert without_clock(store.read_jsonl(dense.metrics)) == without_clock(store.read_jsonl(screened.metrics))


def test_a_run_tells_what_screening_did(model: Path, tmp_path: Path) -> None:
    folder = _run(tmp_path, model, "run", engine={"screening": "on"})
    told = store.read_json(folder.screening)
    assert told["mode"] == "screening"
    assert told["steps"] == 52
    assert 0 <= told["promoted"] < told["responses_screened"] < 13 * 32
    rows = store.read_jsonl(folder.metrics)
    assert all(row["skipped_forward"] == 0 for row in rows)
    assert any(row["promoted"] > 0 for row in rows) is (told["promoted"] > 0)


def test_auto_leaves_a_model_alone_that_is_too_small_for_a_second_pass(model: Path, tmp_path: Path) -> None:
    """A few thousand parameters: the calls of a pass cost more than its arithmetic."""
    told = store.read_json(_run(tmp_path, model, "run").screening)
    assert told["responses_screened"] == 0


def test_shrinking_skips_forward_passes_and_counts_what_it_missed(model: Path, tmp_path: Path) -> None:
    exact = _run(tmp_path, model, "exact")
    shrunk = _run(tmp_path, model, "shrunk", engine={"shrinking": "on"})
    told, rows = store.read_json(shrunk.screening), store.read_jsonl(shrunk.metrics)
    assert told["mode"] == "shrinking"
    assert told["shrunk_visits"] > 20
    assert 0 <= told["missed"] <= told["rechecked"] <= told["shrunk_visits"]
    assert told["rechecked"] > 0
    assert any(row["skipped_forward"] > 0 for row in rows)
    assert max(row["step"] for row in rows if row["skipped_forward"] == 0) > 8  # moves are learnt first
    ours, theirs = (store.read_json(folder.heldout)["after"]["accuracy"] for folder in (shrunk, exact))
    assert abs(ours - theirs) <= 0.25  # 4 pairs: the same but for one


def test_a_resumed_run_forecasts_and_shrinks_as_if_it_had_not_stopped(model: Path, tmp_path: Path) -> None:
    straight = _run(tmp_path, model, "straight", engine={"shrinking": "on"})
    config = make_config(
        tmp_path / "stopped",
        model,
        engine={"shrinking": "on"},
        train={"epochs": 13, "batch_pairs": 4, "learning_rate": 3e-4, "save_every": 30, "weight_decay": 0.01},
    )

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align(config, reporter=Recorder(at=31, act=stop))
    resumed, told = align(config)
    assert any("goes on after step 30" in line for line in told.lines)
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(straight).items())
    assert store.read_json(straight.screening) == store.read_json(resumed.screening)
