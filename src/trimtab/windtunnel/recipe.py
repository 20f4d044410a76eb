"""Train the wind tunnel's chat model from nothing.

    python -m trimtab.windtunnel.recipe --out DIR [--size small|base|large] [--steps N] [--seed N]

`base` is the model that is shipped; the others are for the question whether a finding holds at another size. Writes a
plain transformers folder. Deterministic by seed on one machine and thread count. The demonstrations are drawn as they
are needed: outside of the small families hardly a row is seen twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trimtab.windtunnel.demonstrations import answer, demonstration
from trimtab.windtunnel.oracle import score
from trimtab.windtunnel.tokenizer import build_tokenizer
from trimtab.windtunnel.world import FAMILIES, Task, luck, tasks

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer


@dataclass(frozen=True, slots=True)
class Size:
    """The dimensions of a Qwen2 decoder; every head has 40 of them, two query heads share a key head.

    A wider model bears a smaller learning rate, in proportion to 1 / width: at base's rate large learned the lessons
    worse than small did.
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    lessons_learning_rate: float = 3e-3


SIZES: Final = {
    "small": Size(hidden=80, inner=224, layers=3, heads=2),  # 0.30 million parameters
    "base": Size(hidden=160, inner=448, layers=4, heads=4),  # 1.33
    "large": Size(hidden=240, inner=672, layers=4, heads=6, lessons_learning_rate=2e-3),  # 2.88
}
STEPS: Final = 4600  # about 16 minutes on one core
BATCH: Final = 48  # rows
# Two courses, each with its own warmup and cosine: lessons (right answers without dressing), then demonstrations of
# mixed quality at a lower rate. Without lessons the same time leaves copying and facts unlearned, because flawed and
# polite tokens drown the few that carry a fact; at the lessons' rate the second course forgets much of the first.
LESSONS: Final = 0.7  # share of the steps
LESSONS_DEMONSTRATED: Final = 0.15  # share of the lessons' rows that are demonstrations already: a softer change
DEMONSTRATIONS_LEARNING_RATE: Final = 6e-4  # a fifth of the lessons', see above
WARMUP: Final = 0.05  # of a course
WEIGHT_DECAY: Final = 0.01  # AdamW's, on matrices
# Batches are cut from a pool sorted by length, so that little padding is computed.
POOL: Final = 8
MAX_NEW_TOKENS: Final = 64  # of an answer to the world's tasks

Row = tuple[list[int], list[int]]  # ids of the prompt with the assistant header; ids of the response with its end


def train(
    *, steps: int = STEPS, seed: int = 0, log_every: int = 0, size: Size = SIZES["base"]
) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """Tokenizer and model from nothing, `steps` optimizer steps of `BATCH` rows each; prints every `log_every`."""
    import torch

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(seed=seed)
    model = _fresh_model(tokenizer, size)
    lessons = round(LESSONS * steps)
    for plain, course_steps, rate in (
        (True, lessons, size.lessons_learning_rate),
        (False, steps - lessons, DEMONSTRATIONS_LEARNING_RATE),
    ):
        batches = islice(_batches(tokenizer, seed=seed, plain=plain), course_steps)
        name = "lessons" if plain else "demonstrations"
        _course(model, batches, name=name, steps=course_steps, learning_rate=rate, log_every=log_every)
    return model.eval(), tokenizer


def _course(
    model: Qwen2ForCausalLM,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    name: str,
    steps: int,
    learning_rate: float,
    log_every: int,
) -> None:
    """One pass over `steps` batches with a fresh AdamW."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=WARMUP)
    model.train()
    start, smooth = time.monotonic(), float("nan")
    for step, (ids_RT, labels_RT) in enumerate(batches, start=1):
        # Padding stands on the right of a causal model: no attention mask is needed.
        loss = model(input_ids=ids_RT, labels=labels_RT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if step == 1 else 0.98 * smooth + 0.02 * loss.item()
        if log_every and (step % log_every == 0 or step == steps):
            _say(f"{name} {step}/{steps}  loss {smooth:.3f}  {time.monotonic() - start:.0f} s")


def _fresh_model(tokenizer: Qwen2Tokenizer, size: Size) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights."""
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_NEW_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return model


