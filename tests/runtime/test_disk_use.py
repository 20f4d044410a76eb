"""What a run is said to take on disk is what it takes: checkpoints, model and milestones, while it trains and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder, make_config, make_pairs, prepare, write_model
from trimtab import store
from trimtab.config import Config
from trimtab.engine import checkpoint
from trimtab.runtime import set_up
from trimtab.runtime.disk_use import DiskUse, disk_use
from trimtab.stages import reference, train

SHAPE = {"hidden_size": 128, "intermediate_size": 512}  # weights outweigh manifests and logs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "qwen", **SHAPE)


def size(folder: Path, patterns: tuple[str, ...] = ("*",)) -> int:
    """Bytes of the files below that match."""
    files = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    return sum(path.stat().st_size for path in files)


def measured(config: Config, monkeypatch: pytest.MonkeyPatch) -> tuple[DiskUse, int, int]:
    """What is said; the most bytes before old checkpoints go, which is twice after each commit; bytes afterwards."""
    setup = set_up(config)
    pairs, heldout = make_pairs(16), make_pairs(4, seed=1)
    folder = prepare(config, pairs, heldout)
    folders = (folder.checkpoints, folder.model, folder.milestones)
    sizes: list[int] = []

    def weighed(real: Any) -> Any:
        def prune(*args: Any, **options: Any) -> None:
            sizes.append(sum(map(size, folders)))
            real(*args, **options)

        return prune

    monkeypatch.setattr(store, "prune", weighed(store.prune))
    monkeypatch.setattr(checkpoint, "keep_newest", weighed(checkpoint.keep_newest))
    reference.main(setup, reporter=Recorder())
    train.main(setup, reporter=Recorder())
    return disk_use(setup, pairs=pairs, n_heldout=len(heldout)), max(sizes), sum(map(size, folders))


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"train": {"keep_checkpoints": 4, "save_every": 1}},
        {"select": {"keep": True}},
        {"select": {"by": "last"}},
        {"engine": {"dtype": "bfloat16"}},
        {"adapter": {"kind": "lora", "rank": 64, "alpha": 8.0}},
        {"train": {"freeze_embeddings": True}},
    ],
    ids=str,
)
def test_what_a_run_takes_is_named_beforehand(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any]
) -> None:
    said, most, afterwards = measured(make_config(tmp_path / "run", model, **sections), monkeypatch)
    # manifests, configurations and a card beside the weights are small, and room is left for the generators' state
    assert 0.9 * said.peak < most <= 1.02 * said.peak
    assert 0.9 * said.finished < afterwards <= 1.05 * said.finished


def test_a_reference_free_objective_caches_no_rows(model: Path, tmp_path: Path) -> None:
    pairs = make_pairs(16)
    responses = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
    said = disk_use(set_up(make_config(tmp_path / "run", model)), pairs=pairs, n_heldout=0)
    assert (said.reference, said.milestones) == (4 * responses + 40 * 2 * 16, 0)
    free = make_config(tmp_path / "run", model, objective={"name": "simpo", "beta": None, "margin": None})
    assert disk_use(set_up(free), pairs=pairs, n_heldout=0).reference == 0
