"""The shipped model: plain, small, sensible, and neither at floor nor at ceiling."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

from trimtab.windtunnel import FAMILIES, Task, model_folder, score, tasks
from trimtab.windtunnel.recipe import answers, figures


@pytest.fixture(scope="module")
def shipped() -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    model = AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(model_folder())


def test_it_is_a_plain_small_folder() -> None:
    files = {path.name: path.stat().st_size for path in model_folder().iterdir()}
    assert set(files) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(files.values()) <= 8_000_000
    config = json.loads((model_folder() / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen2ForCausalLM"]


def test_it_loads_in_plain_transformers(shipped: tuple[Qwen2ForCausalLM, Qwen2Tokenizer]) -> None:
    model, tokenizer = shipped
    assert isinstance(model, Qwen2ForCausalLM)
    assert 1_000_000 <= model.num_parameters() <= 3_000_000
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_it_answers_sensibly_in_every_family_and_wholly_right_in_few(
    shipped: tuple[Qwen2ForCausalLM, Qwen2Tokenizer],
) -> None:
    """Bands of the model card widened by three standard errors of this small sample (400 answers, 50 a family)."""
    found = figures(*shipped, n=400, seed=11)
    true, right, _ = found["all"]
    assert 0.35 <= true <= 0.50
    assert right < 0.40
    for family in FAMILIES:
        assert 0.18 <= found[family][0] <= 0.75, (family, found[family])


def test_its_answers_end_and_name_the_asked_thing(
    shipped: tuple[Qwen2ForCausalLM, Qwen2Tokenizer],
) -> None:
    """Among eight answers to a question one is wholly right for most questions: this is what alignment selects."""
    questions: tuple[Task, ...] = tuple(t for t in tasks(16, seed=4, split="eval") for _ in range(8))
    texts = answers(*shipped, questions, temperature=1.0, seed=4)
    best: dict[str, float] = {}
    for task, text in zip(questions, texts, strict=True):
        best[task.id] = max(best.get(task.id, 0.0), score(task, text).total)
    assert sum(value == 1.0 for value in best.values()) >= 10


def test_the_example_of_the_model_card_runs(capsys: pytest.CaptureFixture[str]) -> None:
    card = (model_folder() / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(example) == 1
    exec(example[0], {})  # noqa: S102  # the card's own words are what is tested
    said = capsys.readouterr().out
    assert "user\nWhat is 7 plus 5?\nassistant\n" in said


def test_the_figures_of_the_model_card_are_the_models(
    shipped: tuple[Qwen2ForCausalLM, Qwen2Tokenizer],
) -> None:
    """Greedy decoding has no luck in it: the card's greedy column is measured again, to rounding on other machines."""
    card = (model_folder() / "README.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| (\w+) \|.*\| ([\d.]+) \| [\d.]+ \|$", card, flags=re.MULTILINE))
    found = figures(*shipped, n=800, temperature=0.0)
    assert set(stated) == {"all", *FAMILIES}
    assert {family: round(found[family][0], 2) for family in stated} == pytest.approx(
        {family: float(value) for family, value in stated.items()}, abs=0.03
    )


def test_importing_the_room_needs_no_torch() -> None:
    code = "import sys, trimtab.windtunnel; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
