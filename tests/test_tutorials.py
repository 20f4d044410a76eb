"""The tutorials: every command of every page is one that trimtab knows; the short ones are followed to the letter."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_files import write_samples
from trimtab import windtunnel
from trimtab.cli.app import COMMANDS, app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
PAIRS = [{"prompt": f"What is {n} plus {n}?", "chosen": f"{2 * n}.", "rejected": "No."} for n in range(60)]


def commands(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = [line.partition(" #")[0].strip() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
             for line in block.replace("\\\n", " ").splitlines()]  # fmt: skip
    return [line for line in lines if line.startswith("trimtab ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_is_one_that_there_is(page: str) -> None:
    for line in commands(page):
        words = shlex.split(line)[1:]
        assert words[0] in COMMANDS or words[0].startswith("--"), line
        if "…" not in line and words[0] in COMMANDS:
            app.parse_args(words, exit_on_error=False, print_error=False, help_on_error=False)


def follow(page: str, folder: Path, *, replace: dict[str, str]) -> str:
    """Run the page's commands one after another in `folder`, as its reader would; what they printed."""
    told = ""
    environment = {"OMP_NUM_THREADS": "2"} | os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for line in commands(page):
        words = [replace.get(word, word) for word in shlex.split(line)[1:]]
        command = [sys.executable, "-m", "trimtab", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
        told += done.stdout + done.stderr
    return told


def outputs(page: str) -> set[str]:
    """Lines of a page that it says are printed: all but those cut out, and commands of others."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    return {line for line in without_sizes("".join(blocks)) if line != "…" and not line.startswith("lm-eval ")}


def without_sizes(text: str) -> list[str]:
    """Lines without what differs from folder to folder, their spaces such as a page has them."""
    return [re.sub(r"[\d.]+ MB", "MB", line.replace("\xa0", " ")).rstrip() for line in text.splitlines()]


@pytest.mark.slow
def test_the_laptop_tutorial_followed_to_the_letter(tmp_path: Path) -> None:
    """All of it but the last step's model and pairs, which are on the Hub and the reader's own."""
    (tmp_path / "my-pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    told = follow(
        "tutorials/laptop.md", tmp_path, replace={"Qwen/Qwen2.5-0.5B-Instruct": str(windtunnel.model_folder())}
    )
    for name in ("runs/first/report.html", "runs/first/probe.html", "runs/first/calibration.html",
                 "runs/first-or-dpo/comparison.html", "mine.toml"):  # fmt: skip
        assert (tmp_path / name).is_file(), name
    assert outputs("tutorials/laptop.md") - set(without_sizes(told)) == set()  # figures too: on AMD and Intel the same


@pytest.mark.slow
def test_the_papers_tutorial_as_far_as_a_laptop_goes(tmp_path: Path) -> None:
    """The plans and the statistics; its sweeps are made by `make findings`, and the paper's own want a GPU."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    lines = [line for line in commands("tutorials/paper.md") if "paper-2508" not in line and " sweep " not in line]
    rows = [{"instruction": f"do {n}", "output_1": "a", "output_2": "b", "preference": 1 + n % 2, "generator_1": "x",
             "generator_2": "y", "annotator": "j"} for n in range(40)]  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-m", "trimtab", *shlex.split(line)[1:]], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    """Cell by cell in one interpreter; a cell's last value is shown as a notebook shows it."""
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells), "committed without outputs"
    script = f"""
import ast, json
space = {{"__name__": "__main__"}}
for source in json.loads({json.dumps(json.dumps(["".join(cell["source"]) for cell in cells]))}):
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
        print(len(getattr(value, "_repr_html_", value.__repr__)()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "TRIMTAB_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    n_values = sum("".join(cell["source"]).strip() != "" for cell in cells)
    assert 2 <= len(done.stdout.splitlines()) <= 2 * n_values, "what its cells showed"


@pytest.mark.needs_shared
def test_the_page_of_other_tools_outputs_followed_to_the_letter(tmp_path: Path, shared_data: Path) -> None:
    """Published judgments under their names there, and 24 samples in lm-eval's form; what it prints is on the page."""
    judgments = shared_data / "eval"
    for path in (judgments / "alpaca_eval" / "annotations").glob("*.json"):
        (tmp_path / "results" / path.stem).mkdir(parents=True)
        (tmp_path / "results" / path.stem / "annotations.json").symlink_to(path)
    (tmp_path / "gpt-4_single.jsonl").symlink_to(judgments / "mt_bench" / "sample_judgments" / "gpt-4_single.jsonl")
    for side in ("before", "after"):
        write_samples(tmp_path / side, values={"acc": [n % 3 == 0 for n in range(24)], "acc_norm": [0] * 16 + [1] * 8})
    told = follow("outputs.md", tmp_path, replace={})
    assert outputs("outputs.md") - set(without_sizes(told)) == set()


@pytest.mark.slow
def test_what_the_notebook_tutorial_shows_runs(tmp_path: Path) -> None:
    """Its Python, as it stands; a value that it leaves is a whole model."""
    [source] = re.findall(
        r"```python\n(.*?)```", (DOCS / "tutorials/notebook.md").read_text(encoding="utf-8"), re.DOTALL
    )
    ends = "\nassert len(run.metrics) and run.report()['heldout'] and model.num_parameters() and tokenizer('a')\n"
    done = subprocess.run(
        [sys.executable, "-c", source + ends], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_there_are_two_notebooks() -> None:
    assert len(NOTEBOOKS) >= 2
