"""Batched decoding against transformers' own `generate`, one prompt at a time, and against itself."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.errors import ConfigError, DataError, NumericsError
from trimtab.sampling import Sampled, lay_for_decoding, sample

Build = Callable[[str], Any]


def random_prompts(n: int, *, longest: int, vocabulary: int = 97, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)  # noqa: S311 - test data
    return [[draw.randrange(5, vocabulary) for _ in range(draw.randrange(1, longest))] for _ in range(n)]


def one_by_one(
    model: Any, prompts: Sequence[Sequence[int]], *, stop_ids: Collection[int], max_new_tokens: int, **settings: Any
) -> list[Sampled]:
    """Greedy answers from `generate`: no batch, no padding."""
    window = model.config.max_position_embeddings
    answers = []
    for prompt in prompts:
        row = torch.tensor([prompt])
        out = model.generate(
            row,
            attention_mask=torch.ones_like(row),
            do_sample=False,
            max_new_tokens=min(max_new_tokens, window - len(prompt)),
            eos_token_id=sorted(stop_ids),
            pad_token_id=0,
            **settings,
        )[0, len(prompt) :].tolist()
        finished = out[-1] in stop_ids
        answers.append(Sampled(tuple(out[:-1] if finished else out), finished))
    return answers


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2", "gemma3", "gpt2", "gpt_neo", "lfm2"])
def test_greedy_equals_generate_one_by_one(small_model: Build, family: str) -> None:
    model = small_model(family)
    prompts = random_prompts(10, longest=30)
    stop_ids = set(range(10))
    expected = one_by_one(model, prompts, stop_ids=stop_ids, max_new_tokens=20)
    assert {answer.finished for answer in expected} == {True, False}  # both ways out are on trial
    for batch_tokens in (200, 10_000):  # a few rows, all rows
        answers = sample(model, prompts, stop_ids=stop_ids, max_new_tokens=20, temperature=0, batch_tokens=batch_tokens)
        assert answers == expected


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo"])
def test_learned_positions_end_at_the_window(small_model: Build, family: str) -> None:
    """Rows of every length run into the window of 48 in one batch, each at its own step."""
    model = small_model(family)
    prompts = [prompt * 3 for prompt in random_prompts(12, longest=15, seed=1)] + [[7]]
    expected = one_by_one(model, prompts, stop_ids=(), max_new_tokens=1000)
    answers = sample(model, prompts, stop_ids=(), max_new_tokens=1000, temperature=0)
    assert answers == expected
    assert [len(prompt) + len(answer.ids) for prompt, answer in zip(prompts, answers, strict=True)] == [48] * 13
    assert not any(answer.finished for answer in answers)


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["stories260K", "cardputer-chat-3M"])
def test_greedy_equals_generate_on_real_models(shared_data: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared_data / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["Once upon a time", "Hello", "The dog was", "Tell me a story about a cat.", "One day, Lily", "What is"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    stop_ids = {model.config.eos_token_id}
    settings: dict[str, Any] = {"max_new_tokens": 32, "repetition_penalty": 1.1}
    expected = one_by_one(model, prompts, stop_ids=stop_ids, **settings)
    assert sample(model, prompts, stop_ids=stop_ids, temperature=0, **settings) == expected


def test_answers_do_not_depend_on_the_batch(small_model: Build) -> None:
    model = small_model("qwen2")
    prompts = random_prompts(16, longest=25)
    settings: dict[str, Any] = {
        "stop_ids": {2, 3, 4},
        "max_new_tokens": 20,
        "temperature": 0.7,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "seed": 3,
    }
    together = sample(model, prompts, **settings)
    assert together == sample(model, prompts, **settings)
    assert together == sample(model, prompts, batch_tokens=1, **settings)
    assert together == sample(model, prompts, batch_tokens=5 * 45, **settings)
    backwards = sample(model, prompts[::-1], streams=range(15, -1, -1), **settings)
    assert together == backwards[::-1]
    assert together != sample(model, prompts, **{**settings, "seed": 4})


def test_equal_prompts_in_different_streams_differ(small_model: Build) -> None:
    answers = sample(small_model("qwen2"), [[5, 6, 7]] * 8, stop_ids=(), max_new_tokens=12, temperature=1.0)
    assert len({answer.ids for answer in answers}) == 8


def test_first_tokens_are_drawn_as_often_as_the_model_says(small_model: Build) -> None:
    """Pearson's statistic of 4,000 draws over tokens expected at least five times: mean df, sd sqrt(2 df)."""
    model = small_model("qwen2")
    prompt = [11, 12, 13]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1].double() / 1.5
    expected = 4000 * logits.softmax(-1).numpy()
    answers = sample(model, [prompt] * 4000, stop_ids=(), max_new_tokens=1, temperature=1.5, seed=11)
    observed = np.bincount([answer.ids[0] for answer in answers], minlength=97).astype(float)
    common = expected >= 5
    assert observed[expected < 0.001].sum() == 0
    if (~common).any():
        expected = np.append(expected[common], expected[~common].sum())
        observed = np.append(observed[common], observed[~common].sum())
    freedom = len(expected) - 1
    assert freedom >= 5
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


