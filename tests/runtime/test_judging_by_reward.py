"""A local reward model as the judge: preferences by Bradley and Terry, scored once, resumed after a signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from judged_runs import Lines, compared, rows
from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config
from trimtab.engine.reward import RewardModel
from trimtab.errors import StopError
from trimtab.judging.verdict_cache import VerdictCache, verdict_cache_path
from trimtab.records import Message
from trimtab.runtime import set_up
from trimtab.runtime.judges import reward_model
from trimtab.runtime.judges.reward_model import RewardJudge
from trimtab.runtime.signals import Stop
from trimtab.stages import judge


class Lengths:
    """A reward model that counts characters, a tenth each, and remembers what it was asked."""

    def __init__(self, *, at_most: int = 10**9) -> None:
        self.asked: list[str] = []
        self.at_most = at_most

    def scores(self, conversations: Sequence[Sequence[Message]]) -> list[float | None]:
        self.asked += [conversation[-1].content for conversation in conversations]
        if len(self.asked) >= self.at_most:
            os.kill(os.getpid(), signal.SIGTERM)
        lengths = [len(conversation[-1].content) for conversation in conversations]
        return [length / 10 if length < 30 else None for length in lengths]


def config_of(tmp_path: Path, *, n: int = 12) -> Config:
    (tmp_path / "reward").mkdir(exist_ok=True)
    (tmp_path / "reward" / "config.json").write_text("{}")
    told = compared(tmp_path, "http://127.0.0.1:9/v1", n=n)
    tree = configuration.to_json(told)
    judge_section = {"name": f"reward:{tmp_path / 'reward'}", "canaries": 0}
    return configuration.resolve({**tree, "judge": judge_section, "base_url": None})


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lengths:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    made = Lengths()
    monkeypatch.setattr(RewardModel, "load", lambda *_, **__: made)
    return made


def test_the_preference_is_the_logistic_of_the_difference(tmp_path: Path, model: Lengths) -> None:
    config = config_of(tmp_path)
    judge.main(set_up(config), reporter=Lines())
    told = [row["preference"] for row in rows(config, set_up(config).folder.verdicts("prompts"))]
    # one character longer or shorter: σ(±.1) = .52498 and .47502
    assert told == pytest.approx([1.524979 if i % 2 == 0 else 1.475021 for i in range(12)], abs=1e-6)
    about = store.read_json(set_up(config).folder.judge("prompts"))
    assert about["order"] == "none"
    assert about["judge"].startswith("reward:")
    assert about["n_asked"] == len(model.asked) == len(set(model.asked)) == 36


def test_nothing_is_scored_twice_and_what_is_too_long_is_missing(tmp_path: Path, model: Lengths) -> None:
    config = config_of(tmp_path, n=24)
    judge.main(set_up(config), reporter=Lines())
    told = [row["preference"] for row in rows(config, set_up(config).folder.verdicts("prompts"))]
    assert sum(preference is None for preference in told) == sum(
        max(10 + i, 11 + i - 2 * (i % 2)) >= 30 for i in range(24)
    )
    before = [text for text in model.asked if len(text) < 30]
    model.asked.clear()
    judge.main(set_up(config), reporter=Lines())
    assert not set(before) & set(model.asked)


def test_a_signal_keeps_what_was_scored(tmp_path: Path, model: Lengths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_model, "BATCH", 4)
    config = config_of(tmp_path)
    model.at_most = 8
    with pytest.raises(StopError, match="SIGTERM"):
        judge.main(set_up(config), reporter=Lines())
    first = list(model.asked)
    assert 8 <= len(first) < 36
    model.at_most = 10**9
    judge.main(set_up(config), reporter=Lines())
    assert len(model.asked) == 36


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "chat_template.jinja"])
def test_another_model_in_the_same_folder_is_asked_again(tmp_path: Path, model: Lengths, file: str) -> None:
    """It was judged already; and where it was not, another template got the scores of the former."""
    config, reporter = config_of(tmp_path), Lines()
    judge.main(set_up(config), reporter=reporter)
    n = len(model.asked)
    judge.main(set_up(config), reporter=reporter)
    assert reporter.said[-1] == "judge: prompts is judged already"
    assert len(model.asked) == n
    (tmp_path / "reward" / file).write_text('{"a": 1}')
    judge.main(set_up(config), reporter=reporter)
    assert len(model.asked) == 2 * n


def test_scores_of_one_precision_are_not_those_of_another(tmp_path: Path) -> None:
    def digest_in(dtype: str) -> str:
        tree = configuration.to_json(config_of(tmp_path))
        setup = set_up(configuration.resolve(tree | {"engine": {"dtype": dtype, "device": "cpu"}}))
        with store.database(verdict_cache_path()) as connection:
            return RewardJudge(setup, VerdictCache(connection), reporter=Lines(), stop=Stop()).digest

    assert digest_in("bfloat16") != digest_in("float32")
    assert digest_in("mixed") == digest_in("float32")  # fp32 weights, which score
