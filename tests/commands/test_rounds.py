"""Rounds in the wind tunnel: each trains on the newest model's own pairs, a stopped one goes on, progress is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder
from trimtab import store, windtunnel
from trimtab.commands import pairs, rounds
from trimtab.commands.rounds import RoundOptions, RoundsResult
from trimtab.errors import ConfigError, UserError
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.runtime.sampled_pairs import PairingOptions
from trimtab.stages import train

KEYS: dict[str, Any] = {
    "model": "windtunnel",
    "judge": "oracle",
    "out": "rounds",
    "objective": {"name": "apo_hinge_zero", "beta": 0.3},
    "windtunnel": {"pairs": 24, "prompts": 12},
    "data": {"max_prompt_tokens": 96, "max_response_tokens": 64, "max_rejected": 1.0, "holdout": 0.2},
    "train": {"epochs": 1, "batch_pairs": 4, "learning_rate": 5e-4},
    "generate": {"max_new_tokens": 64},
    "engine": {"threads": 1, "device": "cpu", "dtype": "float32"},
}


def go(options: RoundOptions, *, prompts: str = "windtunnel", samples: int = 3, **keys: Any) -> RoundsResult:
    config = pairs.resolve_config(prompts, {**KEYS, **keys}, trains=True)
    return rounds.main(config, PairingOptions(samples), options, reporter=Recorder())


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config_of(number: int) -> dict[str, Any]:
    tree: dict[str, Any] = store.read_json(Path(f"rounds/round-{number}/run/config.json"))
    return tree


def test_each_round_asks_its_own_part_and_trains_the_newest_model(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = train.main, list[str]()

    def stopping(setup: Any, **options: Any) -> None:
        calls.append(setup.config.out)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(setup, **options)

    monkeypatch.setattr(train, "main", stopping)
    with pytest.raises(KeyboardInterrupt):
        go(RoundOptions(2, "first"))
    result = go(RoundOptions(2, "first"))
    told = result.to_json()
    assert store.read_json(Path("rounds/rounds.json")) == told
    ids = [
        {row["prompt_id"] for row in store.read_jsonl(Path(f"rounds/round-{number}/pairs.jsonl"))} for number in (1, 2)
    ]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1], "no prompt is asked in two rounds"
    assert config_of(1)["model"]["reference"] is None
    assert config_of(2)["model"]["name"] == str(Path("rounds/round-1/run/model"))
    assert config_of(2)["model"]["reference"] == str(windtunnel.model_folder())
    # the reference of round 2 is the first model's log-probs: the policy does not begin at them
    metrics = [store.read_jsonl(Folder(Path(f"rounds/round-{n}/run")).metrics)[0] for n in (1, 2)]
    assert abs(metrics[0]["rewards/chosen"]) < 1e-6
    assert abs(metrics[1]["rewards/chosen"]) > 1e-3
    for number in (1, 2):
        rate = told["rounds"][number - 1]["against_first"]
        assert rate["n_total"] == 12
        assert rate["ci95"][0] <= rate["win_rate"] <= rate["ci95"][1]
    assert told["rounds"][0]["against_first"] == told["rounds"][0]["against_previous"], "which are the same model"
    assert "round 2" in Path("rounds/rounds.md").read_text()
    n_calls = len(calls)
    assert go(RoundOptions(2, "first")).to_json() == told
    assert len(calls) == n_calls + 2, "each run is looked at once more"
    with pytest.raises(ConfigError, match="rounds of another command"):
        go(RoundOptions(2, "newest"))


def test_the_win_rate_is_that_of_the_oracle_by_hand() -> None:
    result = go(RoundOptions(1), windtunnel={"pairs": 12, "prompts": 16})
    config = pairs.resolve_config("windtunnel", {**KEYS, "windtunnel": {"pairs": 12, "prompts": 16}}, trains=True)
    setup = set_up(config)
    _, held_back = rounds._split(config, RoundOptions(1))
    first, newest = (
        rounds._held_back_answers(setup, folder, held_back, reporter=Recorder())
        for folder in (windtunnel.model_folder(), Path(result.rounds[0].model))
    )
    points = []
    for prompt, old, new in zip(held_back, first, newest, strict=True):
        assert prompt.task is not None
        assert old is not None
        assert new is not None
        scores = [windtunnel.score(prompt.task, text).total for text in (old, new)]
        points.append(0.5 if scores[0] == scores[1] else float(scores[1] > scores[0]))
    assert result.rounds[0].against_first.win_rate == pytest.approx(100 * sum(points) / 16)


def test_prompts_of_a_file_are_held_back_by_their_text_and_runs_hold_out_others() -> None:
    tasks = windtunnel.tasks(60, seed=0, split="pairs")
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": task.prompt}) + "\n" for task in tasks))
    Path("check.py").write_text("def score(prompt, answer):\n    return -len(answer)\n")
    result = go(RoundOptions(1, held_back=0.3), prompts="prompts.jsonl", judge="check.py", windtunnel={}, samples=2)
    rows = store.read_jsonl(Path("rounds/round-1/pairs.jsonl"))
    config = pairs.resolve_config("prompts.jsonl", {**KEYS, "judge": "check.py", "windtunnel": {}}, trains=True)
    prompts, held_back = rounds._split(config, RoundOptions(1, held_back=0.3))
    n_prompts = len({task.prompt for task in tasks})
    assert len(prompts.sound) + len(held_back) == n_prompts
    assert result.n_held_back == len(held_back) > 5
    assert not {row["prompt"][0]["content"] for row in rows} & {p.messages[0].content for p in held_back}
    assert Folder(Path("rounds/round-1/run")).heldout_pairs(), "the run's own share is another draw"


@pytest.mark.parametrize(
    ("options", "keys", "message"),
    [
        (RoundOptions(0), {}, "is no number of rounds"),
        (RoundOptions(2, held_back=1.0), {}, "is no share"),
        (
            RoundOptions(2),
            {"generate": {"sampler": "openai"}, "base_url": "http://127.0.0.1:9/v1"},
            "a server does not",
        ),
        (RoundOptions(2), {"seeds": 2}, "one command a seed"),
        (RoundOptions(2, "first"), {"objective": {"name": "simpo"}}, "compares with no reference"),
        (RoundOptions(9), {"windtunnel": {"pairs": 8, "prompts": 8}}, "8 prompts for 9 rounds"),
    ],
)
def test_what_cannot_be_rounds_is_one_message(options: RoundOptions, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        go(options, **keys)
    assert not Path("rounds/round-1").exists()
