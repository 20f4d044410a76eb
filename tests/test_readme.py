"""The README's commands, executed: what needs the Hub runs against local stand-ins, what is long is cut short."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab import cli, windtunnel

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = ["--train.max-steps", "2", "--train.batch-pairs", "4"]
EMBEDDED_SHORT = ["--windtunnel.pairs", "16", "--windtunnel.prompts", "8"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """Hub names of the README → a local model and local pairs of the same shape."""
    rows = [
        {
            "chosen": [
                {"role": "user", "content": f"What is {n} plus {n}?"},
                {"role": "assistant", "content": "Even."},
            ],
            "rejected": [
                {"role": "user", "content": f"What is {n} plus {n}?"},
                {"role": "assistant", "content": "Odd."},
            ],
        }
        for n in range(60)
    ]
    pairs = tmp_path / "ultrafeedback.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "annotations.json").write_text(json.dumps(judgments()))
    return {
        "trl-lib/ultrafeedback_binarized": str(pairs),
        "my-pairs.jsonl": str(pairs),
        "Qwen/Qwen2.5-0.5B-Instruct": str(windtunnel.model_folder()),
    }


def judgments() -> list[dict[str, object]]:
    """Forty rows as AlpacaEval writes them."""
    row = {"generator_1": "base", "generator_2": "model", "annotator": "judge", "dataset": "mine"}
    return [
        {"instruction": f"do {n}", "output_1": "a" * n, "output_2": "b" * (40 - n), "preference": 1 + n % 3 / 2} | row
        for n in range(1, 41)
    ]


def official_texts(folder: Path) -> Path:
    """A folder for --benchmark-dir: official names, texts of our own."""
    folder.mkdir()
    baseline = [{"dataset": "mine", "instruction": f"do {n}", "output": "done", "generator": "x"} for n in range(4)]
    (folder / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(baseline))
    (folder / "alpaca_eval_clf.txt").write_text(
        "<|im_start|>user\n{instruction} {output_1} {output_2} m or M?\n<|im_end|>"
    )
    return folder


def test_there_are_commands_to_run() -> None:
    assert [line.split()[0] for line in commands()].count("trimtab") >= 4
    assert "make demo" in commands()
    assert "make test" in commands()


@pytest.mark.parametrize("target", [line.split()[1] for line in commands() if line.startswith("make ")])
def test_the_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"demo": "trimtab run --out runs/demo", "real": "recipes/real.toml", "test": "pytest"}[target] in done.stdout


@pytest.mark.parametrize("line", [line for line in commands() if not line.startswith("make ")])
def test_the_trimtab_commands_run(
    line: str, tmp_path: Path, stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)
    assert words.pop(0).endswith("trimtab")
    words = [stand_ins.get(word, word) for word in words]
    for at, word in enumerate(words):
        if word.startswith("recipes/"):
            recipe = (ROOT / word).read_text(encoding="utf-8")
            for hub, local in stand_ins.items():
                recipe = recipe.replace(f'"{hub}"', json.dumps(local))
            words[at] = str(tmp_path / Path(word).name)
            Path(words[at]).write_text(recipe)
    monkeypatch.chdir(tmp_path)
    dry = "--dry-run" in words
    if dry:
        words += ["--benchmark-dir", str(official_texts(tmp_path / "official"))]
    if words[0] == "run" and not dry:
        words += [*SHORT, "--quiet"] + ([] if any(word.endswith(".toml") for word in words) else EMBEDDED_SHORT)
    cli.main(words)
    if words[0] == "run" and not dry:
        [report] = tmp_path.glob("runs/*/report.html")
        assert report.stat().st_size > 10_000


def test_the_python_example_runs(tmp_path: Path, stand_ins: dict[str, str]) -> None:
    [code] = blocks("python")
    for hub, local in stand_ins.items():
        code = code.replace(f'"{hub}"', json.dumps(local))
    code = code.replace(
        ")\nprint(", f"    train={{'max_steps': 2, 'batch_pairs': 4}}, out={str(tmp_path / 'run')!r},\n)\nprint("
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model.safetensors").is_file()


def test_every_linked_file_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_folders_it_promises_are_those_of_the_run_folder() -> None:
    for name in (
        "report.html",
        "report.md",
        "report.json",
        "metrics.jsonl",
        "config.json",
        "plan.json",
        "versions.json",
    ):
        assert name in README
