"""Milestones on small real models: where they fall, which one becomes the model, and that a kill changes none of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stage_runs import Recorder, align, make_config, weights, write_model
from trimtab import config as configuration
from trimtab import disk, store
from trimtab.engine import evaluation, models
from trimtab.engine import reference as cache
from trimtab.engine.order import Order
from trimtab.engine.packing import Group
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError, StopError
from trimtab.runtime import milestones, set_up
from trimtab.runtime.folder import Folder
from trimtab.runtime.run_identity import reference_key

LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.2}
HELD = 60
TAKEN = [1, 2, 4, 8, 12]  # 16 pairs in batches of 4, three epochs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "qwen")


def overfit(out: Path, model: Path, **sections: Any) -> Any:
    """Sixteen random pairs learnt by heart at a high rate: what is held out only suffers."""
    told: dict[str, Any] = {"train": {"epochs": 3, "learning_rate": 2e-2}, "objective": {"beta": 1.0}}
    return make_config(out, model, **configuration.merge(told, sections))


def selected(folder: Folder) -> Any:
    return store.read_json(folder.selection)


# --- where they fall ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "batch", "epochs", "max_steps", "steps"),
    [
        (1024, 32, 3, None, (3, 8, 16, 32, 64, 96)),
        (1024, 32, 1, None, (3, 8, 16, 32)),
        (1024, 32, 2.5, None, (3, 8, 16, 32, 64, 80)),
        (1024, 32, 0.5, None, (2, 4, 8, 16)),  # shares of what there is
        (1024, 32, 3, 40, (3, 8, 16, 32, 40)),
        (16, 4, 2, None, (1, 2, 4, 8)),
        (3, 4, 1, None, (1,)),
        (3, 4, 3, None, (1, 2, 3)),
        (4, 4, 20, None, (1, 4, 7, 10, 13, 16, 19, 20)),  # of eighteen later epochs every third
    ],
)
def test_where_milestones_fall(pairs: int, batch: int, epochs: float, max_steps: int | None, steps: Any) -> None:
    assert milestones.steps(Order(pairs, batch, epochs, 0, max_steps)) == steps


# --- the pick -----------------------------------------------------------------------------------------------------


def test_what_is_picked_is_the_model_and_all_that_is_said_of_it(model: Path, tmp_path: Path) -> None:
    config = overfit(tmp_path / "run", model, select={"keep": True})
    folder, told = align(config, held=HELD)
    found = selected(folder)
    assert [one["step"] for one in found["milestones"]] == TAKEN
    assert found["picked"] < found["last"] == 12
    assert any(f"step {found['picked']} of 12" in line for line in told.lines)
    picked = folder.milestones / f"step-{found['picked']:08d}"
    last = folder.milestones / "step-00000012"
    kept = load_file(picked / "model.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights(folder).items())
    assert any(not torch.equal(tensor, kept[name]) for name, tensor in load_file(last / "model.safetensors").items())
    assert f"after step {found['picked']} of 12" in (folder.model / "README.md").read_text(encoding="utf-8")
    assert store.damage(folder.model) == []

    loaded = models.load(str(folder.model), dtype="float32", device="cpu")
    pairs = folder.heldout_pairs()
    rows = dict(Scorer(loaded.model).by_key([Group.of_pair(p, i) for i, p in enumerate(pairs)], pack_tokens=64))
    policy_R = torch.stack([rows[key].double().sum() for key in range(2 * len(pairs))])
    held = cache.read(reference_key(set_up(config)), pairs).of_pairs(pairs)
    reference_R = torch.stack([row.double().sum() for row in held])
    gaps = (policy_R - reference_R)[0::2] - (policy_R - reference_R)[1::2]  # beta 1
    assert store.read_json(folder.heldout)["after"]["reward_gaps"] == pytest.approx(gaps.tolist(), abs=1e-3)
    one = next(one for one in found["milestones"] if one["picked"])
    assert one["accuracy"]["value"] == pytest.approx(float((gaps > 0).double().mean()))
    squares = torch.cat([0.5 * (rows[key] - held[key]).double() ** 2 for key in range(2 * len(pairs))])
    assert one["drift"]["value"] == pytest.approx(float(squares.mean()), rel=1e-3)


def test_a_run_that_did_harm_says_so(model: Path, tmp_path: Path) -> None:
    """Random pairs learnt by heart to the end: on others the loss ends above 2, its value for the untrained model."""
    folder, reporter = align(overfit(tmp_path / "run", model, select={"by": "last"}), held=HELD)
    before = store.read_json(folder.heldout)["before"]["losses"]
    assert before == pytest.approx([2.0] * HELD)
    warning = selected(folder)["warning"]
    assert f"the loss on the {HELD} held-out pairs is distinguishably higher than before training" in warning
    assert "against 2." in warning
    assert any("worse than before training" in line for line in reporter.lines)


def test_drift_grows_from_the_reference_and_losses_are_paired(model: Path, tmp_path: Path) -> None:
    folder, _ = align(overfit(tmp_path / "run", model), held=HELD)
    found = selected(folder)["milestones"]
    assert 0 < found[0]["drift"]["value"] < found[2]["drift"]["value"]
    chosen = next(one for one in found if one["picked"])
    for one in (one for one in found if not one["picked"]):
        difference = one["against_picked"]["loss"]
        assert difference["value"] == pytest.approx(one["loss"]["value"] - chosen["loss"]["value"])
        assert difference["ci95"][0] <= difference["value"] <= difference["ci95"][1]


def test_last_is_the_last_step_with_the_same_evidence(model: Path, tmp_path: Path) -> None:
    by_pairs, _ = align(overfit(tmp_path / "pairs", model), held=HELD)
    by_step, _ = align(overfit(tmp_path / "step", model, select={"by": "last"}), held=HELD)
    one, other = selected(by_pairs), selected(by_step)
    assert other["picked"] == 12
    figures = ("step", "accuracy", "loss", "drift")
    assert [[m[k] for k in figures] for m in one["milestones"]] == [
        [m[k] for k in figures] for m in other["milestones"]
    ]
    newest = "checkpoints/step-00000012/weights.safetensors"
    ends = [load_file(folder.root / newest) for folder in (by_pairs, by_step)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert not by_step.milestones.exists()
    assert not by_pairs.milestones.exists()


@pytest.mark.parametrize(
    "adapter", [pytest.param({"kind": "none"}, marks=pytest.mark.slow), LORA], ids=["full", "lora-dropout"]
)
def test_looking_does_not_change_what_is_trained(model: Path, tmp_path: Path, adapter: dict[str, Any]) -> None:
    looked, _ = align(overfit(tmp_path / "looked", model, adapter=adapter), held=HELD)
    blind, told = align(overfit(tmp_path / "blind", model, adapter=adapter), held=0)
    newest = "checkpoints/step-00000012/weights.safetensors"
    one, other = (load_file(folder.root / newest) for folder in (looked, blind))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert selected(blind)["milestones"] == []
    assert selected(blind)["picked"] == 12
    assert any("no pairs were held out" in line for line in told.lines)
    assert store.read_json(blind.heldout)["after"] is None


def test_adapters_are_kept_as_adapters(model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, _ = align(overfit(tmp_path / "run", model, adapter=LORA, select={"keep": True}), held=HELD)
    assert sorted(path.name for path in folder.milestones.iterdir()) == [f"step-{step:08d}" for step in TAKEN]
    first = folder.milestones / "step-00000001"
    assert not (first / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), first)
    assert loaded.peft_config["default"].r == 4
    assert "adapter_model.safetensors" in {path.name for path in folder.model.iterdir()}


@pytest.mark.parametrize("name", ["simpo", pytest.param("sft", marks=pytest.mark.slow)])
def test_without_a_reference_there_is_no_drift_and_it_is_said(model: Path, tmp_path: Path, name: str) -> None:
    tree = configuration.to_json(overfit(tmp_path / "run", model)) | {"objective": {"name": name}}
    folder, _ = align(configuration.resolve(tree), held=HELD)
    found = selected(folder)
    assert "no reference" in found["drift_note"]
    assert [one["drift"] for one in found["milestones"]] == [None] * len(TAKEN)


@pytest.mark.slow
def test_space_for_milestones_is_asked_for_beforehand(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def require_space(path: Path, needed: int) -> None:
        if path.name == "checkpoints":
            asked.append(needed)

    monkeypatch.setattr(disk, "require_space", require_space)
    folder, _ = align(overfit(tmp_path / "held", model), held=HELD)
    align(overfit(tmp_path / "last", model, select={"by": "last"}), held=HELD)
    one = sum(tensor.numel() * tensor.element_size() for tensor in weights(folder).values())
    assert asked[0] - asked[1] == pytest.approx(1.2 * 4 * one, abs=2)  # all but the last step's


def test_a_choice_without_pairs_to_choose_by_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"select\.keep has no effect here: data\.holdout is 0"):
        overfit(tmp_path / "run", model, data={"holdout": 0}, select={"keep": True})


# --- killed and resumed -------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Not an error that anything catches, like the end of the process."""


