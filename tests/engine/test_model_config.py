"""A saved model's config.json says to older readers what it says to this one.

Source of the fault: transformers 5 writes `rope_parameters` alone, and transformers 4.57 then takes a rotary base of
10,000 for a model that was trained with another (SmolLM2 with the wrong one: 2.517 → 2.623 nats a token).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_families import build
from test_models import write_tokenizer
from transformers import AutoModelForCausalLM

from trimtab import store
from trimtab.engine import models

OLDER = Path(__file__).resolve().parents[2] / ".venv-transformers4" / "bin" / "python"
THETA = 1_000_000.0
SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": THETA}
IDS = list(range(3, 60))
ASK = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
assert transformers.__version__.startswith("4.")
folder, ids = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder).eval()
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits[0]
ids = AutoTokenizer.from_pretrained(folder)("w7").input_ids
print(json.dumps({"logits": logits.tolist(), "dtype": str(model.dtype), "ids": ids}))
"""


def _source(root: Path, *, older_words: bool = False, dtype: str = "float32", **changes: Any) -> Path:
    """A folder as the Hub has them: `older_words` as transformers 4 wrote it, else as transformers 5 does."""
    root.mkdir()
    models.save(build("Llama", **changes), write_tokenizer(), root)
    tree = store.read_json(root / "config.json")
    for key in ("rope_theta", "rope_scaling", "torch_dtype"):
        tree.pop(key, None)
    if older_words:
        tree["rope_theta"] = tree.pop("rope_parameters")["rope_theta"]
        tree.pop("dtype")
        tree["torch_dtype"] = dtype
    else:
        tree["dtype"] = dtype
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "w1", "pad_token": "w2"}
    (root / "tokenizer_config.json").write_text(json.dumps(words))
    (root / "config.json").write_text(json.dumps(tree, indent=4))  # not how transformers or trimtab indent
    return root


def _saved_again(source: Path, target: Path) -> Any:
    loaded = models.load(str(source), dtype="float32", device="cpu")
    target.mkdir()
    models.save(loaded.model, loaded.tokenizer, target)
    return loaded.model


def test_a_config_of_which_training_changes_nothing_stays_byte_for_byte(tmp_path: Path) -> None:
    source = _source(
        tmp_path / "source", older_words=True, rope_parameters={"rope_type": "default", "rope_theta": THETA}
    )
    _saved_again(source, tmp_path / "saved")
    assert (tmp_path / "saved" / "config.json").read_bytes() == (source / "config.json").read_bytes()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.config.rope_parameters["rope_theta"] == THETA


def test_newer_words_get_the_older_ones_beside_them(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", rope_parameters={"rope_type": "default", "rope_theta": THETA})
    _saved_again(source, tmp_path / "saved")
    tree = store.read_json(tmp_path / "saved" / "config.json")
    assert tree["rope_theta"] == tree["rope_parameters"]["rope_theta"] == THETA
    assert tree["torch_dtype"] == tree["dtype"] == "float32"
    assert "rope_scaling" not in tree
    unchanged = store.read_json(source / "config.json")
    assert {key: tree[key] for key in unchanged} == unchanged


def test_scaled_rotary_tables_are_said_in_both_words(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", rope_parameters=SCALED)
    _saved_again(source, tmp_path / "saved")
    tree = store.read_json(tmp_path / "saved" / "config.json")
    assert tree["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert tree["rope_theta"] == THETA


def test_gemma3_has_two_rotary_bases(tmp_path: Path) -> None:
    full, local = {"rope_type": "default", "rope_theta": THETA}, {"rope_type": "default", "rope_theta": 5_000.0}
    parameters = {"full_attention": full, "sliding_attention": local}
    (tmp_path / "source").mkdir()
    models.save(build("Gemma-3", rope_parameters=parameters), write_tokenizer(), tmp_path / "source")
    tree = store.read_json(tmp_path / "source" / "config.json")
    assert (tree["rope_theta"], tree["rope_local_base_freq"]) == (THETA, 5_000.0)


def test_the_dtype_is_the_one_that_was_saved(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", older_words=True, dtype="bfloat16")
    _saved_again(source, tmp_path / "saved")
    tree = store.read_json(tmp_path / "saved" / "config.json")
    assert (tree["dtype"], tree["torch_dtype"]) == ("float32", "float32")


@pytest.mark.slow
@pytest.mark.skipif(not OLDER.exists(), reason="needs .venv-transformers4 (make test-all sets it up)")
@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": THETA}, SCALED], ids=["default", "linear"])
def test_transformers_4_computes_the_same(tmp_path: Path, rope: dict[str, Any]) -> None:
    source = _source(tmp_path / "source", rope_parameters=rope)
    model = _saved_again(source, tmp_path / "saved")
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [str(OLDER), "-c", ASK, str(tmp_path / "saved"), json.dumps(IDS)],
        capture_output=True, text=True, check=True, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    answer = json.loads(process.stdout.splitlines()[-1])
    torch.testing.assert_close(torch.tensor(answer["logits"]), expected, atol=1e-5, rtol=0)
    assert answer["dtype"] == "torch.float32"
    assert answer["ids"] == [7]
