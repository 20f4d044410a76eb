"""A model is named by the bytes that compute, before it is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trimtab import store
from trimtab.engine import identity
from trimtab.errors import ModelError


def folder(parent: Path, name: str = "m", *, weights: bytes = b"1" * 10) -> Path:
    path = parent / name
    path.mkdir()
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text("{}", encoding="utf-8")
    (path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (path / "README.md").write_text("words", encoding="utf-8")
    return path


def test_the_place_and_the_card_do_not_matter(tmp_path: Path) -> None:
    one, two = folder(tmp_path, "one"), folder(tmp_path, "two")
    (two / "README.md").write_text("other words", encoding="utf-8")
    assert identity.identify(str(one)) == identity.identify(str(two))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_weights_and_configuration_do(tmp_path: Path, file: str) -> None:
    path = folder(tmp_path)
    before = identity.identify(str(path))
    (path / file).write_bytes(b'{"a": 1}  ')
    after = identity.identify(str(path))
    assert after.weights != before.weights
    assert after.tokenizer == before.tokenizer


def test_the_template_is_part_of_the_tokenizer(tmp_path: Path) -> None:
    path = folder(tmp_path)
    before = identity.identify(str(path))
    (path / "chat_template.jinja").write_text("{{ x }}", encoding="utf-8")
    after = identity.identify(str(path))
    assert after.tokenizer != before.tokenizer
    assert after.weights == before.weights


def test_an_adapter_folder_is_its_base_and_itself(tmp_path: Path) -> None:
    base = folder(tmp_path, "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}), encoding="utf-8")
    (adapter / "adapter_model.safetensors").write_bytes(b"2" * 5)
    told = identity.identify(str(adapter))
    assert told.weights == identity.identify(str(base)).weights
    assert told.adapter is not None
    (adapter / "adapter_model.safetensors").write_bytes(b"3" * 5)
    assert identity.identify(str(adapter)).adapter != told.adapter


def test_an_adapter_without_a_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="base model"):
        identity.identify(str(tmp_path))


@pytest.mark.parametrize(
    ("base", "message", "remedy"),
    [
        ("{home}/gguf/0123", "in the cache, and pruned", "a plan of the run that it comes from makes it again"),
        ("{tmp}/gone", "its base is gone", "put that folder back"),
        ("bases/gone", "stands on bases/gone", "where bases/gone is a folder, go to the one from which"),
    ],
)
def test_a_base_that_is_nowhere_is_said_with_what_became_of_it(
    tmp_path: Path, base: str, message: str, remedy: str
) -> None:
    tree = {"base_model_name_or_path": base.format(home=store.home(), tmp=tmp_path)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        identity.identify(str(tmp_path), offline=True)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path, weights=b"1" * 1_500_000)
    hashed: list[str] = []
    real = store.file_digest
    monkeypatch.setattr(store, "file_digest", lambda p: hashed.append(p.name) or real(p))
    first = identity.identify(str(path))
    assert "model.safetensors" in hashed
    hashed.clear()
    assert identity.identify(str(path)) == first
    assert "model.safetensors" not in hashed
    (path / "model.safetensors").write_bytes(b"2" * 1_500_000)
    os.utime(path / "model.safetensors", ns=(1, 1))
    assert identity.identify(str(path)) != first
    assert "model.safetensors" in hashed


def test_other_weights_of_the_same_path_size_and_time_are_other_weights(tmp_path: Path) -> None:
    """What `cp -p` or `rsync -t` leaves: the reference cache then served another model's log-probabilities."""
    path = folder(tmp_path, weights=b"1" * 1_500_000)
    file = path / "model.safetensors"
    first, status = identity.identify(str(path)), file.stat()
    file.write_bytes(b"2" * 1_500_000)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert identity.identify(str(path)) != first


def test_a_torn_ledger_is_no_obstacle(tmp_path: Path) -> None:
    path = folder(tmp_path, weights=b"1" * 1_500_000)
    first = identity.identify(str(path))
    (store.home() / "digests.json").write_text("{", encoding="utf-8")
    assert identity.identify(str(path)) == first


def test_a_model_that_is_nowhere_is_a_clear_word(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        identity.identify("nobody/no-such-model", offline=True)
    assert "nobody/no-such-model" in caught.value.message
    assert "folder" in caught.value.remedy
    with pytest.raises(ModelError):
        identity.identify(str(tmp_path / "a" / "b" / "c"), offline=True)


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "is no reward model"),
        ({"id2label": {"0": "LABEL_0"}}, "is no reward model"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "gives 2 scores"),  # which transformers does not write
        (
            {"architectures": ["XForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}},
            "gives 3 scores",
        ),
        (None, "is no reward model"),
    ],
)
def test_what_cannot_score_is_refused_by_its_configuration(tmp_path: Path, config: object, fault: str) -> None:
    path = folder(tmp_path)
    if config is None:  # as an adapter's folder has none
        (path / "config.json").unlink()
    else:
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=fault):
        identity.require_reward(path)


def test_a_classifier_with_one_output_is_a_reward_model(tmp_path: Path) -> None:
    path = folder(tmp_path)
    for labels in ({"id2label": {"0": "LABEL_0"}}, {"num_labels": 1}):
        tree = {"architectures": ["LlamaForSequenceClassification"]} | labels
        (path / "config.json").write_text(json.dumps(tree), encoding="utf-8")
        identity.require_reward(path)