def counting_rows(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, columns) of every forward pass from now on."""
    passes: list[tuple[int, int]] = []
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    counted.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]  # functions carry it
    monkeypatch.setattr(model, "forward", counted)
    return passes


def test_finished_rows_leave_the_cache(small_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long answer must cost one row: the rows of each forward pass shrink to the rows that still live."""
    model = small_model("qwen2")
    passes = counting_rows(model, monkeypatch)
    answers = sample(model, random_prompts(64, longest=9), stop_ids=range(30), max_new_tokens=40, temperature=2.0)
    steps = [len(answer.ids) + answer.finished for answer in answers]
    live = [sum(taken > step for taken in steps) for step in range(max(steps))]
    rows = [row for row, _ in passes]
    assert rows[0] == 64
    assert rows[-1] < 8
    assert all(held * 0.8 <= alive <= held for held, alive in zip(rows, live, strict=True))


def test_one_long_answer_holds_up_nobody(small_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 answers of 4 tokens pass beside one of 100 in a batch of 4 rows: about 100 steps, not 100 and 8 times 4."""
    model = small_model("qwen2")
    passes = counting_rows(model, monkeypatch)
    limits = [100] + [4] * 32
    order: list[int] = []
    answers = sample(
        model,
        [[5, 6, 7]] * 33,
        stop_ids=(),
        max_new_tokens=limits,
        batch_tokens=4 * 103,
        on_done=lambda index, _: order.append(index),
    )
    assert [len(answer.ids) for answer in answers] == limits
    assert order[-1] == 0, "all others are complete before the long one"
    assert max(rows for rows, _ in passes) <= 4
    steps = sum(columns == 1 for _, columns in passes)
    assert 99 <= steps <= 115


def test_prompts_are_read_beside_prompts_of_their_length(small_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 9 prompts with 60 tokens and 20 with 10, the short ones do not fill 50 columns with padding."""
    model = small_model("qwen2")
    passes = counting_rows(model, monkeypatch)
    prompts = [[5] * 10] * 20 + [[6] * 60] * 9
    sample(model, prompts, stop_ids=(), max_new_tokens=2)
    assert passes == [(9, 60), (20, 10), (29, 1)]


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "gpt2", "gpt_neo", "lfm2"])
def test_rows_that_join_say_what_they_say_alone(small_model: Build, family: str) -> None:
    """Prompts of 1 to 30 tokens, answers of 1 to 17, four to eight rows at a time: many joins, crops and moves."""
    model = small_model(family)
    draw = random.Random(3)  # noqa: S311 - test data
    prompts = random_prompts(40, longest=30, seed=2)
    limits = [draw.randrange(1, 18) for _ in prompts]
    heat = [draw.choice([0.0, 0.7, 1.3]) for _ in prompts]
    settings: dict[str, Any] = {"stop_ids": range(4), "seed": 9}
    together = sample(model, prompts, max_new_tokens=limits, temperature=heat, batch_tokens=200, **settings)
    for number in range(0, 40, 3):
        [alone] = sample(
            model,
            [prompts[number]],
            max_new_tokens=limits[number],
            temperature=heat[number],
            streams=[number],
            **settings,
        )
        assert together[number] == alone
    assert {len(answer.ids) for answer in together if not answer.finished} <= set(limits)


def test_greedy_and_sampled_rows_share_a_batch(small_model: Build) -> None:
    model, prompts = small_model("llama"), random_prompts(8, longest=12)
    settings: dict[str, Any] = {"stop_ids": {2}, "max_new_tokens": 12, "seed": 1}
    greedy = sample(model, prompts, temperature=0, **settings)
    warm = sample(model, prompts, temperature=1.5, **settings)
    mixed = sample(model, prompts, temperature=[0, 1.5] * 4, **settings)
    assert mixed == [(warm if number % 2 else greedy)[number] for number in range(8)]
    assert all(cold != hot for cold, hot in zip(greedy, warm, strict=True))


