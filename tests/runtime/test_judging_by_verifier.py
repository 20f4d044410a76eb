"""A program as the judge of a benchmark: it is given the benchmark's row, and a changed row is judged anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from judged_runs import Lines, compared, rows
from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import judge

# right: the answer has as many characters as the row's column says
CHECK = "def score(prompt, answer, row):\n    return len(answer) == row['solution'] and prompt == row['instruction']\n"
N = 6


def config_of(tmp_path: Path, name: str) -> Config:
    tree = configuration.to_json(compared(tmp_path, "http://127.0.0.1:9/v1", n=N, published=False))
    return configuration.resolve(tree | {"judge": {"name": name, "canaries": 0}, "base_url": None})


def with_solutions(tmp_path: Path, solutions: list[int]) -> None:
    path = tmp_path / "prompts.json"
    prompts = zip(store.read_json(path), solutions, strict=True)
    store.write_json(path, [row | {"solution": solution} for row, solution in prompts])


def preferences(config: Config) -> list[float | None]:
    folder: Folder = set_up(config).folder
    return [row["preference"] for row in rows(config, folder.verdicts("prompts"))]


@pytest.mark.parametrize("kind", ["function", "command"])
def test_a_verifier_sees_the_benchmarks_row(kind: str, tmp_path: Path) -> None:
    """The baseline's answer i has 10 + i characters, the model's one more for even i and one fewer for odd i."""
    program = tmp_path / "check.py"
    program.write_text(CHECK)
    name = f"{program}:score"
    if kind == "command":
        reader = tmp_path / "reader.py"
        reader.write_text(
            "import json, sys\nfrom check import score\nline = json.loads(sys.stdin.readline())\n"
            "print(int(score(line['prompt'], line['answer'], line['row'])))\n"
        )
        name = f"command:python3 {reader}"
    config = config_of(tmp_path, name)
    with_solutions(tmp_path, [11, 11, 12, 12, 99, 15])  # right: model, baseline, baseline, model, nobody, baseline
    reporter = Lines()
    judge.main(set_up(config), reporter=reporter)
    assert preferences(config) == [2.0, 1.0, 1.0, 2.0, 1.5, 1.0]
    judge.main(set_up(config), reporter=reporter)
    assert reporter.said[-1] == "judge: prompts is judged already"
    with_solutions(tmp_path, [10, 11, 12, 12, 99, 15])
    judge.main(set_up(config), reporter=reporter)
    assert preferences(config) == [1.0, 1.0, 1.0, 2.0, 1.5, 1.0]


def test_an_edited_program_is_asked_again(tmp_path: Path) -> None:
    """The benchmark was judged already, and the old program's verdicts stood in the report."""
    program = tmp_path / "check.py"
    program.write_text("def score(prompt, answer):\n    return len(answer)\n")
    config, reporter = config_of(tmp_path, str(program)), Lines()
    judge.main(set_up(config), reporter=reporter)
    assert preferences(config) == [2.0, 1.0, 2.0, 1.0, 2.0, 1.0]
    judge.main(set_up(config), reporter=reporter)
    assert reporter.said[-1] == "judge: prompts is judged already"
    program.write_text("def score(prompt, answer):\n    return -len(answer)\n")
    judge.main(set_up(config), reporter=reporter)
    assert preferences(config) == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
