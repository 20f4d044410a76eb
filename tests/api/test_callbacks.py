"""Callbacks: what they are told, and how they end a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import trimtab
from api_runs import KEYS, rows


class Recorder(trimtab.Callback):
    """Keeps what it hears; ends training after a step, or at the first milestone from a step on."""

    def __init__(self, *, last: int | None = None, last_milestone: int | None = None) -> None:
        self.events: list[Any] = []
        self.last, self.last_milestone = last, last_milestone

    def step(self, event: trimtab.Step, /) -> bool:
        self.events.append(event)
        return event.step == self.last

    def milestone(self, event: trimtab.Milestone, /) -> bool:
        self.events.append(event)
        return self.last_milestone is not None and event.step >= self.last_milestone

    def end(self, event: trimtab.End, /) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def train(out: Path, *callbacks: trimtab.Callback, steps: int = 6, **keys: Any) -> trimtab.Run:
    settings = KEYS | {"train": KEYS["train"] | {"max_steps": steps, "epochs": 9}}
    return trimtab.train(
        "windtunnel", pairs=rows(), objective=trimtab.Dpo(), out=out, callbacks=callbacks, **(settings | keys)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> trimtab.Run:
    return train(tmp_path_factory.mktemp("whole") / "run", steps=12)


def tree(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_they_hear_what_is_written(tmp_path: Path) -> None:
    ear = Recorder()
    run = train(tmp_path / "run", ear)
    assert [event.metrics for event in ear.of(trimtab.Step)] == run.metrics.to_dict("records")
    assert {(event.steps, event.folder) for event in ear.of(trimtab.Step)} == {(6, run.folder)}
    by_step = {row["step"]: row for row in tree(run.folder / "selection.json")["milestones"]}
    assert [event.step for event in ear.of(trimtab.Milestone)] == list(by_step)
    for event in ear.of(trimtab.Milestone):
        measures = by_step[event.step]
        assert event.accuracy == pytest.approx(measures["accuracy"]["value"])
        assert event.loss == pytest.approx(measures["loss"]["value"])
        assert event.drift == pytest.approx(measures["drift"]["value"])
    assert ear.events[-1] == trimtab.End(run.folder, "done", run.folder / "report.html")
    again = Recorder()
    assert train(tmp_path / "run", again) == run
    assert again.events == ear.events[-1:]  # nothing was trained


@pytest.mark.parametrize("words", [{"last": 5}, {"last_milestone": 4}], ids=["at a step", "at a milestone"])
def test_they_end_a_run_with_a_checkpoint_and_a_model(
    tmp_path: Path, whole: trimtab.Run, words: dict[str, int]
) -> None:
    ear = Recorder(**words)
    run = train(tmp_path / "run", ear, steps=12)
    last = len(run.metrics)
    assert 4 <= last < 12
    assert list(run.metrics["loss"]) == list(whole.metrics["loss"][:last])  # the same way, as far as it goes
    assert (run.folder / f"checkpoints/step-{last:08d}").is_dir()
    assert (run.model / "model.safetensors").is_file()
    selection = tree(run.folder / "selection.json")
    sentence = f"training was ended after step {last} of 12 by Recorder"
    assert (selection["last"], selection["early_end"], selection["lost"]) == (last, sentence, [])
    assert selection["milestones"][-1]["step"] == last
    assert sentence.capitalize().replace("recorder", "Recorder") in (run.model / "README.md").read_text()
    assert "raining was ended after step" in run.report().html.read_text(encoding="utf-8")
    assert tree(whole.folder / "selection.json")["early_end"] is None
    assert train(tmp_path / "run", steps=12) == run  # it is done, with or without who ended it
    if "last" not in words:
        return
    shutil.rmtree(run.model)
    assert list(train(tmp_path / "run", steps=12).metrics["loss"]) == list(whole.metrics["loss"])


def test_without_held_out_pairs_there_is_a_model_too(tmp_path: Path) -> None:
    run = train(tmp_path / "run", Recorder(last=2), data={"holdout": 0.0})
    assert len(run.metrics) == 2
    assert tree(run.folder / "selection.json")["early_end"] == "training was ended after step 2 of 6 by Recorder"


def test_what_they_raise_loses_nothing(tmp_path: Path, whole: trimtab.Run) -> None:
    class Faulty(Recorder):
        def step(self, event: trimtab.Step, /) -> bool:
            super().step(event)
            if event.step == 3:
                raise ZeroDivisionError("mine")
            return False

    ear, faulty = Recorder(), Faulty()
    with pytest.raises(ZeroDivisionError, match="mine"):
        train(tmp_path / "run", faulty, ear, steps=12)
    assert [event.outcome for listener in (ear, faulty) for event in listener.of(trimtab.End)] == ["failed"] * 2
    later = Recorder()
    run = train(tmp_path / "run", later, steps=12)
    assert [event.step for event in later.of(trimtab.Step)] == list(range(4, 13))
    assert list(run.metrics["loss"]) == list(whole.metrics["loss"])


def test_a_derived_class_need_not_say_everything(tmp_path: Path) -> None:
    class Silent(trimtab.Callback):
        pass

    assert len(train(tmp_path / "run", Silent(), steps=2).metrics) == 2
