"""What noise means for an objective, and the choice that `engine.dtype auto` makes by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stage_runs import Recorder, align, make_config, make_pairs, prepare, write_model
from trimtab import objectives, store
from trimtab.engine import models
from trimtab.engine.noise import Noise
from trimtab.errors import ConfigError
from trimtab.records import TokenPair
from trimtab.runtime import precision, set_up
from trimtab.runtime.precision import NoiseMeaning
from trimtab.runtime.run_identity import reference_key, run_identity

HINGE = objectives.make("apo_hinge_zero", beta=0.1, margin=1.0)


def pairs_of(tokens: int) -> list[TokenPair]:
    return [TokenPair("p", (1,), (2,) * tokens, (3,) * tokens)]


def test_noise_is_held_against_the_reach_of_the_hinge() -> None:
    """.02 · √(2 · 200) = .4 nats; m/β = 10 nats, so 4 %; β · .4 = .04 of reward."""
    meaning = NoiseMeaning.of("mixed", Noise(0.02), HINGE, pairs_of(200))
    assert (meaning.nats, meaning.reach, meaning.share) == pytest.approx((0.4, 10.0, 0.04))
    meaning.require_harmless()
    assert "±0.4 nats" in meaning.sentence
    assert "±0.04 at β = 0.1" in meaning.sentence
    assert "4.00% of the margin of 10 nats" in meaning.sentence


def test_an_objective_without_a_margin_has_the_scale_of_its_beta() -> None:
    meaning = NoiseMeaning.of("mixed", Noise(0.02), objectives.make("dpo", beta=0.5), pairs_of(200))
    assert (meaning.reach, meaning.share) == pytest.approx((2.0, 0.2))
    assert "the scale 1/β of 2 nats" in meaning.sentence


def test_an_objective_by_the_token_has_noise_by_the_token() -> None:
    """.4 nats over 200 tokens are .002 a token; 1/β = .5 nats a token."""
    meaning = NoiseMeaning.of("mixed", Noise(0.02), objectives.make("simpo", beta=2.0), pairs_of(200))
    assert meaning.nats == pytest.approx(0.002)
    assert "nats a token" in meaning.sentence


@pytest.mark.parametrize(("name", "remedy"), [("mixed", "float32"), ("bfloat16", "mixed")])
def test_noise_that_could_decide_is_refused_with_its_numbers(name: models.Precision, remedy: str) -> None:
    """.06 · √(2 · 200) = 1.2 nats of 10: 12 %."""
    with pytest.raises(ConfigError) as caught:
        NoiseMeaning.of(name, Noise(0.06), HINGE, pairs_of(200)).require_harmless()
    for part in (name, "±1.2 nats", "β = 0.1", "12.00%", "which responses learn"):
        assert part in caught.value.message
    assert remedy in caught.value.remedy


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def make_candidates(monkeypatch: pytest.MonkeyPatch, *names: models.Precision) -> None:
    monkeypatch.setattr(models, "candidates", lambda *_, **__: names)
    monkeypatch.setattr("trimtab.engine.mixed.has_units", lambda _: True)


@pytest.mark.parametrize(
    ("noises", "chosen"),
    [
        ({"bfloat16": 0.5, "mixed": 0.001}, "mixed"),
        ({"bfloat16": 0.001, "mixed": 0.001}, "bfloat16"),
        ({"bfloat16": 0.5, "mixed": 0.5}, "float32"),
    ],
)
def test_auto_takes_the_first_whose_noise_is_harmless(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noises: dict[str, float], chosen: str
) -> None:
    make_candidates(monkeypatch, "bfloat16", "mixed")
    real = NoiseMeaning.of
    monkeypatch.setattr(
        NoiseMeaning, "of", lambda name, _noise, objective, pairs: real(name, Noise(noises[name]), objective, pairs)
    )
    config = make_config(tmp_path / "run", model, engine={"dtype": "auto"})
    prepare(config, make_pairs(4))
    assert set_up(config).precision == "bfloat16"  # the likeliest, as long as nothing is measured
    precision.settle(set_up(config), reporter=(reporter := Recorder()))
    assert set_up(config).precision == chosen
    assert any(f"engine.dtype is {chosen}" in line for line in reporter.lines)
    noises.update(bfloat16=0.001)
    precision.settle(set_up(config), reporter=reporter)
    assert set_up(config).precision == chosen, "settled once and for all"
    if chosen == "mixed":  # but for another objective, as long as nothing was trained
        other = make_config(tmp_path / "run", model, engine={"dtype": "auto"}, objective={"beta": 0.4})
        precision.settle(set_up(other), reporter=reporter)
        assert set_up(other).precision == "bfloat16"
        noises.update(bfloat16=0.5)
        precision.settle(set_up(config), reporter=reporter)
    assert run_identity(set_up(config))["engine.dtype"] == reference_key(set_up(config)).dtype == chosen


def test_a_small_model_stays_in_float32(model: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", model, engine={"dtype": "auto"})
    folder, _ = align(config)
    choice = store.read_json(folder.precision)
    assert (choice["precision"], choice["measured"]) == ("float32", [])


def test_mixed_is_refused_where_the_processor_has_no_units(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.engine.mixed.has_units", lambda _: False)
    config = make_config(tmp_path / "run", model, engine={"dtype": "mixed"})
    prepare(config, make_pairs(4))
    with pytest.raises(ConfigError, match="no bfloat16 units"):
        align(config)


def test_bfloat16_trains_where_its_noise_is_harmless_and_says_so(model: Path, tmp_path: Path) -> None:
    config = make_config(
        tmp_path / "run", model, engine={"dtype": "bfloat16"}, objective={"name": "apo_hinge_zero", "beta": 0.02}
    )
    folder, reporter = align(config)
    assert len(store.read_jsonl(folder.metrics)) == 8
    assert any("noise of bfloat16" in line for line in reporter.lines)


def test_bfloat16_is_refused_where_the_hinge_is_within_its_noise(model: Path, tmp_path: Path) -> None:
    config = make_config(
        tmp_path / "run", model, engine={"dtype": "bfloat16"},
        objective={"name": "apo_hinge_zero", "beta": 50.0, "margin": 0.5},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="too coarse"):
        align(config)
