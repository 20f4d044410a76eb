"""Configuration: strict, frozen, and every mistake answered with the nearest right word."""

from __future__ import annotations

import pytest

from trimtab import config, objectives
from trimtab.errors import ConfigError

MINIMAL = {"model": "m", "data": "d.jsonl"}


def resolve(**over: object) -> config.Config:
    return config.resolve(config.merge(MINIMAL, over))


def test_bare_words_set_the_main_field_of_a_section() -> None:
    resolved = resolve(objective="dpo", adapter="lora", benchmark="windtunnel", judge="oracle")
    assert resolved.model.name == "m"
    assert resolved.data.source == "d.jsonl"
    assert (resolved.objective.name, resolved.adapter.kind) == ("dpo", "lora")


@pytest.mark.parametrize(
    ("tree", "near"),
    [({"trian": {"epochs": 1}}, "train"), ({"train": {"epoch": 1}}, "train.epochs"), ({"sed": 1}, "seed")],
)
def test_an_unknown_key_in_a_file_names_the_nearest_known_key(tree: dict[str, object], near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.resolve(config.merge(MINIMAL, tree))
    assert repr(near) in caught.value.remedy


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate"),
        ({"data": {"holdout": 1.0}}, "data.holdout"),
        ({"engine": {"dtype": "float8"}}, "engine.dtype"),
        ({"engine": {"shrinking": "on", "screening": "off"}}, "screening is off"),
        ({"engine": {"shrinking": "on"}, "objective": {"name": "dpo"}}, "no dead zone"),
        ({"engine": {"shrinking": "on"}, "adapter": {"kind": "lora", "dropout": 0.1}}, "dropout"),
        ({"objective": {"name": "dpo", "margin": 1.0}}, "margin"),
        ({"objective": {"name": "dpoo"}}, "dpo"),
        ({"objective": {"name": "DPO"}}, "did you mean 'dpo'?"),
        ({"objective": {"name": "APO-hinge-zero"}}, "did you mean 'apo_hinge_zero'?"),
        ({"objective": {"name": "grpo"}}, "learns from answers that are there"),
        ({"objective": {"name": "margin_sigmoid", "delta": 0.7}}, "delta"),
        ({"judge": "oracle"}, "windtunnel"),
        ({"judge": "gpt-4"}, "judge.name"),
        ({"adapter": {"rank": 8}}, "adapter.rank"),
        ({"windtunnel": {"length_bias": 0.3}}, "windtunnel.length_bias"),
        ({"data": {"source": "windtunnel", "columns": {"prompt": "p"}}}, "data.columns"),
        ({"train": 3}, "section"),
    ],
)
def test_a_value_that_cannot_be_run_is_refused_by_name(over: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(**over)
    assert said in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["windtunnel", ".", "model.gguf"])
def test_a_revision_is_of_the_hub(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.revision has no effect here") as caught:
        resolve(model={"name": name, "revision": "v1"})
    assert f"{name} is not from the Hub" in caught.value.message
    assert resolve(model={"name": "owner/model", "revision": "v1"}).model.revision == "v1"


def test_missing_required_keys_are_asked_for_by_their_flag() -> None:
    with pytest.raises(ConfigError, match="data") as caught:
        config.resolve({"model": "m"})
    assert "--data" in caught.value.remedy


def test_the_default_folder_is_named_by_the_configuration() -> None:
    one, same, other = resolve(), resolve(), resolve(seed=1)
    assert one.out == same.out != other.out
    assert one.out.startswith("runs/m-apo_hinge_zero-")
    assert resolve(out="here").out == "here"


def test_the_objective_section_has_a_key_for_every_parameter_and_no_other() -> None:
    fields = set(config.ObjectiveSection.model_fields) - {"name"}
    assert fields == {*objectives.PARAMETERS, *objectives.MODIFIERS}


def test_a_configuration_survives_its_json() -> None:
    resolved = resolve(objective={"name": "dpo", "beta": 0.3}, adapter={"kind": "lora", "targets": ["q_proj"]})
    assert config.resolve(config.to_json(resolved)) == resolved
