"""What a notebook shows of a run, and the examples of the docstrings."""

from __future__ import annotations

import doctest
import html
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import trimtab
from api_runs import KEYS, rows
from trimtab import api
from trimtab.errors import ConfigError


@pytest.mark.parametrize("function", [api.run, api.train, api.sweep, api.compare], ids=lambda f: f.__name__)
def test_the_examples_of_the_docstrings_run(
    function: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [example] = doctest.DocTestFinder(recurse=False).find(function, globs={"trimtab": trimtab})
    assert example.examples
    doctest.DocTestRunner().run(example)
    assert capsys.readouterr().out == ""


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(second + first.replace('out="runs/mine",', 'out="runs/mine", callbacks=[Enough()],'), names)  # noqa: S102
    assert len(names["run"].metrics) <= 2 * 3  # 40 prompts, 2 of them held out, in batches of 16
    assert names["model"].config.model_type == "qwen2"
    assert (tmp_path / "runs/mine/model/model.safetensors").is_file()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> trimtab.Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return trimtab.train("windtunnel", pairs=rows(), objective=trimtab.Dpo(), out=out, seeds=2, **KEYS)


def test_a_run_of_several_seeds(run: trimtab.Run) -> None:
    assert [seed.folder.name for seed in run.seeds] == ["seed-0", "seed-1"]
    assert list(run.metrics["seed"]) == [0] * 4 + [1] * 4
    assert list(run.metrics["step"]) == [1, 2, 3, 4] * 2
    with pytest.raises(ConfigError, match="a model for each seed"):
        _ = run.model
    model, tokenizer = run.seeds[1].load()
    assert not model.training
    assert tokenizer.decode(tokenizer("plus")["input_ids"]) == "plus"


def test_a_report_shows_itself_in_a_frame(run: trimtab.Run) -> None:
    report = run.report()
    assert report["objective"]["name"] == "dpo"
    assert set(report) == set(report.numbers)
    frame = report._repr_html_()
    [page] = re.findall(r'^<iframe sandbox srcdoc="([^"]*)" [^>]*></iframe>$', frame)
    assert html.unescape(page) == report.html.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="has no report yet"):
        trimtab.Run(run.folder / "data").report()


def test_progress_off_a_terminal_is_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's stderr is no terminal: a carriage return or an escape would stand there as it is."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    trimtab.train("windtunnel", pairs=rows(), objective=trimtab.Dpo(), out=tmp_path / "run", quiet=False, **KEYS)
    assert "training: 4 of 4 steps" in stream.getvalue()
    assert not re.search(r"[\r\x1b]", stream.getvalue())


def test_answers_of_ones_own_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = [{"instruction": "Say yes", "output": "yes", "generator": "mine"}]
    with pytest.raises(ConfigError, match="judged by nobody"):
        trimtab.judge(answers, benchmark="alpaca_eval")
    assert list(tmp_path.iterdir()) == []
