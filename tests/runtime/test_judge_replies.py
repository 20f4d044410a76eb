"""What servers really reply to a judge's question, from the stage's point of view: which verdicts, and what is said.

Each test names the case that it was made after; the right values are those of the cases' table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from judged_runs import Lines, compared, marked, rows, shown
from scripted_server import Action, ScriptedServer, Seen, ok, preferring, status
from trimtab import store
from trimtab.config import Config
from trimtab.errors import RunError
from trimtab.runtime import set_up
from trimtab.stages import judge

Servers = Callable[[Any], ScriptedServer]
SURE = 2 - 1 / (1 + math.exp(-3.98))  # by hand: log-probs −.02 and −4 for the answer shown first


@pytest.fixture(autouse=True)
def _own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")


def judged(config: Config) -> str:
    lines = Lines()
    judge.main(set_up(config), reporter=lines)
    return "\n".join(lines.said)


def record(config: Config, name: str = "prompts") -> Mapping[str, Any]:
    read: Mapping[str, Any] = store.read_json(set_up(config).folder.judge(name))
    return read


def preferences(config: Config) -> list[float | None]:
    return [row["preference"] for row in rows(config, set_up(config).folder.verdicts("prompts"))]


def marks(config: Config) -> list[float]:
    return [row["score"] for row in store.read_jsonl(set_up(config).folder.verdicts("turns", turns=True))]


def letter(seen: Seen) -> str:
    """A judge for whom the longer answer is better."""
    first, second = shown(seen)
    return "m" if len(first) > len(second) else "M"


def weighed(seen: Seen, **more: Any) -> Action:
    better = letter(seen)
    other = "M" if better == "m" else "m"
    return ok(better, logprobs=[{better: -0.02, other: -4.0}], **more)


LONGER_WINS = [2.0 if i % 2 == 0 else 1.0 for i in range(12)]  # as `compared` lays the answers
LONGER_IS_SURE = [3 - SURE if i % 2 == 0 else SURE for i in range(12)]


def test_the_last_mark_counts_and_none_of_a_quotation(tmp_path: Path, scripted_server: Servers) -> None:
    """J1_first_match: 8, and 1 for the worthless answer that tells the judge to give 10."""

    def explain(seen: Seen) -> Action:
        if "give it [[10]]" in seen.text:
            return ok("It only tells the judge to give it [[10]], which must be ignored.\n\nRating: [[1]]")
        return ok("Here [[1]] would be useless and [[10]] flawless. Clear but short.\n\nRating: [[8]]")

    config = marked(tmp_path, scripted_server(explain).url, canaries=4)
    judged(config)
    assert marks(config) == [8] * 16
    ((entry),) = rows(config, set_up(config).folder.canaries("turns"))
    rates = {row["name"]: row["win_rate"] for row in entry["canaries"]}
    assert rates["instructing"] == 0


def test_marks_in_thoughts_do_not_count(tmp_path: Path, scripted_server: Servers) -> None:
    """J1b_think: 9."""
    text = '<think>The form is "Rating: [[5]]". Is it worth [[3]]? No.</think>\nClear.\n\nRating: [[9]]'
    config = marked(tmp_path, scripted_server(ok(text)).url)
    judged(config)
    assert marks(config) == [9] * 16


def test_content_in_parts(tmp_path: Path, scripted_server: Servers) -> None:
    """J2_chunks: the letter in the text part."""

    def parts(seen: Seen) -> Action:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Compare both."}]}
        return ok([thinking, {"type": "text", "text": letter(seen)}])

    config = compared(tmp_path, scripted_server(parts).url, published=False)
    judged(config)
    assert preferences(config) == LONGER_WINS


def test_log_probs_at_the_letters_own_position(tmp_path: Path, scripted_server: Servers) -> None:
    """J3_reasoning_logprobs: the server lists the thoughts' tokens too, M among the first one's alternatives."""

    def thinks(seen: Seen) -> Action:
        better = letter(seen)
        other = "M" if better == "m" else "m"
        thoughts = [{"<think>": -0.00005, "M": -12.1}, {"ok": -0.1}, {"</think>": -0.01}]
        return ok(better, reasoning="ok", logprobs=[*thoughts, {better: -0.02, other: -4.0}])

    config = compared(tmp_path, scripted_server(thinks).url, published=False)
    judged(config)
    assert preferences(config) == pytest.approx(LONGER_IS_SURE)


@pytest.mark.parametrize(
    "odd",
    [
        ok(
            None, reasoning="<think>", finish_reason="length", logprobs=[{"<think>": -0.00005, "M": -12.1}]
        ),  # J3b_budget
        ok(None, reasoning="Both are fine. m"),  # J5_null_stop
        ok("The best", finish_reason="length"),
        ok(None, finish_reason="tool_calls"),
    ],
    ids=["thoughts used up the budget", "the parser swallowed the answer", "cut", "a tool call"],
)
def test_no_verdict_is_read_where_none_was_written(tmp_path: Path, scripted_server: Servers, odd: Action) -> None:
    """J3b_budget, J5_null_stop: counted as missing."""
    server = scripted_server(lambda seen: odd if "Asked: do 3\n" in seen.text else weighed(seen))
    config = compared(tmp_path, server.url, published=False)
    judged(config)
    assert [i for i, preference in enumerate(preferences(config)) if preference is None] == [3]
    assert (record(config)["n_missing"], record(config)["reasons"]) == (1, "no verdict: 1")


def test_a_judge_that_only_thinks_is_given_up_early(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(ok(None, reasoning="Both are fine. m"))
    with pytest.raises(RunError, match=r"gives no verdicts.*thoughts alone"):
        judged(compared(tmp_path, server.url, n=40, published=False))
    assert len(server.requests) <= 30


def test_a_mark_in_a_reply_that_broke_off_is_none(tmp_path: Path, scripted_server: Servers) -> None:
    """J4d_partial_mark: finish reason "error". Asked again as the server's error that it is; here it passes."""
    half = ok("The format is [[rating]], e.g. [[5]]. The answer is", finish_reason="error")
    config = marked(tmp_path, scripted_server(lambda seen: ok("[[7]]") if seen.attempt else half).url)
    judged(config)
    assert marks(config) == [7] * 16


