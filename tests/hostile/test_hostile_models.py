"""Model folders that were made to run code, to hang or to fill the memory. Each real file would drop a marker."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_calls import harmless, jsonl, nothing_new, put, refused

from trimtab.data import template_limits
from trimtab.data.loading import load_chat_template
from trimtab.engine import models
from trimtab.engine.reward import RewardModel
from trimtab.errors import ModelError
from trimtab.windtunnel import model_folder

ROWS = [
    {"prompt": f"What is {n} and {n}?", "chosen": f"It is {2 * n}.", "rejected": "I do not know."} for n in range(8)
]


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped model, to be spoilt."""
    return Path(shutil.copytree(model_folder(), tmp_path / "model"))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "owned"


def change(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def planned(folder: Path, tmp_path: Path) -> str:
    """What the commands say that read a model; nothing may be left behind, in the folder least of all."""
    data = put(tmp_path / "rows.jsonl", jsonl(ROWS))
    with nothing_new(tmp_path):
        return refused("plan", "--model", folder, "--data", data, "--out", tmp_path / "run", seconds=60)


def test_the_malicious_file_is_a_real_one(tmp_path: Path, marker: Path) -> None:
    torch.save({"w": Touches(marker)}, tmp_path / "weights.bin")
    torch.load(tmp_path / "weights.bin", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_pickled_weights_are_refused_by_name(folder: Path, marker: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Touches(marker)}, folder / name)
    with pytest.raises(ModelError, match=rf"pickle.*{name}"):
        models.load(str(folder))
    with pytest.raises(ModelError, match="pickle"):
        RewardModel.load(folder)
    assert not marker.exists()


def test_a_decoy_beside_a_pickle_does_not_open_it(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    torch.save({"model.embed_tokens.weight": Touches(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        models.load(str(folder))
    assert not marker.exists()


def test_a_pickle_that_is_called_safetensors(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Touches(marker)))
    with pytest.raises(ModelError, match=r"damaged|cannot be loaded"):
        models.load(str(folder))
    assert not marker.exists()


@pytest.mark.parametrize(
    "header", [b"\xff" * 8, b"\x00" * 8, (2**40).to_bytes(8, "little"), b"\x02" + b"\x00" * 7 + b"[]"]
)
def test_headers_of_weights_that_lie(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(header + b"x" * 64)
    with pytest.raises(ModelError):
        models.load(str(folder))


def adapter(tmp_path: Path, **keys: object) -> Path:
    told: dict[str, object] = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(model_folder()),
        "task_type": "CAUSAL_LM",
    }
    folder = tmp_path / "adapter"
    put(folder / "adapter_config.json", told | {"r": 2, "target_modules": ["q_proj"]} | keys)
    put(folder / "adapter_model.safetensors", b"\x02" + b"\x00" * 7 + b"{}")
    return folder


def test_a_pickled_adapter_beside_a_decoy(tmp_path: Path, marker: Path) -> None:
    folder = adapter(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "decoy.safetensors")
    torch.save({"w": Touches(marker)}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"pickle \(adapter_model.bin\)"):
        models.load(str(folder))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"megatron_config": {}, "megatron_core": "antigravity"}, "module to import"),
        ({"peft_type": "XLORA", "adapters": {"0": "evil/adapter"}}, "only LORA"),
        ({"peft_type": None}, "only LORA"),
        ({"base_model_name_or_path": None}, "does not name its base"),
        ({"base_model_name_or_path": ["x"]}, "does not name its base"),
        ({"base_model_name_or_path": "SELF"}, "does not name its base"),
    ],
)
def test_adapters_with_words_of_a_stranger(tmp_path: Path, keys: dict[str, object], why: str) -> None:
    folder = adapter(tmp_path, **keys)
    if keys.get("base_model_name_or_path") == "SELF":
        change(folder / "adapter_config.json", base_model_name_or_path=str(folder))
    with pytest.raises(ModelError, match=why):
        models.load(str(folder))


CODE = "from pathlib import Path\nPath({marker!r}).mkdir()\nclass Evil:\n    pass\n"


def with_code(folder: Path, marker: Path, **keys: object) -> None:
    put(folder / "evil.py", CODE.format(marker=str(marker)))
    change(folder / "config.json", **keys)


