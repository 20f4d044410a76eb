"""What is sent and what is read, with what servers do differently."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.endpoint.exchange import Reply, Request
from trimtab.endpoint.wire import UnreadableError, fields, read_reply, refused_parameter
from trimtab.records import Message

ASKED = (Message("system", "judge"), Message("user", "which?"))


def body(**choice: Any) -> dict[str, Any]:
    whole = {"message": {"role": "assistant", "content": "m"}, "finish_reason": "stop"} | choice
    return {"model": "gpt-x", "choices": [whole], "usage": {"prompt_tokens": 12, "completion_tokens": 1}}


def read(told: object) -> Reply:
    return read_reply(json.dumps(told).encode(), seconds=0.5)


def test_only_what_is_set_is_sent() -> None:
    assert fields(Request("id", ASKED, 8), model="gpt-x") == {
        "model": "gpt-x",
        "messages": [{"role": "system", "content": "judge"}, {"role": "user", "content": "which?"}],
        "max_tokens": 8,
        "temperature": 0.0,
    }
    full = Request("id", ASKED, 1, temperature=1.0, top_p=0.9, top_logprobs=5, seed=3)
    more = {"temperature": 1.0, "top_p": 0.9, "logprobs": True, "top_logprobs": 5, "seed": 3, "max_tokens": 1}
    sent = fields(full, model="gpt-x")
    assert {name: sent[name] for name in more} == more


def test_what_a_model_refuses_is_left_out_or_renamed() -> None:
    full = Request("id", ASKED, 1, top_p=0.9, top_logprobs=5, seed=3)
    sent = fields(full, model="gpt-x", without={"max_tokens", "temperature", "top_p", "logprobs", "seed"})
    assert sent.keys() == {"model", "messages", "max_completion_tokens"}
    assert sent["max_completion_tokens"] == 1


def test_a_lone_surrogate_is_sent_as_the_replacement_character() -> None:
    sent = fields(Request("id", (Message("user", "a\ud800b 😀"),), 1), model="gpt-x")
    assert sent["messages"][0]["content"] == "a\ufffdb 😀"


def test_a_whole_reply() -> None:
    top = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -2.3}]
    told = body(logprobs={"content": [{"token": "m", "logprob": -0.1, "top_logprobs": top}]})
    assert read(told) == Reply("m", "stop", ({"m": -0.1, "M": -2.3},), 12, 1, "gpt-x", 0.5)


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
    assert read_reply(content.encode(), seconds=0).logprobs == ({},)


def test_the_older_form_of_log_probs() -> None:
    told = read(body(logprobs={"tokens": ["m"], "token_logprobs": [-0.1], "top_logprobs": [{"m": -0.1, "M": -2.3}]}))
    assert told.logprobs == ({"m": -0.1, "M": -2.3},)


def test_text_that_was_cut_before_it_began_is_empty_and_a_refusal_is_text() -> None:
    assert read(body(message={"content": None}, finish_reason="length")).text == ""
    assert read(body(message={"content": None}, finish_reason="content_filter")).finish_reason == "content_filter"
    assert read(body(message={"content": None, "refusal": "I cannot."})).text == "I cannot."
    with pytest.raises(UnreadableError, match="no text"):
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
        (b'{"error": {"message": "overloaded"}}', "overloaded"),
        (b'{"choices": [{"finish_reason": "stop"}]}', "no message"),
        (b'{"choices": [{"message": {"content": ["m"]}}]}', "no text"),
    ],
)
def test_what_holds_no_answer(content: bytes, words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        read_reply(content, seconds=0)


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


SENT = {"max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": 5, "seed": 1}


@pytest.mark.parametrize(
    ("error", "message", "name"),
    [
        (
            {"code": "unsupported_parameter", "param": "max_tokens"},
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens",
        ),
        (
            {"code": "unsupported_value", "param": "temperature"},
            "Unsupported value: 'temperature' does not support 0 with this model.",
            "temperature",
        ),
        ({}, "You are not allowed to request logprobs from this model.", "logprobs"),
        ({"param": "top_logprobs"}, "top_logprobs is not supported", "logprobs"),
        ({}, "Unknown field: top_logprobs", "logprobs"),
        ({}, "[{'loc': ['body', 'seed'], 'msg': 'Extra inputs are not permitted'}]", "seed"),
        ({}, "top_p is not supported", None),  # was not sent
        ({"param": "messages"}, "Unsupported value: 'messages' ... temperature", None),
        ({}, "temperature must be between 0 and 2", None),  # our own mistake, not the model's way
        ({}, "'max_completion_tokens' is not supported", None),
        ({}, "unknown model 'seedling'", None),
    ],
)
def test_which_parameter_a_model_refuses(error: dict[str, str], message: str, name: str | None) -> None:
    assert refused_parameter(error, message, sent=SENT) == name
