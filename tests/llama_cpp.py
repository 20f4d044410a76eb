"""llama.cpp's own server in an environment of its own (`make test-all` sets it up), and texts to compare on."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-llamacpp" / "bin" / "python"
REAL = ROOT / ".real" / "SmolLM2-135M-Instruct.Q4_1.gguf"
needs_llama_cpp = pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-llamacpp (make test-all sets it up)")
needs_real_model = pytest.mark.skipif(
    not REAL.exists(), reason="needs .real/SmolLM2-135M-Instruct.Q4_1.gguf (`make test` fetches it where it can)"
)

# fp32 keys and values and no fused attention: the weights' own precision is what is compared
_SERVER = """
import sys, xllamacpp as x
p = x.CommonParams()
p.model.path = sys.argv[1]
p.n_ctx, p.n_parallel, p.warmup = 1024, 1, False
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = x.Server(p)
print("ADDRESS " + server.listening_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Server:
    address: str

    def tokenize(self, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": True}
        ids: list[int] = self._post("/tokenize", body)["tokens"]
        return ids

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """Ids of the likeliest continuation."""
        answer = self._complete(ids, n_predict=n, n_probs=1)
        return [row["id"] for row in answer]

    def next_logprobs(self, ids: Sequence[int], n: int) -> dict[int, float]:
        """Log-probs (nats) of the `n` likeliest next tokens."""
        (row,) = self._complete(ids, n_predict=1, n_probs=n)
        return {entry["id"]: entry["logprob"] for entry in row["top_logprobs"]}

    def _complete(self, ids: Sequence[int], **options: int) -> list[dict[str, Any]]:
        body = {"prompt": list(ids), "temperature": 0, "top_k": 1, "cache_prompt": False, **options}
        rows: list[dict[str, Any]] = self._post("/completion", body)["completion_probabilities"]
        return rows

    def _post(self, route: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310  # loopback
            self.address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310  # loopback
            return json.load(answer)


@contextmanager
def serving(model: Path) -> Iterator[Server]:
    process = subprocess.Popen(
        [PYTHON, "-c", _SERVER, model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = next((line.split()[1] for line in process.stdout if line.startswith("ADDRESS ")), None)
        assert address is not None, f"llama.cpp does not load {model}"
        yield Server(address.rstrip("/"))
    finally:
        process.communicate("")


_PIECES = (
    "12345", "3.14159", "  ", "   ", "\n", "\n\n", "\t", "def f(x_1):\n    return x**2  # ok", "Ünïcöde",
    "e\u0301", "ﬁ", "½", "漢字かな", "한국어", "Добрый день", "שלום", "مرحبا", "हिन्दी", "ไทย",
    "👩‍👩‍👧🙂", "\u00a0", "\u2003", "\u200b", "I'LL", "don't", "'RE", "...!!!", "1,000,000",
    "a_b-c/d@e.f?g=h&i=1", "\r\n", "٣٤٥", "x²", "Ⅷ", "if(a&&b){", "};", "<b>", "</think>", " \n ",
    "ABC def GHI", "iPhone15Pro", "<|im_start|>user\n", "<|im_end|>\n", "[INST]", "\x7f", "𝒳𝓎", "ǅ", "ß",
)  # fmt: skip


def texts(shared: Path, n: int) -> list[str]:
    """Real responses and transcripts for two thirds, then digits, code, white space, scripts and marks at random."""
    pairs, draw = shared / "pairs", random.Random(0)  # noqa: S311  # repeatable on purpose
    with (pairs / "ukp-convarg1-strict" / "pairs.jsonl").open() as file:
        real = [json.loads(line)["chosen"] for line in file.readlines()[::80]]
    with gzip.open(pairs / "hh-rlhf-harmless-base-test" / "test.jsonl.gz", "rt") as file:
        real += [json.loads(line)["chosen"] for line in list(file)[::18]]
    draw.shuffle(real)
    mixed = ("".join(draw.choices(_PIECES, k=draw.randint(1, 9))) for _ in range(n))
    return [*real[: 2 * n // 3], *mixed][:n]
