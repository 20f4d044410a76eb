"""Built-in chat templates on base models: what they render, where answers end, that they are saved with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stage_runs import Recorder, write_model
from trimtab import config as configuration
from trimtab import store, windtunnel
from trimtab.data.loading import load_chat_template
from trimtab.errors import ConfigError
from trimtab.records import Message
from trimtab.runtime import set_up
from trimtab.runtime.templated_model import with_template
from trimtab.tokenizer_files import load_tokenizer

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye."},
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The embedded world's tokenizer and model without their template."""
    folder = tmp_path / "base"
    folder.mkdir()
    for path in windtunnel.model_folder().iterdir():
        if path.name != "chat_template.jinja":
            (folder / path.name).write_bytes(path.read_bytes())
    settings = store.read_json(folder / "tokenizer_config.json")
    settings.pop("chat_template", None)
    store.write_json(folder / "tokenizer_config.json", settings)
    assert load_tokenizer(str(folder), offline=True).chat_template is None
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye.<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("plain", "Be brief.\n\nUser: Hi.\n\nAssistant: Hello.{eos}\n\nUser: Bye.\n\nAssistant:"),
        (
            "instruction",
            "Be brief.\n\n### Instruction:\nHi.\n\n### Response:\nHello.{eos}\n\n"
            "### Instruction:\nBye.\n\n### Response:\n",
        ),
    ],
)
def test_what_each_renders_and_where_its_answers_end(name: Any, text: str, base: Path) -> None:
    folder = with_template(base, name, model="base")
    assert with_template(base, name, model="base") == folder
    tokenizer = load_tokenizer(str(folder), offline=True)
    rendered = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    assert rendered == text.format(eos=tokenizer.eos_token)
    template = load_chat_template(str(folder), offline=True)
    end = "<|im_end|>" if name == "chatml" else tokenizer.eos_token
    assert template.end_id == tokenizer.convert_tokens_to_ids(end)
    prompt = template.prompt_ids([Message("user", "Bye.")])
    assert template.decode(prompt).endswith(text.format(eos="").rpartition("Bye.")[2])
    assert (base / "model.safetensors").samefile(folder / "model.safetensors"), "a link, no copy"


def test_a_model_trained_with_one_has_it(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.commands import run

    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"What is {n} plus 2?", "chosen": f"{n} plus 2 is {n + 2}.", "rejected": "No."} for n in range(8)
    ]
    store.write_jsonl(tmp_path / "rows.jsonl", rows)
    config = configuration.resolve(
        {
            "model": {"name": str(base), "template": "chatml"},
            "data": {"source": "rows.jsonl", "holdout": 0, "max_rejected": 1.0},
            "train": {"max_steps": 2, "batch_pairs": 4},
            "engine": {"threads": 1, "device": "cpu"},
            "out": "run",
        }
    )
    folder = run.main(config, reporter=Recorder())
    saved, used = (load_tokenizer(str(of), offline=True) for of in (folder.model, set_up(config).model_folder))
    assert saved.chat_template == used.chat_template
    assert "<|im_start|>" in str(saved.chat_template)
    assert "im_end" in store.read_json(folder.data / "audit.json")["template_sentence"]


def test_a_template_that_does_not_fit_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a chat template of its own"):
        with_template(windtunnel.model_folder(), "plain", model="windtunnel")
    words = write_model(tmp_path / "words")
    with pytest.raises(ConfigError, match=r"template chatml needs the token <\|im_start\|>"):
        with_template(words, "chatml", model="words")