def _prompt_ids(tokenizer: Qwen2Tokenizer, task: Task) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": task.prompt}], add_generation_prompt=True, tokenize=False
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _rows(tokenizer: Qwen2Tokenizer, *, seed: int, plain: bool) -> Iterator[Row]:
    """Mostly right answers (`plain`) or demonstrations without end, as ids."""
    rng = luck("trimtab recipe", seed, plain)
    while True:
        for task in tasks(1024, seed=rng.getrandbits(32), split="train"):
            text = (
                answer(task, rng, mode="right")
                if plain and rng.random() >= LESSONS_DEMONSTRATED
                else demonstration(task, rng)
            )
            response = tokenizer(text, add_special_tokens=False)["input_ids"]
            yield _prompt_ids(tokenizer, task), [*response, tokenizer.eos_token_id]


def _batches(tokenizer: Qwen2Tokenizer, *, seed: int, plain: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, labels) of `BATCH` rows of similar length each, padded on the right; labels are -100 outside responses."""
    import torch

    rows, rng = _rows(tokenizer, seed=seed, plain=plain), luck("trimtab batches", seed)
    while True:
        pool = sorted((next(rows) for _ in range(BATCH * POOL)), key=lambda row: len(row[0]) + len(row[1]))
        starts = list(range(0, len(pool), BATCH))
        rng.shuffle(starts)
        for start in starts:
            batch = pool[start : start + BATCH]
            width = max(len(prompt) + len(response) for prompt, response in batch)
            ids = torch.full((BATCH, width), tokenizer.pad_token_id)
            labels = torch.full((BATCH, width), -100)
            for i, (prompt, response) in enumerate(batch):
                end = len(prompt) + len(response)
                ids[i, :end] = torch.tensor(prompt + response)
                labels[i, len(prompt) : end] = torch.tensor(response)
            yield ids, labels


def answers(
    model: Any, tokenizer: Qwen2Tokenizer, questions: tuple[Task, ...], *, temperature: float, seed: int
) -> list[str]:
    """One answer a task, by transformers' own `generate`; `temperature` 0 is greedy."""
    import torch

    torch.manual_seed(seed)
    # Greedy decoding warns about sampling settings that the model carries, so it clears them.
    greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else greedy
    out: list[str] = []
    for start in range(0, len(questions), 200):
        prompts = [_prompt_ids(tokenizer, task) for task in questions[start : start + 200]]
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, **sampling)
        out += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return out


def figures(
    model: Any, tokenizer: Qwen2Tokenizer, *, n: int = 800, temperature: float = 1.0, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """(mean true score, share of wholly right answers, mean words) by family and under 'all', on `eval` tasks."""
    questions = tasks(n, seed=seed, split="eval")
    by: dict[str, list[tuple[float, float, float]]] = {family: [] for family in ("all", *FAMILIES)}
    for task, text in zip(
        questions, answers(model, tokenizer, questions, temperature=temperature, seed=seed), strict=True
    ):
        true = score(task, text)
        for group in ("all", task.family):
            by[group].append((true.total, float(true.total == 1.0), float(len(text.split()))))
    return {g: (_mean(x[0] for x in v), _mean(x[1] for x in v), _mean(x[2] for x in v)) for g, v in by.items()}


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> None:
    """Train, save into `--out`, and print the figures of the model card."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.windtunnel.recipe", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model; made if absent")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", type=int, default=800, help="held-out prompts to score at the end")
    words = parser.parse_args(argv)
    model, tokenizer = train(
        steps=words.steps, seed=words.seed, log_every=max(1, min(200, words.steps // 5)), size=SIZES[words.size]
    )
    model.save_pretrained(words.out)
    tokenizer.save_pretrained(words.out, save_jinja_files=False)
    for temperature in (1.0, 0.0):
        _say(f"temperature {temperature}: family, mean true score, share wholly right, mean words")
        for family, row in figures(model, tokenizer, n=words.figures, temperature=temperature).items():
            _say(f"  {family:<12}{row[0]:.3f}  {row[1]:.3f}  {row[2]:.1f}")


if __name__ == "__main__":
    main()
