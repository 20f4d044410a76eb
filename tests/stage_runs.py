"""Small real runs for the stage tests: a Qwen2 with random weights on disk, token pairs, a prepared run folder."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config
from trimtab.progress import Advance, Figure
from trimtab.records import TokenPair
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import reference, train

VOCABULARY = 61


def write_model(folder: Path, *, seed: int = 0, **shape: int) -> Path:
    """A Qwen2 with random weights large enough that its log-probabilities differ, and a tokenizer of words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**(settings | shape)))
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))  # a word, no password
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", unk_token="w0").save_pretrained(folder)  # words
    return folder


def make_pairs(n: int, *, seed: int = 0, name: str = "rows") -> list[TokenPair]:
    rng = random.Random(seed)  # noqa: S311  # test data

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randint(low, high)))

    return [TokenPair(f"{name}.jsonl:{i + 1}", ids(3, 9), ids(2, 12), ids(2, 12)) for i in range(n)]


def make_pairs_of(n: int, *, prompt: int, response: int) -> list[TokenPair]:
    """Pairs of equal lengths, in tokens; ids of the smallest vocabulary."""
    rng = random.Random(0)  # noqa: S311  # test data

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, VOCABULARY) for _ in range(length))

    return [TokenPair(f"rows.jsonl:{i + 1}", ids(prompt), ids(response), ids(response)) for i in range(n)]


def make_config(out: Path, model: Path, **sections: Any) -> Config:
    """16 pairs in batches of 4 over two epochs: 8 steps, large ones, so that something moves."""
    tree: dict[str, Any] = {
        "model": str(model),
        "data": "rows.jsonl",
        "out": str(out),
        "seed": 5,
        "objective": {"name": "apo_hinge_zero", "beta": 0.5, "margin": 1.0},
        "train": {"epochs": 2, "batch_pairs": 4, "learning_rate": 5e-3, "save_every": 3, "weight_decay": 0.01},
        "engine": {"pack_tokens": 64, "device": "cpu", "dtype": "float32", "threads": 1},
    }
    return configuration.resolve(configuration.merge(tree, sections))


def prepare(config: Config, pairs: Sequence[TokenPair], heldout: Sequence[TokenPair] = ()) -> Folder:
    """The data folder as the prepare stage leaves it."""
    folder = set_up(config).folder

    def write(into: Path) -> None:
        store.write_jsonl(into / "train.jsonl", [pair.to_json() for pair in pairs])
        store.write_jsonl(into / "heldout.jsonl", [pair.to_json() for pair in heldout])
        store.write_json(into / "audit.json", {"template": "plain"})

    store.commit_folder(folder.data, write)
    return folder


def align(
    config: Config, *, n: int = 16, held: int = 4, reporter: Recorder | None = None, seed: int = 0
) -> tuple[Folder, Recorder]:
    """Prepare, reference, train."""
    reporter = reporter or Recorder()
    folder = set_up(config).folder
    if not folder.data.exists():
        prepare(config, make_pairs(n, seed=seed), make_pairs(held, seed=seed + 1, name="held"))
    reference.main(set_up(config), reporter=reporter)
    train.main(set_up(config), reporter=reporter)
    return folder, reporter


class Recorder:
    """A reporter that remembers what was said, and may be told to act after so many steps of training."""

    def __init__(self, *, at: int | None = None, act: Any = None) -> None:
        self.lines: list[str] = []
        self.tracked: dict[str, int] = {}
        self._at, self._act = at, act

    def say(self, line: str, /) -> None:
        self.lines.append(line)

    @contextmanager
    def track(  # as the protocol has it
        self,
        description: str,
        /,
        *,
        total: int | None,  # noqa: ARG002 - see above
        unit: str,  # noqa: ARG002 - see above
        n_done: int = 0,
    ) -> Iterator[Advance]:
        self.tracked[description] = n_done

        def advance(n: int = 1, /, **figures: Figure) -> None:
            self.tracked[description] += n
            if description == "training" and self.tracked[description] == self._at:
                self._act()

        yield advance


def weights(folder: Folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (file,) = folder.model.glob("*.safetensors")
    return load_file(file)


def without_clock(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics less what depends on the machine's speed and history."""
    clock = {"seconds", "step_seconds", "tokens_per_second", "peak_memory_bytes"}
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


def same_training(one: Folder, two: Folder) -> None:
    """Bit-identical weights, metrics and held-out rewards."""
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    assert without_clock(store.read_jsonl(one.metrics)) == without_clock(store.read_jsonl(two.metrics))
    assert store.read_jsonl(one.visits) == store.read_jsonl(two.visits)
    assert store.read_json(one.heldout) == store.read_json(two.heldout)
    assert store.read_json(one.selection) == store.read_json(two.selection)
