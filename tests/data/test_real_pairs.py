"""Data and tokenizers that nobody here wrote: all rows accounted for, and counts pinned as they were seen and read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from trimtab.data.audit import Auditor, audit
from trimtab.data.audit_result import Audit
from trimtab.data.chat import ChatTemplate
from trimtab.data.formats import detect_format
from trimtab.data.loading import load_chat_template
from trimtab.data.sources import read_rows
from trimtab.records import TokenPair

pytestmark = pytest.mark.needs_shared

# file: (shape, rows, dropped by reason, share with chosen longer among kept rows, to three digits)
SETS: dict[str, tuple[str, int, dict[str, int], float]] = {
    "ukp-convarg1-strict/pairs.jsonl": ("explicit", 11_650, {"duplicate": 196, "contradictory": 22}, 0.772),
    "finegrained-rlhf-dev/pairs.jsonl": ("explicit", 2_616, {}, 0.511),
    "hh-rlhf-harmless-base-test/test.jsonl.gz": (
        "transcript", 2_312, {"prompt_mismatch": 5, "empty_response": 4, "wrong_roles": 4}, 0.444,
    ),
    "llamafactory-dpo-en-demo/dpo_en_demo.json": ("sharegpt", 299, {"duplicate": 5}, 0.439),
}  # fmt: skip
# model: (its window, end-of-turn id, ids that stop generation)
MODELS = {"stories260K": (512, 1, (1, 2)), "cardputer-chat-3M": (256, 14_018, (14_018,))}


@pytest.mark.parametrize("name", SETS)
def test_every_row_of_a_real_set_is_accounted_for(name: str, shared_data: Path) -> None:
    shape, n_rows, dropped, longer = SETS[name]
    rows = read_rows(str(shared_data / "pairs" / name))
    found_shape = detect_format(rows.head, source=rows.source)
    found = audit(found_shape.to_record(row_id, row) for row_id, row in rows)
    assert found_shape.name == shape
    assert found.n_rows == n_rows
    assert {reason.value: count for reason, count in found.dropped_by_reason.items()} == dropped
    assert found.n_kept == n_rows - sum(dropped.values())
    assert found.bias["characters"].chosen_longer == pytest.approx(longer, abs=5e-4)
    assert found.dropped_share < 0.05, "a run may start on it"


@pytest.fixture(scope="session", params=MODELS)
def model(request: pytest.FixtureRequest, shared_data: Path) -> tuple[str, ChatTemplate]:
    name: str = request.param
    return name, load_chat_template(str(shared_data / "models" / name), offline=True)


def test_the_ends_of_real_models(model: tuple[str, ChatTemplate]) -> None:
    name, template = model
    _, end, stops = MODELS[name]
    assert (template.end_id, template.stop_ids) == (end, stops)


@pytest.mark.parametrize("name", SETS)
def test_real_sets_with_real_tokenizers(name: str, model: tuple[str, ChatTemplate], shared_data: Path) -> None:
    model_name, template = model
    window, end, _ = MODELS[model_name]
    rows = read_rows(str(shared_data / "pairs" / name), limit=150)
    shape = detect_format(rows.head, source=rows.source)
    auditor, kept = Auditor(), []
    for row_id, row in rows:
        pair = auditor.see(shape.to_record(row_id, row))
        if pair is None:
            continue
        outcome = template.tokenize_pair(
            pair,
            max_prompt_tokens=window // 2,
            max_response_tokens=window // 2,
            max_tokens=window,
            min_response_tokens=16,
        )
        tokens = auditor.see_tokens(outcome)
        if tokens is not None:
            kept.append(tokens)
    found = auditor.finish(decode=template.decode)
    kept = [tokens for tokens in kept if tokens.id not in found.dropped_ids]
    assert (found.n_rows, found.n_kept) == (150, len(kept))
    assert found.n_kept >= 100
    assert found.sample is not None
    assert found.sample.id == kept[0].id
    _check(kept, found, end=end, window=window)


def _check(kept: list[TokenPair], found: Audit, *, end: int, window: int) -> None:
    for tokens in kept:
        for ids, cut in ((tokens.chosen_ids, tokens.chosen_cut), (tokens.rejected_ids, tokens.rejected_cut)):
            assert 1 <= len(ids) <= window // 2
            assert len(tokens.prompt_ids) + len(ids) <= window
            assert ids.count(end) == (0 if cut else 1)
            assert cut or ids[-1] == end
    cuts = Counter(tokens.chosen_cut for tokens in kept)
    assert found.cut_shares["chosen"] == pytest.approx(cuts[True] / len(kept))


def test_the_first_row_as_real_models_see_it(model: tuple[str, ChatTemplate], shared_data: Path) -> None:
    name, template = model
    rows = read_rows(str(shared_data / "pairs" / "ukp-convarg1-strict" / "pairs.jsonl"), limit=1)
    pair = detect_format(rows.head, source=rows.source).to_record("pairs.jsonl:1", rows.head[0])
    found = audit(
        [pair],
        tokenize=lambda one: template.tokenize_pair(one, max_prompt_tokens=200, max_response_tokens=300),
        decode=template.decode,
    )
    prompt = "Debate: ban plastic water bottles\nSide: no bad for the economy\nArgument:"
    rejected = "jesus loves plastic water bottles, and you cant argue with that logic"
    assert found.sample is not None
    if name == "stories260K":
        assert found.sample.prompt == f"<s> {prompt}\n"
        assert found.sample.rejected == f"{rejected}<s>"
    else:
        assert found.sample.prompt == f"User: {prompt}\nBot:"
        assert found.sample.rejected == f" {rejected}<|endoftext|>"
