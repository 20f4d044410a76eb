"""What is sent and what is read, with what servers do differently."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.endpoint.completion import Reply, Request, read_json, read_reply
from trimtab.endpoint.retry import RequestError
from trimtab.records import Message

ASKED = (Message("system", "judge"), Message("user", "which?"))


def body(**choice: Any) -> dict[str, Any]:
    whole = {"message": {"role": "assistant", "content": "m"}, "finish_reason": "stop"} | choice
    return {"model": "gpt-x", "choices": [whole], "usage": {"prompt_tokens": 12, "completion_tokens": 1}}


def read(told: object) -> Reply:
    return read_reply(told, seconds=0.5)


def test_only_what_is_set_is_sent() -> None:
    assert Request("id", ASKED, 8).to_json(model="gpt-x") == {
        "model": "gpt-x",
        "messages": [{"role": "system", "content": "judge"}, {"role": "user", "content": "which?"}],
        "max_tokens": 8,
        "temperature": 0.0,
    }
    full = Request("id", ASKED, 1, temperature=1.0, top_p=0.9, top_logprobs=5, seed=3)
    more = {"temperature": 1.0, "top_p": 0.9, "logprobs": True, "top_logprobs": 5, "seed": 3, "max_tokens": 1}
    sent = full.to_json(model="gpt-x")
    assert {name: sent[name] for name in more} == more


def test_what_a_model_refuses_is_left_out_or_renamed() -> None:
    full = Request("id", ASKED, 1, top_p=0.9, top_logprobs=5, seed=3)
    sent = full.to_json(model="gpt-x", without={"max_tokens", "temperature", "top_p", "logprobs", "seed"})
    assert sent.keys() == {"model", "messages", "max_completion_tokens"}
    assert sent["max_completion_tokens"] == 1


def test_a_lone_surrogate_is_sent_as_the_replacement_character() -> None:
    sent = Request("id", (Message("user", "a\ud800b 😀"),), 1).to_json(model="gpt-x")
    assert sent["messages"][0]["content"] == "a\ufffdb 😀"


def test_a_whole_reply() -> None:
    top = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -2.3}]
    told = body(logprobs={"content": [{"token": "m", "logprob": -0.1, "top_logprobs": top}]})
    assert read(told) == Reply("m", "stop", ({"m": -0.1, "M": -2.3},), 12, 1, "gpt-x", 0.5, ("m",))


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, {"top_logprobs": []}, "none"])
def test_a_server_without_log_probs(logprobs: object) -> None:
    assert read(body(logprobs=logprobs)).logprobs is None
    assert read(body()).logprobs is None


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ({"token": "m", "logprob": -0.5, "top_logprobs": []}, {"m": -0.5}),
        ({"token": "m", "logprob": -0.5}, {"m": -0.5}),
        ({"token": "m", "logprob": -0.5, "top_logprobs": [{"token": "M", "logprob": None}]}, {}),
        ({"token": "m", "logprob": -0.5, "top_logprobs": [{"token": "M", "logprob": True}, "odd"]}, {}),
        ("odd", {}),
        (
            {"top_logprobs": [{"token": "m", "logprob": math.log(0.25)}, {"token": "m", "logprob": math.log(0.5)}]},
            {"m": math.log(0.75)},
        ),
    ],
)
def test_one_position(position: object, expected: dict[str, float]) -> None:
    told = read(body(logprobs={"content": [position]}))
    assert told.logprobs is not None
    assert told.logprobs[0] == pytest.approx(expected)


def test_log_probs_that_are_no_finite_numbers_are_left_out() -> None:
    content = json.dumps(body(logprobs={"content": [{"token": "m", "logprob": 0.0}]})).replace("0.0", "-Infinity")
    assert read(read_json(content.encode())).logprobs == ({},)


def test_the_older_form_of_log_probs() -> None:
    told = read(body(logprobs={"tokens": ["m"], "token_logprobs": [-0.1], "top_logprobs": [{"m": -0.1, "M": -2.3}]}))
    assert told.logprobs == ({"m": -0.1, "M": -2.3},)


def test_a_message_without_text_is_a_reply_where_something_says_why() -> None:
    assert read(body(message={"content": None}, finish_reason="length")).text == ""
    assert read(body(message={"content": None}, finish_reason="content_filter")).finish_reason == "content_filter"
    refused = read(body(message={"content": None, "refusal": "I cannot."}))
    assert (refused.text, refused.refusal, refused.ending) == ("", "I cannot.", "refused")
    thinking = read(body(message={"content": None, "reasoning_content": "Both are fine. m"}))
    assert (thinking.text, thinking.has_thoughts, thinking.ending) == ("", True, "whole")
    calling = read(body(message={"content": None, "tool_calls": [{"id": "c"}]}))
    assert (calling.text, calling.ending) == ("", "tool call")
    with pytest.raises(RequestError, match="no text"):
        read(body(message={"content": None}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"choices": [', "not JSON"),
        (b"<html>a page</html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[]", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": null}', "no choices"),
        (b'{"choices": ["m"]}', "no choices"),
        (b'{"choices": [{"finish_reason": "stop"}]}', "no message"),
        (b'{"choices": [{"message": {"content": 7}}]}', "no text"),
        (b'{"choices": [{"message": {"content": []}}]}', "no text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"choices":' * 100_000, "nested too deeply"),
        (b"1" * 5_000, "not JSON"),  # more digits than Python reads
    ],
)
def test_what_holds_no_answer(content: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        read_reply(read_json(content), seconds=0)
    assert (caught.value.kind, caught.value.transient) == ("reply", True)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": -5, "completion_tokens": "3"}])
def test_tokens_that_are_not_counted_are_zero(usage: object) -> None:
    told = read(body() | {"usage": usage, "model": None})
    assert (told.prompt_tokens, told.completion_tokens, told.model) == (0, 0, "")


@given(
    st.builds(
        Reply,
        text=st.text(),
        finish_reason=st.text(),
        logprobs=st.none() | st.tuples(st.dictionaries(st.text(), st.floats(-99, 0))),
        prompt_tokens=st.integers(0, 9999),
        completion_tokens=st.integers(0, 9999),
        model=st.text(),
        seconds=st.floats(0, 100),
    )
)
@settings(max_examples=100)
def test_the_json_form_of_a_reply_gives_it_back(reply: Reply) -> None:
    assert Reply.from_json(json.loads(json.dumps(reply.to_json()))) == reply


@pytest.mark.parametrize(
    ("content", "text", "thought"),
    [
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "M?"}]}, {"type": "text", "text": "m"}],
            "m",
            True,
        ),
        ([{"type": "text", "text": "Rating: "}, {"type": "text", "text": "[[8]]"}], "Rating: [[8]]", False),
        ([{"type": "output_text", "text": "m"}], "m", False),
        ([{"text": "m"}], "m", False),
        (["m"], "m", False),
        ({"type": "text", "text": "m"}, "m", False),
        ([{"type": ["odd"], "text": "m"}, {"type": "text", "text": "M"}], "M", True),
        ([{"type": "text", "text": "m"}, {"type": "reasoning", "text": "M"}], "m", True),
        ([{"type": "thinking", "thinking": "all of it"}], "", True),
    ],
)
def test_content_as_a_list_of_parts(content: object, text: str, thought: bool) -> None:
    """Mistral's reasoning models answer in parts (case J2_chunks): the right value is the text alone."""
    reply = read(body(message={"content": content}))
    assert (reply.text, reply.has_thoughts) == (text, thought)


