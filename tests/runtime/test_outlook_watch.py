"""What a run says of its own course: the reach of each objective by hand, the log, the file, and a hundred runs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from stage_runs import Recorder, align, make_config, make_pairs, prepare, write_model
from trimtab import objectives, store, windtunnel
from trimtab.commands import plan as plan_command
from trimtab.commands.pilot import pilot
from trimtab.errors import ConfigError
from trimtab.progress import SilentReporter
from trimtab.runtime import outlook_watch, set_up
from trimtab.runtime.outlook_words import heading
from trimtab.stages import reference, train


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("objective", "nats"),
    [
        (objectives.make("apo_hinge_zero", beta=0.1, margin=1.0), 10.0),  # m/β
        (objectives.make("dpo_hinge", beta=0.1, margin=1.0), 5.0),  # both sides move: m/2β
        (objectives.make("dpo", beta=0.1), math.log(3) / 0.2),  # σ(−2βx) = ¼, against ½ at 0
        (objectives.make("apo_zero", beta=0.5), math.acosh(math.sqrt(2)) / 0.25),  # sech²(βx/2) = ½
        (objectives.make("margin_sigmoid", beta=0.1, delta=0.2), -math.log(math.expm1(0.2)) / 0.2),  # its dead zone
    ],
)
def test_the_reach_is_where_half_of_the_pull_is_left(objective: objectives.Objective, nats: float) -> None:
    assert outlook_watch._reach(objective) == pytest.approx(nats, rel=1e-4)


def test_a_run_keeps_and_says_where_it_is_heading(tmp_path: Path) -> None:
    """Steps too small to move anything: linear, with a remedy; what comes is in the file beside it."""
    model = write_model(tmp_path / "model")
    config = make_config(tmp_path / "run", model, train={"learning_rate": 1e-5, "epochs": 6})
    folder, recorder = align(config)
    tree = store.read_json(folder.outlook)
    assert (tree["early"]["regime"], tree["final"]["regime"]) == ("linear", "linear")
    assert tree["final"]["step"] == tree["final"]["steps"] == 24
    assert tree["early"]["reach"] == pytest.approx(2.0)  # m/β = 1/.5
    (line,) = [line for line in recorder.lines if line.startswith("train: outlook: ")]
    assert f"after step {tree['early']['step']} of 24 the run is heading for the linear regime" in line
    assert "times this learning rate" in line
    assert line.endswith(")")


def test_an_outlook_does_not_depend_on_where_a_run_was_stopped(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    config = make_config(tmp_path / "run", model, train={"epochs": 6})
    folder, _ = align(config)
    whole = store.read_json(folder.outlook)
    shutil.rmtree(folder.root)
    prepare(config, make_pairs(16), make_pairs(4, seed=1, name="held"))
    reference.main(set_up(config), reporter=SilentReporter())
    train.main(set_up(config), reporter=SilentReporter(), until=5)
    assert not folder.model.exists()
    assert len(store.read_jsonl(folder.metrics)) == 5
    train.main(set_up(config), reporter=SilentReporter())
    assert store.read_json(folder.outlook) == whole


def test_a_pilot_says_what_the_run_would_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    rows = [
        {"prompt": f"What is {n} plus {n}?", "chosen": f"It is {2 * n}.", "rejected": "Good day."} for n in range(20)
    ]
    store.write_jsonl(tmp_path / "rows.jsonl", rows)
    data = {"source": str(tmp_path / "rows.jsonl"), "holdout": 0}
    config = make_config(tmp_path / "run", windtunnel.model_folder(), data=data)
    setup = set_up(config)
    plan = plan_command.plan(setup, reporter=SilentReporter())
    piloted = pilot(plan, setup, steps=6, reporter=Recorder())
    assert piloted.outlook is not None
    words = heading(piloted.outlook, setup.objective, learning_rate=setup.peak_learning_rate)
    assert f"outlook    {words}" in plan_command.lines(piloted)
    assert piloted.to_json()["outlook"]["step"] <= 6
    assert not setup.folder.root.exists()
    with pytest.raises(ConfigError, match="too few to say where") as refusal:
        pilot(plan, setup, steps=3, reporter=Recorder())
    assert refusal.value.remedy == f"take {piloted.outlook.step}"


@pytest.mark.parametrize("steps", [2, 20])
def test_a_run_too_short_for_an_outlook_is_said_before_any_step(tmp_path: Path, steps: int) -> None:
    """27 pairs in batches of 16 at most are 13 and 14: two steps visit 14 after an update, and 16 are needed."""
    rows = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "Good day."} for n in range(27)]
    store.write_jsonl(tmp_path / "rows.jsonl", rows)
    data = {"source": str(tmp_path / "rows.jsonl"), "holdout": 0}
    course = {"batch_pairs": 16, "epochs": 1}
    setup = set_up(make_config(tmp_path / "run", windtunnel.model_folder(), data=data, train=course))
    plan, recorder = plan_command.plan(setup, reporter=SilentReporter()), Recorder()
    with pytest.raises(ConfigError) as refusal:
        pilot(plan, setup, steps=steps, reporter=recorder)
    assert "an outlook needs 3 steps of 13 pairs, and the whole run has 2" in refusal.value.message
    assert "more epochs" in refusal.value.remedy
    assert recorder.lines == []
    longer = set_up(make_config(tmp_path / "run", windtunnel.model_folder(), data=data, train=course | {"epochs": 2}))
    plan = plan_command.plan(longer, reporter=SilentReporter())
    with pytest.raises(ConfigError) as refusal:
        pilot(plan, longer, steps=2, reporter=Recorder())
    assert refusal.value.remedy == "take 3"
    assert pilot(plan, longer, steps=3, reporter=Recorder()).outlook is not None