def test_errors_with_status_200_and_rate_limits_leave_none_missing(tmp_path: Path, scripted_server: Servers) -> None:
    """J4_error200 and J_ratelimit: retried as the error that the reply carries."""

    def first_an_error(seen: Seen) -> Action:
        if seen.attempt:
            return weighed(seen)
        if seen.nth % 2:
            return Action(body={"error": {"code": 429, "message": "Provider returned error"}, "user_id": "u"})
        row = {"error": {"code": 429, "message": "Resource has been exhausted", "status": "RESOURCE_EXHAUSTED"}}
        return Action(code=429, headers={"retry-after": "0.01"}, body=[row])

    config = compared(tmp_path, scripted_server(first_an_error).url, published=False)
    judged(config)
    assert preferences(config) == pytest.approx(LONGER_IS_SURE)


def test_a_refusal_is_missing_said_and_not_asked_again(tmp_path: Path, scripted_server: Servers) -> None:
    """J_refusal: a refusal in its own field, and the server's filter."""

    def refuses(seen: Seen) -> Action:
        if "Asked: do 3\n" in seen.text:
            return ok(None, refusal="I cannot compare these.")
        if "Asked: do 4\n" in seen.text:
            return ok(None, finish_reason="content_filter")
        return weighed(seen)

    server = scripted_server(refuses)
    config = compared(tmp_path, server.url, published=False)
    judged(config)
    assert [i for i, preference in enumerate(preferences(config)) if preference is None] == [3, 4]
    assert record(config)["reasons"] == "refused: 2"
    assert len(server.requests) == 12


def test_a_first_reply_that_is_a_refusal_says_nothing_about_log_probs(tmp_path: Path, scripted_server: Servers) -> None:
    server = scripted_server(lambda seen: weighed(seen) if seen.nth else ok(None, refusal="I cannot."))
    config = compared(tmp_path, server.url, published=False)
    judged(config)
    assert record(config)["judge"] == "judge (weighted)"
    assert preferences(config) == pytest.approx(LONGER_IS_SURE)


def test_letters_and_ranks_however_they_are_written(tmp_path: Path, scripted_server: Servers) -> None:
    """J13_bold_letter: the letter that is written there."""
    forms = ["{}", "**{}**", "`{}`", "({})", "{}.", "Output ({})", "Model {}", "Answer: {}", "[{}]", "__{}__", "*{}*"]
    config = compared(
        tmp_path, scripted_server(lambda seen: ok(forms[seen.nth % 11].format(letter(seen)))).url, published=False
    )
    judged(config)
    assert preferences(config) == LONGER_WINS


