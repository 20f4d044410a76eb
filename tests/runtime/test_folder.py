"""What the notes of stages hold readers to: a file is as its stage left it, or it is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab import store
from trimtab.errors import ConfigError, StoreError
from trimtab.runtime.folder import MODEL_CARD, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Two stages have finished: one left a model of two files and its card, the other answers."""
    folder = Folder(tmp_path / "run")
    store.write_text(folder.model / "config.json", "{}")
    store.write_text(folder.model / "part" / "weights.bin", "a" * 64)
    store.write_text(folder.model / MODEL_CARD, "card")
    store.write_text(folder.metrics, '{"step": 1}\n')
    folder.finish("train", "a digest", [folder.model, folder.metrics])
    store.write_text(folder.answers("koala"), "[]")
    folder.finish("generate", "another", [folder.answers("koala")])
    return folder


def flipped(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def test_what_nobody_touched_passes(folder: Folder) -> None:
    assert folder.is_done("train", "a digest")
    assert not folder.is_done("train", "of other inputs")
    assert not folder.is_done("judge", "a digest")
    assert folder.require(folder.model, "train") == folder.model
    assert folder.intact(folder.metrics) == folder.metrics
    assert folder.edited_files() == []


def test_a_folder_that_moved_is_the_same(folder: Folder, tmp_path: Path) -> None:
    moved = Folder(Path(shutil.move(folder.root, tmp_path / "elsewhere")))
    assert moved.is_done("train", "a digest")
    assert moved.intact(moved.model) == moved.model


@pytest.mark.parametrize("harm", [flipped, lambda path: path.write_bytes(b""), Path.unlink])
@pytest.mark.parametrize("name", ["model/config.json", "model/part/weights.bin"])
def test_a_file_that_changed_is_refused_and_named(folder: Folder, name: str, harm: Callable[[Path], object]) -> None:
    harm(folder.root / name)
    with pytest.raises(StoreError, match=name):
        folder.intact(folder.model)
    with pytest.raises(StoreError, match=name):
        folder.require(folder.model, "train")
    assert folder.intact(folder.metrics) == folder.metrics  # of the same stage, and not harmed


def test_a_change_within_one_process_is_seen(folder: Folder) -> None:
    assert folder.is_done("train", "a digest")
    flipped(folder.metrics)
    with pytest.raises(StoreError, match="damaged, edited, or being made again"):
        folder.is_done("train", "a digest")


def test_a_stage_whose_file_is_gone_is_not_done(folder: Folder) -> None:
    folder.metrics.unlink()
    assert not folder.is_done("train", "a digest")
    with pytest.raises(ConfigError, match="not there yet"):
        folder.require(folder.metrics, "train")


def test_the_model_card_and_what_no_stage_made_may_be_edited(folder: Folder) -> None:
    store.write_text(folder.model / MODEL_CARD, "my words")
    store.write_text(folder.model / "notes.txt", "mine")
    assert folder.is_done("train", "a digest")
    assert folder.intact(folder.model) == folder.model


def test_answers_may_be_edited_and_that_is_told(folder: Folder) -> None:
    store.write_text(folder.answers("koala"), "[1]")
    assert folder.is_done("generate", "another")
    assert folder.intact(folder.answers("koala")) == folder.answers("koala")
    assert folder.edited_files() == ["answers/koala.json"]


@pytest.mark.parametrize(
    "told", [[], {}, {"inputs": "a digest", "outputs": ["metrics.jsonl"]}, {"inputs": 1, "outputs": {"x": None}}]
)
def test_a_note_of_another_form_is_refused(folder: Folder, told: object) -> None:
    (folder.root / ".stages" / "train.json").write_text(json.dumps(told))
    with pytest.raises(StoreError, match="does not have the form"):
        folder.is_done("train", "a digest")