def crash() -> None:
    raise Killed


def same(one: Folder, two: Folder) -> None:
    a, b = weights(one), weights(two)
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    assert selected(one) == selected(two)
    assert store.read_json(one.heldout) == store.read_json(two.heldout)


@pytest.fixture(scope="module", params=[{"kind": "none"}, LORA], ids=["full", "lora-dropout"])
def straight(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, _ = align(overfit(tmp_path_factory.mktemp("straight") / "run", model, adapter=request.param), held=HELD)
    return folder, request.param


@pytest.mark.parametrize("kill", [k if k == 9 else pytest.param(k, marks=pytest.mark.slow) for k in range(1, 13)])
def test_killed_after_any_step_the_pick_is_the_same(straight: Any, model: Path, tmp_path: Path, kill: int) -> None:
    folder, adapter = straight
    if adapter["kind"] == "none":
        assert selected(folder)["picked"] < 12
    config = overfit(tmp_path / "killed", model, adapter=adapter)
    with pytest.raises(Killed):
        align(config, held=HELD, reporter=Recorder(at=kill, act=crash))
    resumed, _ = align(config, held=HELD)
    same(folder, resumed)


@pytest.mark.parametrize("at", [3, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 2, 4, 5))])
def test_killed_between_a_milestone_and_its_checkpoint(
    model: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = align(overfit(tmp_path / "straight", model, train={"save_every": 1}), held=HELD)
    config = overfit(tmp_path / "killed", model, train={"save_every": 1})
    real, taken = milestones.Milestones.take, []

    def take(self: Any, step: int, **told: Any) -> None:
        real(self, step, **told)
        taken.append(step)
        if len(taken) == at:
            raise Killed

    with monkeypatch.context() as during:
        during.setattr(milestones.Milestones, "take", take)
        with pytest.raises(Killed):
            align(config, held=HELD)
    resumed, _ = align(config, held=HELD)
    same(whole, resumed)


@pytest.mark.parametrize("at", [2, pytest.param(len(TAKEN), marks=pytest.mark.slow)])
def test_a_signal_while_it_looks_leaves_the_look_to_the_next_life(
    model: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = align(overfit(tmp_path / "straight", model), held=HELD)
    config = overfit(tmp_path / "stopped", model)
    real, looks = evaluation.evidence, []

    def evidence(*args: Any, **told: Any) -> Any:
        looks.append(1)
        if len(looks) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **told)

    with monkeypatch.context() as during:
        during.setattr(evaluation, "evidence", evidence)
        with pytest.raises(StopError, match=f"stopped after step {TAKEN[at - 1]} of 12"):
            align(config, held=HELD)
    assert not set_up(config).folder.model.exists()
    resumed, _ = align(config, held=HELD)
    same(whole, resumed)


def test_a_damaged_milestone_is_passed_over_and_named(model: Path, tmp_path: Path) -> None:
    config = overfit(tmp_path / "run", model)
    with pytest.raises(Killed):
        align(config, held=HELD, reporter=Recorder(at=12, act=crash))
    broken = set_up(config).folder.milestones / "step-00000001" / "model.safetensors"
    content = broken.read_bytes()
    broken.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    folder, told = align(config, held=HELD)
    assert selected(folder)["lost"] == [1]
    assert [one["step"] for one in selected(folder)["milestones"]] == TAKEN[1:]
    assert any("damaged, so they could not be picked: 1" in line for line in told.lines)


def test_a_milestone_whose_weights_were_not_kept_cannot_be_picked(model: Path, tmp_path: Path) -> None:
    """Those of a life that chose the last step are evidence without weights."""
    with pytest.raises(Killed):
        align(
            overfit(tmp_path / "run", model, select={"by": "last"}),
            held=HELD,
            reporter=Recorder(at=8, act=crash),
        )
    folder, _ = align(overfit(tmp_path / "run", model), held=HELD)
    assert selected(folder)["lost"] == [1, 2, 4]
    assert selected(folder)["picked"] in (8, 12)
    assert (folder.model / "model.safetensors").is_file()