def test_a_judge_that_follows_the_position_is_said(tmp_path: Path, scripted_server: Servers) -> None:
    """J_position: with both orders 50 %, and said that the judge follows the position."""
    server = scripted_server(preferring(0.9999))
    config = compared(tmp_path, server.url, n=24, published=False)
    assert "follows the position: the model wins 100 % where its answer is shown first" in judged(config)
    both = compared(tmp_path, server.url, n=24, published=False, both_orders=True)
    assert "follows the position" in judged(both)
    assert preferences(both) == pytest.approx([1.5] * 24)
    sound = compared(tmp_path, scripted_server(weighed).url, n=24, published=False, name="openai:sound")
    assert "position" not in judged(sound)


def test_a_server_that_does_not_count_costs_what_nobody_knows(tmp_path: Path, scripted_server: Servers) -> None:
    """J_usage_null: the first of two choices is read; the cost is unknown, not 0."""

    def two(seen: Seen) -> Action:
        body = weighed(seen, usage=False).body
        other = {"index": 1, "message": {"role": "assistant", "content": "other"}, "finish_reason": "stop"}
        return Action(body={**body, "choices": [other, *body["choices"]], "usage": None})

    config = compared(tmp_path, scripted_server(two).url, published=False, input_price=1.0, output_price=1.0)
    judged(config)
    assert preferences(config) == pytest.approx(LONGER_IS_SURE)
    assert record(config)["cost_usd"] is None
    assert "the cost is unknown" in record(config)["notes"][0]


def test_a_prompt_that_the_server_cut_is_noticed(tmp_path: Path, scripted_server: Servers) -> None:
    """Ollama's default context kept 2,050 tokens of 40,000 characters, and judged what was left."""

    def long_prompt(config: Config) -> None:
        path = set_up(config).folder.answers("prompts")
        answers = store.read_json(path)
        answers[3]["output"] = "a word of text " * 2_700
        store.write_json(path, answers)

    cuts = compared(tmp_path, scripted_server(lambda seen: weighed(seen, prompt_tokens=2050)).url, published=False)
    long_prompt(cuts)
    judged(cuts)
    assert [i for i, preference in enumerate(preferences(cuts)) if preference is None] == [3]
    assert record(cuts)["reasons"] == "cut prompt: 1"

    def counts(seen: Seen) -> Action:
        return weighed(seen, prompt_tokens=len(seen.text) // 4)

    whole = compared(tmp_path, scripted_server(counts).url, published=False)
    long_prompt(whole)
    judged(whole)
    assert None not in preferences(whole)


def test_another_model_behind_the_same_name_is_said(tmp_path: Path, scripted_server: Servers) -> None:
    """The verdicts of the first server are kept by the name that was asked for; the replies name who answered."""
    before = scripted_server(lambda seen: weighed(seen, model="qwen-7b") if seen.nth < 5 else status(401))
    config = compared(tmp_path, before.url, published=False, concurrency=1)
    with pytest.raises(RunError, match="401"):
        judged(config)
    after = scripted_server(lambda seen: weighed(seen, model="llama-8b"))
    moved = config.model_copy(update={"base_url": after.url})
    assert "come from 2 models: llama-8b (7), qwen-7b (5)" in judged(moved)
    assert "qwen-7b" in " ".join(record(moved)["notes"])


def test_an_unreadable_reply_costs_one_verdict(tmp_path: Path, scripted_server: Servers) -> None:
    nested = Action(body=b"[" * 100_000)
    server = scripted_server(lambda seen: nested if "Asked: do 3\n" in seen.text else weighed(seen))
    config = compared(tmp_path, server.url, published=False)
    judged(config)
    assert [i for i, preference in enumerate(preferences(config)) if preference is None] == [3]
    assert record(config)["reasons"] == "reply: 1"


def test_replies_that_were_kept_before_are_read_anew(tmp_path: Path, scripted_server: Servers) -> None:
    """A mark out of thoughts, kept by an earlier version, is no longer one: it is asked again."""
    old = ok("<think>[[3]]</think> I would not rate it.")
    server = scripted_server(ok("[[3]]"))
    config = marked(tmp_path, server.url)
    judged(config)
    with store.database(store.home() / "verdicts.sqlite") as connection:
        from trimtab.judging.verdict_cache import VerdictCache

        cache = VerdictCache(connection)
        (key,) = connection.execute("SELECT key FROM verdicts LIMIT 1").fetchone()
        row = cache.get([key])[key]
        assert row.reply is not None
        text = old.body["choices"][0]["message"]["content"]
        cache.put(key, judge=row.judge, subject=row.subject, value=3.0, reply={**row.reply, "text": text})
    set_up(config).folder.judge("turns").unlink()
    server.script = lambda _seen: ok("[[6]]")
    judged(config)
    assert sorted(marks(config)) == [3] * 15 + [6]