def test_a_model_with_code_of_its_own_is_refused_by_name(folder: Path, marker: Path, tmp_path: Path) -> None:
    mapped = {
        "AutoConfig": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoModelForSequenceClassification": "evil.Evil",
    }
    with_code(folder, marker, model_type="evil", auto_map=mapped)
    with pytest.raises(ModelError, match=r"custom code|trust_remote_code") as raised:
        models.load(str(folder))
    assert "model.trust_remote_code = true" in raised.value.remedy
    with pytest.raises(ModelError):
        RewardModel.load(folder)
    planned(folder, tmp_path)
    assert not marker.exists()


def test_code_beside_a_known_model_and_tokenizer_is_not_run(folder: Path, marker: Path, tmp_path: Path) -> None:
    with_code(folder, marker, auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    models.load(str(folder))
    load_chat_template(str(folder), offline=True)
    assert not marker.exists()


def test_settings_that_once_fetched_kernels_fetch_nothing(folder: Path, marker: Path) -> None:
    keys = {"_attn_implementation": "evil/kernel", "_attn_implementation_internal": "evil/kernel"}
    with_code(folder, marker, attn_implementation="evil/kernel", **keys)
    with suppress(ModelError):
        models.load(str(folder))
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b'{"model_type": 1, "auto_map": 1}']
)
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        pytest.param("tokenizer.json", marks=pytest.mark.slow),
        pytest.param("tokenizer_config.json", marks=pytest.mark.slow),
        pytest.param("generation_config.json", marks=pytest.mark.slow),
    ],
)
def test_broken_files_of_a_model(folder: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    harmless("plan", "--model", folder, "--data", put(tmp_path / "rows.jsonl", jsonl(ROWS)), seconds=60)


# ---- chat templates --------------------------------------------------------------------------------------------------

ESCAPES = {
    "classes": "{{ ().__class__.__base__.__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}",
    "lipsum": "{{ lipsum.__globals__['os'].mkdir('MARKER') }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "attr": "{{ messages|attr('__class__')|attr('__mro__') }}",
    "raise": "{{ raise_exception.__globals__ }}",
    "strftime": "{{ strftime_now.__globals__['os'].mkdir('MARKER') }}",
    "import": "{% import 'os' as os %}{{ os.mkdir('MARKER') }}",
    "include": "{% include '/etc/passwd' %}",
    "append": "{{ messages.append(1) }}{{ messages }}",
}
COSTLY = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "text": "{% for a in range(9999) %}{% for b in range(999) %}x{% endfor %}{% endfor %}",
    "power": "{{ 9**9**9 }}",
    "product": "{{ 'x' * 9999999999 }}",
    "doubling": "{% set n = namespace(s='xxxxxxxx') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "width": "{{ '%99999999999d' % 1 }}",
    "center": "{{ 'x'|center(99999999999) }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "zero": "{{ 1/0 }}",
    "missing": "{{ nothing.at.all }}",
    "not text": "{{ messages[99].content }}",
    "syntax": "{% for %}",
    "raising": "{{ raise_exception('\x1b[31mred\u202e') }}",
}
TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def tricked(folder: Path, template: str) -> str:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(ModelError) as raised:
        load_chat_template(str(folder), offline=True)
    return str(raised.value)


@pytest.mark.parametrize("name", ESCAPES)
def test_templates_that_would_escape(folder: Path, marker: Path, name: str) -> None:
    """The sandbox refuses the attribute, or gives nothing for it; either way no code is run and nothing is told."""
    template = ESCAPES[name].replace("MARKER", str(marker)) + TURNS
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    try:
        told = load_chat_template(str(folder), offline=True).sentence
    except ModelError as error:
        told = str(error)
        assert "chat template" in told
    assert not marker.exists()
    assert "<class" not in told
    assert "root:" not in told


@pytest.mark.parametrize("name", COSTLY)
def test_templates_that_would_never_end(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "CPU_SECONDS", 0.5)
    assert "chat template" in tricked(folder, COSTLY[name] + TURNS)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{{ 'x' * 3 }}", True), ("{{ 3 * a }}", True), ("{{ a * 3 + b * 4 }}", True), ("a * b", True),
        ("{{ a * b }}", False), ("{{ 3 * a * b }}", False), ("{{ a * 3 * b }}", False), ("{{ a * 99999 }}", False),
        ("{{ (3) * a }}", False), ("{{ 2**a }}", False), ("{% set x = a*a %}", False),
        ("{% generation %}{{ a**2 }}", False),
    ],
)  # fmt: skip
def test_which_products_a_template_may_have(text: str, good: bool) -> None:
    assert (template_limits.refusal(text) == "") is good
