"""The reference stage: computed once, found again by every run that needs the same numbers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder, make_config, make_pairs, prepare, write_model
from trimtab import store
from trimtab.engine import models
from trimtab.engine.scoring import Scorer
from trimtab.errors import StopError
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.runtime.run_identity import reference_key
from trimtab.stages import reference


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "qwen")


def filled(out: Path, model: Path, n: int = 6, **sections: Any) -> tuple[Folder, int]:
    """Prepare and run the stage; how many responses it computed."""
    config = make_config(out, model, **sections)
    folder = prepare(config, make_pairs(n), make_pairs(2, seed=1))
    told = Recorder()
    reference.main(set_up(config), reporter=told)
    assert store.read_json(folder.reference)["computed"] == told.tracked.get("reference", 0)
    return folder, told.tracked.get("reference", 0)


def test_it_computes_both_responses_of_all_pairs_and_says_where_they_are(model: Path, tmp_path: Path) -> None:
    folder, computed = filled(tmp_path / "one", model)
    assert computed == 16
    told = store.read_json(folder.reference)
    assert told["rows"] == 16
    assert Path(told["folder"]).name == told["digest"]
    assert store.read_json(Path(told["folder"]) / "key.json") == told["key"]


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"beta": 0.7}},
        {"objective": {"margin": 3.0}},
        {"train": {"learning_rate": 1e-4}},
        {"train": {"epochs": 1, "batch_pairs": 2}},
        {"adapter": {"kind": "lora"}},
        {"seed": 77},
        {"engine": {"pack_tokens": 640}},
        {"engine": {"screening": "off"}},
        {},
    ],
    ids=str,
)
def test_what_does_not_change_the_numbers_recomputes_nothing_and_loads_no_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any]
) -> None:
    filled(tmp_path / "one", model)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a second run needs no model")

    monkeypatch.setattr(models, "load", refuse)
    monkeypatch.setattr(Scorer, "logps", refuse)
    start = time.perf_counter()
    assert filled(tmp_path / "two", model, **sections)[1] == 0
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"source": "rows.jsonl", "max_prompt_tokens": 400}},
        {"data": {"source": "rows.jsonl", "max_response_tokens": 400}},
        {"engine": {"dtype": "bfloat16"}},
        {"engine": {"packed": "off"}},
    ],
    ids=str,
)
def test_what_changes_the_numbers_always_misses(model: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    filled(tmp_path / "one", model)
    assert filled(tmp_path / "two", model, **sections)[1] == 16


def test_other_weights_tokenizer_or_template_miss(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "one", model)
    folder, _ = filled(tmp_path / "one", model)
    first = reference_key(set_up(config)).digest
    other = write_model(tmp_path / "other", seed=3)
    assert filled(tmp_path / "two", other)[1] == 16
    store.write_json(folder.data / "audit.json", {"template": "another"})
    assert reference_key(set_up(config)).digest != first
    copy = write_model(tmp_path / "copy", seed=0)
    same = make_config(tmp_path / "three", copy)
    prepare(same, make_pairs(2))
    third = reference_key(set_up(same))
    assert third.digest == first  # the same bytes elsewhere are the same model
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8").replace('"w60": 60', '"x60": 60').replace("w60", "x60"))
    assert reference_key(set_up(same)).digest != first
    settings = copy / "config.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace("1e-06", "1e-05"))
    assert reference_key(set_up(same)).weights != third.weights


def test_grown_data_computes_its_new_rows(model: Path, tmp_path: Path) -> None:
    filled(tmp_path / "one", model, n=6)
    assert filled(tmp_path / "two", model, n=10)[1] == 8


def test_a_damaged_shard_is_told_and_mended(model: Path, tmp_path: Path) -> None:
    folder, _ = filled(tmp_path / "one", model)
    (shard,) = Path(store.read_json(folder.reference)["folder"]).glob("shard-*")
    file = shard / "rows.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    told = Recorder()
    reference.main(set_up(make_config(tmp_path / "one", model)), reporter=told)
    assert any("damaged" in line and "computed again" in line for line in told.lines)
    assert told.tracked["reference"] == 16


def test_a_signal_keeps_what_was_computed(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "one", model, engine={"pack_tokens": 25})
    prepare(config, make_pairs(12))

    class Stopping(Recorder):
        def track(self, description: str, /, *, total: int | None, unit: str, n_done: int = 0) -> Any:
            assert description == "reference"
            return super().track("training", total=total, unit=unit, n_done=n_done)

    with pytest.raises(StopError) as caught:
        reference.main(set_up(config), reporter=Stopping(at=5, act=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert caught.value.exit_code == 143
    told = Recorder()
    reference.main(set_up(config), reporter=told)
    assert told.tracked["reference"] == 24 - 5


def test_the_plan_counts_rows_and_tokens(model: Path, tmp_path: Path) -> None:
    pairs = make_pairs(3)
    planned = reference.plan(set_up(make_config(tmp_path / "run", model)), pairs)
    assert planned == reference.ReferencePlan(needed=True, rows=6, tokens=sum(pair.n_tokens for pair in pairs))
