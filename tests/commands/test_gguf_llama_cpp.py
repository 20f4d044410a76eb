"""GGUF in and out against the real llama.cpp: the ids of real texts, greedy answers, log-probs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gguf_files
import llama_cpp
from llama_cpp import needs_llama_cpp, needs_real_model
from trimtab.engine import gguf_model, gguf_tokenizer, models
from trimtab.engine.gguf_file import GgufFile
from trimtab.runtime import gguf_export
from trimtab.tokenizer_files import load_tokenizer

pytestmark = [pytest.mark.slow, needs_llama_cpp, needs_real_model]
QUESTIONS = (
    "What is the capital of France?", "Name three colours.", "Write a line about the sea.", "What is 12 + 30?",
    "Who wrote Hamlet?", "How do birds fly?", "Translate 'good day' into Spanish.", "Why is the sky blue?",
)  # fmt: skip
NEAR = 0.05  # nats between the two best tokens: rounding may choose either


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_HOME", str(tmp_path_factory.mktemp("home")))
        return gguf_model.plain_folder(llama_cpp.REAL)


@pytest.mark.needs_shared
def test_a_real_file_gives_the_ids_that_llama_cpp_gives(real_folder: Path, shared_data: Path) -> None:
    tokenizer = load_tokenizer(str(real_folder), offline=True)
    texts = llama_cpp.texts(shared_data, 500)
    with llama_cpp.serving(llama_cpp.REAL) as server:
        different = [text for text in texts if tokenizer(text)["input_ids"] != server.tokenize(text)]
    assert len(texts) == 500
    assert different == []


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", sorted(set(gguf_tokenizer.KNOWN_SPLITS)))
def test_each_way_to_split_is_llama_cpps(tmp_path: Path, shared_data: Path, name: str) -> None:
    """The same real vocabulary under each name that is known here; composed text, since NFC is the families' own."""
    fields = GgufFile.read(llama_cpp.REAL).fields
    vocabulary = {key: fields[f"tokenizer.ggml.{key}"] for key in ("tokens", "merges", "token_type")}
    path = gguf_files.write(
        tmp_path / "tiny.gguf", gguf_files.model(vocab_size=len(vocabulary["tokens"])),
        fields={f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()} | {"tokenizer.ggml.pre": name},
    )  # fmt: skip
    pipeline = gguf_tokenizer.pipeline(GgufFile.read(path))
    texts = [text for text in llama_cpp.texts(shared_data, 200) if "\u0301" not in text]
    with llama_cpp.serving(path) as server:
        different = [t for t in texts if pipeline.encode(t, add_special_tokens=False).ids != server.tokenize(t)]
    assert different == []


@pytest.mark.needs_shared
def test_an_exported_model_answers_and_tokenises_as_it_does_here(
    real_folder: Path, shared_data: Path, tmp_path: Path
) -> None:
    loaded = models.load(str(real_folder), dtype="float32", device="cpu", offline=True)
    tokenizer = loaded.tokenizer
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True)["input_ids"]
        for q in QUESTIONS
    ]
    trained = [greedy(loaded.model, prompt, 32) for prompt in prompts]
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        for text in llama_cpp.texts(shared_data, 50)
    ]
    texts = [*chats, *llama_cpp.texts(shared_data, 150)]
    for quantize in ("f32", "f16"):
        exported = gguf_export.export(real_folder, tmp_path / quantize, quantize=quantize, name="smol")
        assert exported.notes == ()
        with llama_cpp.serving(tmp_path / quantize / f"smol-{quantize}.gguf") as server:
            for prompt, (ids, gaps) in zip(prompts, trained, strict=True):
                n = next((place for place, gap in enumerate(gaps) if gap < NEAR), len(ids))
                assert server.greedy(prompt, n)[:n] == ids[:n] if n else True
            assert [t for t in texts if tokenizer(t)["input_ids"] != server.tokenize(t)] == []


def greedy(model: Any, prompt: list[int], n: int) -> tuple[list[int], list[float]]:
    """The likeliest continuation, up to an end, and how far (nats) the second best token is from each."""
    ids, gaps = list(prompt), []
    for _ in range(n):
        with torch.no_grad():
            best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        if ids[-1] == 2 and len(ids) > len(prompt):
            break
        ids.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
    return ids[len(prompt) :], gaps


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_log_probs_of_other_families_survive_the_way_out(real_folder: Path, tmp_path: Path, family: str) -> None:
    """Tiny shapes with random weights and a vocabulary that the converter knows; fp32; and back in again."""
    model, ids = tiny(family), torch.randint(20, 49_000, (8, 24), generator=torch.Generator().manual_seed(1))
    folder = tmp_path / "model"
    folder.mkdir()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((real_folder / name).read_bytes())
    gguf_export.export(folder, tmp_path / "out", quantize="f32", name=family)
    file = tmp_path / "out" / f"{family}-f32.gguf"
    with torch.no_grad():
        expected = model(ids).logits[:, -1].log_softmax(-1)
        if family == "gemma3":
            for layer in model.model.layers:
                layer.mlp.act_fn = HalfGelu(layer.mlp.act_fn)
        theirs = model(ids).logits[:, -1].log_softmax(-1)
    with llama_cpp.serving(file) as server:
        for row, logprobs in zip(ids.tolist(), theirs, strict=True):
            for token, value in server.next_logprobs(row, 50).items():
                assert float(logprobs[token]) == pytest.approx(value, abs=1e-3)
    back = models.load(str(gguf_model.plain_folder(file)), dtype="float32", device="cpu", offline=True).model
    with torch.no_grad():
        torch.testing.assert_close(back(ids).logits[:, -1].log_softmax(-1), expected, rtol=0, atol=1e-5)


class HalfGelu(torch.nn.Module):
    """GELU as llama.cpp has it on a CPU: looked up in a table of half-precision numbers, whatever the file's are. Tiny
    Gemma-3 is 1.05e-3 nats away without it and 5.6e-4 with it (means 3.2e-4 and 8.4e-5)."""

    def __init__(self, exact: torch.nn.Module) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = self.exact(x.half().float()).half().float()
        return torch.where(x <= -10, 0.0, torch.where(x >= 10, x, values))


def tiny(family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    words = {
        "vocab_size": 49_152, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }  # fmt: skip
    if family == "gemma3":  # the sixth layer sees everything, the others a window
        words |= {"num_hidden_layers": 7, "sliding_window": 16, "query_pre_attn_scalar": 32}
    torch.manual_seed(0)
    name = {"gemma3": "gemma3_text"}.get(family, family)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **words)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            is_norm = parameter.dim() == 1
            parameter.copy_(torch.randn_like(parameter) * (0.3 if is_norm else 0.1) + (is_norm and family != "gemma3"))
    return model