def test_a_refusal_among_the_parts() -> None:
    reply = read(body(message={"content": [{"type": "refusal", "refusal": "I cannot."}]}))
    assert (reply.text, reply.refusal, reply.ending) == ("", "I cannot.", "refused")


def test_the_choice_of_index_0_counts_wherever_it_stands() -> None:
    """Case J_usage_null sends two choices."""
    rows = [{"index": n, "message": {"content": text}} for n, text in ((1, "other"), (0, "m"))]
    assert read({"choices": rows, "usage": None}).text == "m"


@pytest.mark.parametrize(
    ("finish_reason", "ending"),
    [
        ("stop", "whole"),
        ("STOP", "whole"),
        ("eos_token", "whole"),
        ("end_turn", "whole"),
        ("length", "cut"),
        ("max_tokens", "cut"),
        ("content_filter", "refused"),
        ("SAFETY", "refused"),
        ("tool_calls", "tool call"),
        ("", "unknown"),
        ("odd", "unknown"),
    ],
)
def test_why_a_reply_ends(finish_reason: str, ending: str) -> None:
    """Case G1_served_answers: `eos_token` (text-generation-inference) and `end_turn` (Anthropic) end a whole answer."""
    assert read(body(finish_reason=finish_reason)).ending == ending


@pytest.mark.parametrize("count", [10**30, True, 1.5, "7", -1])
def test_a_count_that_cannot_be_one_is_none(count: object) -> None:
    assert read(body() | {"usage": {"prompt_tokens": count}}).prompt_tokens == 0


def test_a_reply_that_was_kept_before_tokens_were_is_read() -> None:
    row = read(body()).to_json()
    assert Reply.from_json({name: row[name] for name in list(row)[:7]}) == read(body())
