"""Names, parameters and what is said when they are wrong."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab import objectives
from trimtab.errors import ConfigError
from trimtab.objectives import ApoHingeZero, ApoZero, Dpo, MarginSigmoid, Mixture, Modified, Sft, make

DESIGNED = [
    *("dpo", "dpo_hinge", "apo_zero", "apo_down", "apo_hinge_zero", "apo_hinge_softplus", "margin_sigmoid", "exo_pair"),
    *("aot", "aot_unpaired", "ipo", "robust", "nca_pair", "bco_pair", "sppo_hard", "discopop", "sft", "sigmoid_norm"),
    *("simpo", "repo", "dpop", "orpo", "odpo", "wpo", "kto", "apo_zero_unpaired", "apo_hinge_zero_unpaired"),
]


def test_the_whole_table_is_there() -> None:
    assert list(objectives.NAMES) == DESIGNED
    rows = objectives.table()
    assert [row.name for row in rows] == DESIGNED
    for row in rows:
        assert row.formula
        assert row.source
        assert row.dead_zone.startswith("none") != make(row.name).has_dead_zone
    apo = next(row for row in rows if row.name == "apo_hinge_zero")
    assert apo.parameters == (("beta", 0.1), ("margin", 1.0))
    assert "r_w ≥ m/β = 10 nats; r_l ≤ −m/β = −10 nats" in apo.dead_zone


def test_documented_row_by_row() -> None:
    """docs/objectives.md has a row for each objective, with each parameter and its default."""
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}
    for name in (*objectives.NAMES, *objectives.MODIFIERS):
        assert name in rows, f"{name} has no row"
    for row in objectives.table():
        for key, default in row.parameters:
            said = f"{key} off" if default is None else f"{key} {default:g}"
            assert said in rows[row.name], f"{row.name}: {said}"


def test_python_and_names_build_the_same_value() -> None:
    assert make("apo_hinge_zero", beta=0.3, margin=2) == ApoHingeZero(beta=0.3, margin=2.0)
    assert make("dpo", sft_weight=0.1) == Modified(Dpo(), sft_weight=0.1)
    assert make("dpo", sft_weight=0.0, length_normalize=False, ld_alpha=None) == Dpo()
    assert isinstance(make("dpo", beta=1).beta, float)


@pytest.mark.parametrize("name", DESIGNED)
def test_parameters_rebuild_the_value(name: str) -> None:
    plain = make(name)
    assert make(name, **plain.parameters()) == plain
    modified = make(name, ld_alpha=0.5) if plain.needs_reference and not plain.is_unpaired else plain
    assert make(name, **modified.parameters()) == modified
    assert modified.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.name = "other"


def test_a_mixture_is_the_sum_that_its_name_says() -> None:
    mixture = make("apo_hinge_zero:1,dpo_hinge:0.5", beta=0.2, margin=3)
    assert mixture == Mixture(((ApoHingeZero(beta=0.2, margin=3), 1.0), (objectives.DpoHinge(beta=0.2, margin=3), 0.5)))
    assert make(mixture.name, **mixture.parameters()) == mixture
    assert objectives.is_registered(mixture)
    assert (mixture.beta, mixture.reach(), mixture.has_dead_zone) == (0.2, pytest.approx(15.0), True)
    assert mixture.dead_zone.startswith("where all let go: apo_hinge_zero: each side alone")
    smooth = make("apo_hinge_zero:1,apo_zero:1")
    assert (smooth.reach(), smooth.has_dead_zone, smooth.step_zero()) == (None, False, 3.0)
    assert smooth.dead_zone == "none: a gradient is left everywhere by apo_zero"
    coupled = Mixture(((Sft(), 0.2), (ApoZero(), 1.0)))
    assert (coupled.batch_coupled, coupled.needs_reference, coupled.per_token) == (True, True, False)
    with pytest.raises(ConfigError, match="modifiers of its own"):
        Mixture(((Modified(Dpo(), sft_weight=1.0), 1.0), (ApoZero(), 1.0)))
    warming = make("margin_sigmoid:1,dpo:1", delta_warmup=2.0)
    assert warming.at(1.0) == make("margin_sigmoid:1,dpo:1", delta=0.1)
    assert make("dpo:1,apo_zero:1", ld_alpha=0.5).token_weights(1, 2) == ((1.0,), (1.0, 0.5))


def test_modified_answers_for_the_objective_inside() -> None:
    objective = make("apo_hinge_zero", beta=2.0, length_normalize=True, sft_weight=0.1)
    assert (objective.name, objective.beta, objective.per_token, objective.needs_reference) == (
        "apo_hinge_zero",
        2.0,
        True,
        True,
    )
    assert objective.has_dead_zone
    assert "sft_weight" in objective.dead_zone
    assert make("aot", sft_weight=0.1).batch_coupled
    assert not make("simpo", sft_weight=0.1).needs_reference


@pytest.mark.parametrize(
    ("name", "parameters", "message", "remedy"),
    [
        ("dpo_hing", {}, "no objective 'dpo_hing'", "did you mean 'dpo_hinge'?"),
        ("apo-zero", {}, "no objective 'apo-zero'", "did you mean 'apo_zero'?"),
        (
            "dpo",
            {"margin": 1.0},
            "margin does not apply to dpo; it belongs to dpo_hinge",
            "takes beta, label_smoothing",
        ),
        ("sft", {"beta": 0.1}, "beta does not apply to sft", "sft takes no parameters"),
        ("dpo_hinge", {"margn": 1.0}, "no objective has a parameter 'margn'", "did you mean 'margin'?"),
        ("dpo", {"beta": 0.0}, "dpo: beta = 0 is not above 0", "above 0; the default is 0.1"),
        ("dpo", {"beta": -1}, "beta = -1 is not above 0", "default is 0.1"),
        ("dpo", {"beta": math.nan}, "beta = nan is not a finite number", "above 0"),
        ("dpo", {"beta": math.inf}, "beta = inf is not a finite number", "above 0"),
        ("dpo", {"beta": "0.1"}, "beta = '0.1' is not a number", "above 0"),
        ("dpo", {"beta": True}, "beta = True is not a number", "above 0"),
        ("dpo", {"beta": None}, "beta = None is not a number", "above 0"),
        ("dpo", {"label_smoothing": 0.5}, "label_smoothing = 0.5 is not in [0, 0.5)", "default is 0"),
        ("robust", {"label_smoothing": -0.1}, "label_smoothing = -0.1 is not in [0, 0.5)", "default is 0.1"),
        ("exo_pair", {"label_smoothing": 0.0}, "label_smoothing = 0 is not in (0, 0.5)", "default is 0.001"),
        ("apo_hinge_zero", {"margin": 0.0}, "margin = 0 is not above 0", "default is 1"),
        ("apo_hinge_softplus", {"temperature": 0.0}, "temperature = 0 is not above 0", "default is 1"),
        ("discopop", {"temperature": 1.5}, "temperature = 1.5 is not in (0, 1]", "default is 0.05"),
        ("margin_sigmoid", {"delta": -0.1}, "delta = -0.1 is not at least 0", "default is 0.2"),
        ("margin_sigmoid", {"temperature": 0.0}, "temperature = 0 is not above 0", "leave it out to turn it off"),
        ("margin_sigmoid", {"delta_warmup": 0}, "delta_warmup = 0 is not above 0", "leave it out to turn it off"),
        (
            "margin_sigmoid",
            {"delta": 0.7},
            "every pair is dead at initialisation and training never starts",
            "below 0.693",
        ),
        ("margin_sigmoid", {"delta": math.log(2)}, "training never starts", "below 0.693"),
        ("margin_sigmoid", {"delta": 0.7, "delta_warmup": 1.0}, "once the warm-up is over no pair", "below 0.693"),
        (
            "margin_sigmoid",
            {"delta": 0.7, "label_smoothing": 0.1},
            "every pair is dead at initialisation",
            "below 0.693",
        ),
        ("dpo", {"ld_alpha": 1.5}, "ld_alpha = 1.5 is not in [0, 1]", "leave it out to turn it off"),
        ("simpo", {"ld_alpha": 0.5}, "ld_alpha does not apply to simpo", "leave ld_alpha out"),
        ("dpo", {"ld_alpha": 0.5, "sft_weight": 0.1}, "ld_alpha and sft_weight do not go together", "leave one"),
        ("dpo", {"sft_weight": -1}, "sft_weight = -1 is not at least 0", "default is 0"),
        ("sft", {"sft_weight": 0.1}, "sft_weight does not apply to sft", "leave sft_weight out"),
        ("ipo", {"length_normalize": True}, "length_normalize does not apply to ipo", "leave length_normalize out"),
        ("sft", {"length_normalize": True}, "length_normalize does not apply to sft", "leave length_normalize out"),
        ("dpo", {"length_normalize": "yes"}, "length_normalize = 'yes' is neither true nor false", "true or false"),
        ("apo_zero:1,sft", {}, "'sft' is not the name of an objective and its weight", 'written "apo_zero:1,sft:0.2"'),
        ("apo_zero:1,apo_zero:2", {}, "'apo_zero:2' is not the name of an objective and its weight, each", "written"),
        ("apo_zero:1", {}, "a mixture of apo_zero", "two objectives or more"),
        ("apo_zero:1,sft:0", {}, "sft: weight 0.0", "a number above 0"),
        ("apo_zero:1,sft:nan", {}, "'sft:nan' is not the name of an objective", "written"),
        ("apo_zero:1,sfd:1", {}, "no objective 'sfd'", "did you mean"),
        ("dpo:1,simpo:1", {}, "dpo with beta = 0.1 and simpo with beta = 2.0", "a mixture has one beta: set it"),
        ("dpo:1,sft:1", {"sft_weight": 0.1}, "sft_weight does not apply to sft", "leave sft_weight out"),
        ("dpo:1,sft:1", {"ld_alpha": 0.1}, "ld_alpha does not apply to sft", "leave ld_alpha out"),
        ("dpo:1,ipo:1", {"length_normalize": True}, "length_normalize does not apply to ipo", "leave length_nor"),
        ("dpo:1,bradley_terry:1", {}, "a mixture of dpo and bradley_terry", "bradley_terry reads scores"),
        ("dpo:1,sft:1", {"margin": 1.0}, "margin does not apply to dpo:1,sft:1", "takes beta, label_smoothing"),
        ("repo", {"gamma": 0.0}, "gamma = 0 is not above 0", "default is 0.6"),
    ],
)
def test_wrong_words_get_one_message_with_the_remedy(
    name: str, parameters: dict[str, object], message: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name, **parameters)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="beta"):
        ApoHingeZero(beta=-0.1)
    with pytest.raises(ConfigError, match="training never starts"):
        MarginSigmoid(delta=0.7)
    with pytest.raises(ConfigError, match="given twice"):
        Modified(Modified(Dpo(), sft_weight=0.1), ld_alpha=0.5)
    assert MarginSigmoid(delta=0.7, temperature=0.5).step_zero() is not None


def test_delta_of_ln_2_is_dead_for_any_label_smoothing() -> None:
    """Why ε > 0 does not help: at z = 0 both ℓ+ and ℓ− are ln 2, so both [ln 2 − δ]+ are 0 for δ ≥ ln 2."""
    almost = [MarginSigmoid(delta=0.6931, label_smoothing=e).step_zero() for e in (0.0, 0.1, 0.4)]
    assert almost == pytest.approx([math.log(2) - 0.6931] * 3)
    with pytest.raises(ConfigError):
        MarginSigmoid(delta=0.6932, label_smoothing=0.4)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("apo_hinge_zero", {}, []),
        ("dpo", {"label_smoothing": 0.1}, []),
        ("apo_hinge_zero", {"beta": 0.01}, ["margin / beta = 100 nats", "linear regime"]),
        ("apo_hinge_zero", {"beta": 1.0}, ["margin / beta = 1 nats", "starved"]),
        ("dpo_hinge", {"margin": 0.05}, ["margin / beta = 0.5 nats", "starved"]),
        ("apo_hinge_zero", {"length_normalize": True}, ["10 nats a token", "linear regime", "beta of 2 to 10"]),
        ("apo_hinge_zero", {"length_normalize": True, "beta": 5.0}, []),
        ("apo_hinge_zero", {"sft_weight": 0.1}, ["sft_weight = 0.1 gives every chosen response a gradient"]),
        ("apo_zero", {"sft_weight": 0.1}, []),
        ("margin_sigmoid", {"label_smoothing": 0.1}, ["no dead zone in this run", "label_smoothing = 0.1 pulls"]),
        ("margin_sigmoid", {"temperature": 0.1}, ["no dead zone in this run", "temperature = 0.1 leaves"]),
        ("margin_sigmoid", {"delta": 0.0}, ["DPO without a dead zone"]),
        ("robust", {"label_smoothing": 0}, ["plain dpo"]),
    ],
)
def test_notices_when_a_run_starts(name: str, parameters: dict[str, object], expected: list[str]) -> None:
    said = " ".join(make(name, **parameters).notices())
    assert all(words in said for words in expected)
    assert bool(said) == bool(expected)


def test_names_and_checks_cost_no_torch() -> None:
    """With torch made unimportable the table prints, values build and wrong ones are refused."""
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['numpy'] = None\n"
        "from trimtab import errors, objectives\n"
        "assert len(objectives.table()) == 27\n"
        "assert objectives.make('margin_sigmoid', delta=.1, sft_weight=.1).notices()\n"
        "try: objectives.make('margin_sigmoid', delta=.7)\n"
        "except errors.ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "training never starts" in done.stdout


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        (
            "margin_sigmoid",
            {"delta": 0.5},
            "both sides together: z ≥ −ln(e^δ − 1) = 0.4328, that is r_w − r_l ≥ 4.328 nats",
        ),
        ("margin_sigmoid", {"temperature": 0.1}, "none: the temperature keeps a gradient everywhere"),
        ("margin_sigmoid", {"label_smoothing": 0.1}, "none: the reverse term keeps a gradient"),
        ("margin_sigmoid", {"delta": 0.0}, "none: δ = 0 is DPO"),
        ("dpo_hinge", {"beta": 0.2}, "both sides together: z ≥ m = 1, that is r_w − r_l ≥ m/β = 5 nats"),
        ("apo_hinge_zero", {"beta": 2.0, "length_normalize": True}, "r_l ≤ −m/β = −0.5 nats, a token"),
        ("apo_hinge_zero", {"sft_weight": 0.1}, "closed for the chosen response by sft_weight"),
        ("dpo", {"sft_weight": 0.1}, "none"),
    ],
)
def test_dead_zones_in_words(name: str, parameters: dict[str, object], sentence: str) -> None:
    objective = make(name, **parameters)
    assert objective.dead_zone.endswith(sentence)
    assert objective.has_dead_zone != objective.dead_zone.startswith("none")