def test_every_step_is_counted_and_may_end_the_work(small_model: Build) -> None:
    model, prompts = small_model("qwen2"), random_prompts(9, longest=12)
    settings: dict[str, Any] = {"stop_ids": range(12), "max_new_tokens": 15}
    counts: list[tuple[int, int]] = []
    answers = sample(model, prompts, on_step=lambda *count: counts.append(count), **settings)
    assert sum(given for given, _ in counts) == sum(len(answer.ids) + answer.finished for answer in answers)
    assert sum(read for _, read in counts) == sum(map(len, prompts))
    done: dict[int, Sampled] = {}

    def ends(_n_given: int, _n_read: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(model, prompts, on_step=ends, on_done=done.__setitem__, **settings)
    assert 0 < len(done) < 9
    assert all(answers[index] == answer for index, answer in done.items())


def test_weights_laid_out_for_decoding_give_the_same_answers_and_stay_tied(small_model: Build) -> None:
    model, prompts = small_model("qwen2"), random_prompts(6, longest=12)
    model.lm_head.weight = model.model.embed_tokens.weight
    settings: dict[str, Any] = {"stop_ids": {2}, "max_new_tokens": 12, "seed": 1}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = sample(model, prompts, **settings)
    lay_for_decoding(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.lm_head.weight.T.is_contiguous()
    assert model.model.layers[0].mlp.down_proj.weight.T.is_contiguous()
    assert sample(model, prompts, **settings) == expected


def test_answers_arrive_when_they_are_complete_and_return_in_order(small_model: Build) -> None:
    arrived: list[tuple[int, Sampled]] = []
    prompts = random_prompts(12, longest=20)
    answers = sample(
        small_model("llama"),
        prompts,
        stop_ids=range(12),
        max_new_tokens=25,
        batch_tokens=200,
        on_done=lambda index, answer: arrived.append((index, answer)),
    )
    assert sorted(index for index, _ in arrived) == list(range(12))
    assert [answers[index] for index, _ in arrived] == [answer for _, answer in arrived]
    assert all(not set(answer.ids) & set(range(12)) for answer in answers)
    assert [index for index, _ in arrived] != list(range(12))


def test_the_model_comes_back_as_it_was(small_model: Build) -> None:
    """Training mode per module, gradients, dropout and a packed attention implementation survive; and train on."""
    from transformers import AttentionInterface

    def never(*args: object, **kwargs: object) -> object:
        raise AssertionError("decoding used the attention of training")

    AttentionInterface.register("sampling_test_packed", never)
    model = small_model("llama")
    expected = sample(model, [[5, 6]], stop_ids=(), max_new_tokens=5, temperature=0)
    model.train()
    model.model.norm.eval()
    model.set_attn_implementation("sampling_test_packed")
    assert sample(model, [[5, 6]], stop_ids=(), max_new_tokens=5, temperature=0) == expected
    assert model.config._attn_implementation == "sampling_test_packed"
    assert model.training
    assert model.model.layers[0].training
    assert not model.model.norm.training
    with pytest.raises(AssertionError, match="attention of training"):
        model(torch.tensor([[5, 6]]))
    model.set_attn_implementation("sdpa")
    model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_an_adapter_decodes_as_its_merged_model(small_model: Build) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    settings: dict[str, Any] = {"stop_ids": {2}, "max_new_tokens": 20, "temperature": 0}
    prompts = random_prompts(6, longest=10)
    base = sample(small_model("qwen2"), prompts, **settings)
    model = get_peft_model(
        small_model("qwen2"), LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    )
    adapted = sample(model, prompts, **settings)
    with model.disable_adapter():
        assert sample(model, prompts, **settings) == base
    merged = sample(model.merge_and_unload(), prompts, **settings)
    assert adapted == merged
    assert adapted != base


def test_wrong_prompts_are_refused_before_anything_is_decoded(small_model: Build) -> None:
    model = small_model("gpt2")
    for prompts, words in (
        ([[5], []], "prompt 1 has no tokens"),
        ([[5] * 48], "prompt 0 has 48 tokens"),
        ([[5, 97]], "prompt 0 holds a token id outside"),
    ):
        with pytest.raises(DataError, match=words) as refusal:
            sample(model, prompts, stop_ids={2}, max_new_tokens=4)
        assert refusal.value.remedy
    for wrong in (
        {"max_new_tokens": 0},
        {"max_new_tokens": [4, 4]},
        {"streams": [1, 2]},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": [0.5, 0.5]},
        {"temperature": [float("inf")]},
        {"batch_tokens": 0},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))) as refused:
            sample(model, [[5]], stop_ids={2}, **{"max_new_tokens": 4, **wrong})  # type: ignore[arg-type]  # the point
        assert refused.value.remedy
    assert sample(model, [], stop_ids={2}, max_new_tokens=4) == []


def test_logits_that_are_not_finite_stop_the_run_and_name_the_prompt(small_model: Build) -> None:
    model = small_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[50] = float("nan")
    with pytest.raises(NumericsError, match="prompt 1 "):
        sample(model, [[5, 6], [5, 50]], stop_ids=(), max_new_tokens=4, temperature=0)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gemma3", "gpt2", "gpt_neo", "lfm2"])
def test_what_all_prompts_begin_with_is_read_once(
    small_model: Build, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """A common beginning of 12 tokens, then 1 to 20 of their own: answers as one by one, fewer columns read."""
    model = small_model(family)
    system = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
    prompts = [[*system, 30 + number, *rest] for number, rest in enumerate(random_prompts(9, longest=19, seed=5))]
    expected = one_by_one(model, prompts, stop_ids={2, 3}, max_new_tokens=9)
    passes = counting_rows(model, monkeypatch)
    assert sample(model, prompts, stop_ids={2, 3}, max_new_tokens=9, temperature=0) == expected
    longest = max(map(len, prompts))
    assert passes[:2] == ([(9, longest), (9, 1)] if family == "lfm2" else [(1, 12), (9, longest - 12)])
