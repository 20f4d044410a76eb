"""`trimtab reward` from pairs to a folder that transformers and `--judge reward:` read, on the embedded world."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder, same_training
from trial_runs import call
from trimtab import store
from trimtab.commands import reward, run
from trimtab.engine import identity
from trimtab.engine.reward import RewardModel
from trimtab.errors import ConfigError, ModelError, StopError
from trimtab.records import Message, Pair
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder

SMALL: dict[str, Any] = {
    "windtunnel": {"pairs": 64},
    "train": {"epochs": 2, "batch_pairs": 12, "learning_rate": 2e-3},
    "data": {"holdout": 0.25},
}
LORA = {"adapter": {"kind": "lora", "rank": 4}}


def trained(out: Path, flags: dict[str, Any], *, reporter: Recorder | None = None) -> Folder:
    config = reward.resolve_config("windtunnel", flags | {"out": str(out)})
    reward.main(config, reporter=reporter or Recorder())
    return set_up(config).folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    os.environ["TRIMTAB_HOME"] = str(tmp_path_factory.mktemp("home"))
    return trained(tmp_path_factory.mktemp("run") / "lora", SMALL | LORA)


FRESH = """
import json, sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, conversations = json.load(sys.stdin)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
scores = []
for messages in conversations:
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    scores.append(model(**ids).logits.item())
batch = tokenizer.apply_chat_template(conversations, return_tensors="pt", return_dict=True, padding=True)
print(json.dumps([scores, model(**batch).logits.flatten().tolist()]))
"""


def test_a_fresh_process_reads_the_rewards_that_training_saw(folder: Folder) -> None:
    """By plain transformers from the texts of the held-out pairs, alone and as a padded batch."""
    heldout = store.read_json(folder.heldout)
    pairs = {row["id"]: Pair.from_json(row) for row in store.iter_jsonl(folder.data / "pairs.jsonl")}
    conversations = [
        [message.to_json() for message in (*pairs[name].prompt, Message("assistant", answer))]
        for name in heldout["ids"]
        for answer in (pairs[name].chosen, pairs[name].rejected)
    ]
    words = json.dumps([str(folder.model), conversations])
    answer = subprocess.run([sys.executable, "-c", FRESH], input=words, capture_output=True, text=True, check=True)
    for scores in json.loads(answer.stdout):
        gaps = [chosen - rejected for chosen, rejected in zip(scores[0::2], scores[1::2], strict=True)]
        assert gaps == pytest.approx(heldout["after"]["reward_gaps"], abs=1e-3)
        assert max(map(abs, gaps)) > 0.01
    assert heldout["before"]["losses"] == pytest.approx([0.693147] * heldout["n"], abs=1e-6)


def test_the_run_folder_is_a_judge(folder: Folder) -> None:
    place = identity.reward_folder_of(str(folder.root))
    assert place == folder.model
    identity.require_reward(place)
    store.write_json(folder.root.parent / "other" / "plan.json", {})
    with pytest.raises(ModelError, match="a run that has no reward model"):
        identity.reward_folder_of(str(folder.root.parent / "other"))
    conversations = [(Message("user", "2 + 3?"), Message("assistant", text)) for text in ("5.", "a cat")]
    assert len(set(RewardModel.load(place, device="cpu").scores(conversations))) == 2


def test_the_report_says_how_it_ranks_and_what_it_does_with_length(folder: Folder) -> None:
    report = store.read_json(folder.report("json"))
    heldout = store.read_json(folder.heldout)
    assert report["heldout"]["accuracy"]["n"] == heldout["n"]
    gaps = heldout["after"]["reward_gaps"]
    assert report["heldout"]["accuracy"]["value"] == pytest.approx(sum(gap > 0 for gap in gaps) / len(gaps))
    assert report["reward"]["truth"]["by_labels"]["n"] <= heldout["n"]
    page = folder.report("html").read_text(encoding="utf-8")
    for words in ("as a reward model", "Does it rank as the labels do?", "AutoModelForSequenceClassification"):
        assert words in page
    assert "Did it help?" not in page
    assert "No regime can be named" not in page
    assert all("logps/chosen" not in row for row in store.read_jsonl(folder.metrics))


def test_it_answers_nothing(folder: Folder) -> None:
    from trimtab.engine import models
    from trimtab.studies.calibration import read

    with pytest.raises(ModelError, match="a reward model, which scores answers and writes none"):
        models.load(str(folder.model))
    with pytest.raises(ConfigError, match="predicts no next token"):
        read.find(str(folder.root), trust_remote_code=False)


def test_a_stopped_one_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", SMALL)
    with pytest.raises(StopError):
        trained(tmp_path / "stopped", SMALL, reporter=Recorder(at=3, act=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    same_training(straight, trained(tmp_path / "stopped", SMALL))
    recorder = Recorder()
    trained(tmp_path / "stopped", SMALL, reporter=recorder)
    assert any("trained already" in line for line in recorder.lines)


def test_the_command_resumes(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reward", "windtunnel", "--windtunnel.pairs", "64", "--train.epochs", "2", "--train.batch-pairs", "12"]
    words += ["--train.learning-rate", "2e-3", "--data.holdout", "0.25", "--adapter", "lora", "--adapter.rank", "4"]
    code, _, messages = call([*words, "--out", folder.root, "--resume", "--quiet"], capsys)
    assert code == 0, messages
    assert "trained already" in messages
    code, _, messages = call([*words, "--out", tmp_path / "none", "--resume"], capsys)
    assert (code, (tmp_path / "none").exists()) == (2, False)
    assert "there is no run to resume" in messages


def test_what_cannot_be_is_said_in_one_message(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3)
    with pytest.raises(ConfigError, match="dpo does not train a reward model"):
        reward.resolve_config(str(pairs), {"objective": "dpo"})
    own = reward.resolve_config(f"{pairs}:2,b.jsonl:1", {"model": "windtunnel", "data": {"eval": "c.jsonl"}})
    assert own.data.sources == {str(pairs): 2.0, "b.jsonl": 1.0}
    assert (own.data.holdout, own.data.eval) == (0.05, "c.jsonl")
    assert reward.resolve_config(str(pairs), {"model": "windtunnel"}).data.holdout == 0.1
    with pytest.raises(ConfigError, match="named twice"):
        reward.resolve_config(str(pairs), {"data": "others.jsonl"})
    with pytest.raises(ConfigError, match="a reward model answers nothing"):
        reward.resolve_config(str(pairs), {"model": "windtunnel", "benchmark": "windtunnel"})
    with pytest.raises(ConfigError, match=r"model.name is not set|model is not set"):
        reward.resolve_config(str(pairs), {})
    with pytest.raises(ConfigError, match="beta does not apply to bradley_terry"):
        reward.resolve_config(str(pairs), {"model": "windtunnel", "objective": {"beta": "0.1"}})


def test_a_model_without_a_template_that_ends_answers_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from stage_runs import write_model

    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"w{i}", "chosen": f"w{i + 1}", "rejected": f"w{i + 2}"} for i in range(2, 12)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_model(tmp_path / "model")
    config = reward.resolve_config(str(pairs), {"model": str(tmp_path / "model"), "out": str(tmp_path / "out")})
    with pytest.raises(ModelError, match="no chat template that ends an answer"):
        run.main(config, reporter=Recorder())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_in_the_wind_tunnel_it_agrees_with_the_oracle(tmp_path: Path) -> None:
    """On three of four pairs at least whose true qualities differ, learned from labels that are drawn."""
    folder = trained(tmp_path / "run", {"windtunnel": {"pairs": 6000}, "train": {"epochs": 2}})
    truth = store.read_json(folder.report("json"))["reward"]["truth"]
    assert truth["by_reward"]["n"] > 500
    assert truth["by_reward"]["value"] >= 0.75
    assert truth["by_labels"]["value"] > truth["by_reward"]["value"]
