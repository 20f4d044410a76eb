"""trimtab from Python: the same stages, keyword-only, with the same errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import trimtab
from trimtab import windtunnel
from trimtab.errors import ConfigError, DataError
from trimtab.records import Message, Pair

DIALS = {
    "windtunnel": {"pairs": 32, "prompts": 16},
    "train": {"max_steps": 2, "batch_pairs": 8, "learning_rate": 1e-3},
    "engine": {"threads": 1},
}


def some_pairs(n: int = 24) -> list[Pair]:
    return [
        Pair(f"mine:{k}", (Message("user", f"What is {k} plus {k}?"),), f"{k} plus {k} is {2 * k}.", "Have a nice day.")
        for k in range(n)
    ]


def test_run_without_words_is_the_wind_tunnel_and_winrate_reads_its_verdicts(tmp_path: Path) -> None:
    run = trimtab.run(out=str(tmp_path / "run"), **DIALS)
    assert run.folder == tmp_path / "run"
    assert (run.model / "model.safetensors").is_file()
    assert run.report is not None
    assert run.report["benchmark"]["name"] == "windtunnel"
    again = trimtab.run(tmp_path / "run" / "config.json", out=str(tmp_path / "run"))
    assert again == run
    told = trimtab.winrate(run.folder / "verdicts" / "windtunnel.unbiased.json")
    assert {"win_rate", "standard_error", "n_total", "n_missing", "length_controlled_winrate", "lc_c", "lc_ci95",
            "avg_length"} <= told.keys()  # fmt: skip
    assert told["n_total"] == 16


def test_train_with_pairs_as_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trimtab.train(
        windtunnel.model_folder(),
        pairs=(pair for pair in some_pairs()),
        objective=trimtab.ApoHingeZero(beta=0.3, margin=0.5),
        out=tmp_path / "run",
        train=DIALS["train"],
        engine=DIALS["engine"],
        data={"holdout": 0.2},
    )
    assert capsys.readouterr().out == ""
    told = json.loads((run.folder / "config.json").read_text())
    assert told["objective"] | {"name": "apo_hinge_zero", "beta": 0.3, "margin": 0.5} == told["objective"]
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(2 * 0.5, abs=1e-5)
    assert json.loads((run.folder / "data/audit.json").read_text())["rows"] == 24
    assert run.report is not None
    assert run.report["benchmark"] is None


def test_the_same_values_are_the_same_source(tmp_path: Path) -> None:
    from trimtab.api import _source

    assert _source(some_pairs()) == _source(tuple(some_pairs()))
    assert _source(some_pairs()) != _source(some_pairs(23))
    assert _source(tmp_path / "mine.jsonl") == str(tmp_path / "mine.jsonl")


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (trimtab.Dpo(beta=0.2, label_smoothing=0.1), {"name": "dpo", "beta": 0.2, "label_smoothing": 0.1}),
        (
            trimtab.Modified(trimtab.ApoZero(beta=0.2), sft_weight=0.5),
            {"name": "apo_zero", "beta": 0.2, "sft_weight": 0.5},
        ),
    ],
    ids=["dpo", "modified"],
)
def test_an_objective_value_says_all_it_is(
    tmp_path: Path, objective: trimtab.Objective, said: dict[str, object]
) -> None:
    run = trimtab.train(
        "windtunnel", pairs=some_pairs(), objective=objective, out=tmp_path / "run", train=DIALS["train"],
        engine=DIALS["engine"],
    )  # fmt: skip
    told = json.loads((run.folder / "config.json").read_text())["objective"]
    assert {key: value for key, value in told.items() if value is not None} == said


def test_everything_but_the_first_argument_is_keyword_only(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        trimtab.train("windtunnel", some_pairs(), trimtab.Dpo())  # type: ignore[misc]  # what is tested
    with pytest.raises(TypeError):
        trimtab.run(None, True)  # type: ignore[misc]  # what is tested
    with pytest.raises(TypeError):
        trimtab.winrate("file", "difficulty")  # type: ignore[misc]  # what is tested


def test_mistakes_are_the_command_lines_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="learning_rte") as unknown:
        trimtab.run(train={"learning_rte": 1e-3})
    assert "learning_rate" in unknown.value.remedy
    with pytest.raises(ConfigError, match="objektive"):
        trimtab.run(objektive="dpo")
    with pytest.raises(ConfigError, match="str"):
        trimtab.train("windtunnel", pairs=some_pairs(), objective="dpo")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        trimtab.train("windtunnel", pairs="nowhere.jsonl", objective=trimtab.Dpo())
    with pytest.raises(DataError, match=r"nowhere\.json"):
        trimtab.winrate("nowhere.json")
    with pytest.raises(trimtab.TrimtabError):
        trimtab.train("windtunnel", pairs=[], objective=trimtab.Dpo())
    assert list(tmp_path.iterdir()) == []
