"""A plain supervised run: prompt and completion rows, no rejected side, from a file to a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stage_runs import Recorder
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.commands import audit as audit_command
from trimtab.commands import run
from trimtab.config import Config
from trimtab.engine import models
from trimtab.errors import DataError
from trimtab.runtime.folder import Folder

N = 40


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def demonstrations(name: str = "rows.jsonl", **more: Any) -> None:
    tasks = windtunnel.tasks(N, seed=3, split="train")
    rows = [{"prompt": t.prompt, "completion": t.template.replace("{", "").replace("}", "")} | more for t in tasks]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def supervised(out: str = "run", **sections: Any) -> Config:
    tree: dict[str, Any] = {
        "model": "windtunnel",
        "data": {"source": "rows.jsonl", "holdout": 0.3},
        "objective": "sft",
        "train": {"epochs": 3, "batch_pairs": 8, "learning_rate": 1e-3},
        "engine": {"threads": 1, "device": "cpu", "dtype": "float32"},
        "out": out,
    }
    return configuration.resolve(configuration.merge(tree, sections))


def test_completions_are_learnt_and_the_report_says_how_well() -> None:
    demonstrations()
    reporter = Recorder()
    folder = run.main(supervised(), reporter=reporter)
    train, heldout = folder.train_pairs(), folder.heldout_pairs()
    assert len(train) + len(heldout) == N
    assert all(row.chosen_ids and not row.rejected_ids for row in [*train, *heldout])
    held = store.read_json(folder.report("json"))["heldout"]["imitation"]
    assert held["after"] < held["before"]
    assert held["change"]["ci95"][1] < 0
    assert held["change"]["value"] == pytest.approx(held["after"] - held["before"])
    assert f"{held['after']:.3f} nats a token" in folder.report("md").read_text().replace("**", "")
    assert held["before"] == pytest.approx(nats_a_token(windtunnel.model_folder(), folder), rel=1e-5)
    assert held["after"] == pytest.approx(nats_a_token(folder.model, folder), rel=1e-5)


def nats_a_token(model_folder: Path, folder: Folder) -> float:
    """Of the held-out completions, a sequence at a time, by transformers alone."""
    model = models.load(str(model_folder), dtype="float32", device="cpu", offline=True).model
    total, n_tokens = 0.0, 0
    for row in folder.heldout_pairs():
        ids = torch.tensor([[*row.prompt_ids, *row.chosen_ids]])
        with torch.no_grad():
            logps = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
        own = logps[len(row.prompt_ids) - 1 :].gather(1, ids[0, len(row.prompt_ids) :, None])
        total, n_tokens = total - float(own.sum()), n_tokens + len(row.chosen_ids)
    return total / n_tokens


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Greet Ann."}, {"role": "assistant", "content": "Hello, Ann."}]},
        {"instruction": "Greet", "input": "Ann.", "output": "Hello, Ann."},
        {"prompt": "Greet Ann.", "completion": "Hello, Ann."},
    ],
)
def test_demonstrations_of_each_form_are_read(row: dict[str, Any]) -> None:
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    told = audit_command.main("rows.jsonl", {"data": {"holdout": 0}})
    assert (told.format, told.audit.n_kept, told.refusal) == ("demonstrations", 1, None)


def test_what_is_no_demonstration_is_one_message() -> None:
    demonstrations()
    with pytest.raises(DataError, match=r"rows.jsonl:1 is a response without a label .* dpo learns from preferences"):
        run.main(supervised(objective="dpo"), reporter=Recorder())
    with pytest.raises(DataError, match="kto learns from preferences"):
        run.main(supervised(objective="kto"), reporter=Recorder())
    demonstrations("rows.jsonl", label=False)
    with pytest.raises(DataError, match=r"rows.jsonl:1 is labelled as a bad response, and sft imitates every row"):
        run.main(supervised(), reporter=Recorder())


def test_a_run_on_pairs_goes_on_from_the_supervised_model() -> None:
    demonstrations()
    folder = run.main(supervised(train={"max_steps": 2}), reporter=Recorder())
    rows = [{"prompt": f"Greet {name}.", "chosen": f"Hello, {name}.", "rejected": "No."} for name in ("Ann", "Ben")]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = supervised(
        "next",
        model=str(folder.model),
        data={"source": "pairs.jsonl", "holdout": 0},
        objective="apo_hinge_zero",
        train={"max_steps": 1},
    )
    assert run.main(config, reporter=Recorder()).model.is_dir()
