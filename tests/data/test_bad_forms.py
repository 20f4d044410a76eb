"""Feedback that says nothing: by the command line each is one message that names the file and a row, and no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chat_families
import pytest
import tool_templates
from published_forms import (
    CALLS,
    CITIES,
    KTO_TAG,
    LISTS,
    QUESTIONS,
    RESULTS,
    TRL_PAIRS,
    TRL_UNPAIRED,
    WEATHER,
    Row,
    asks,
    assistant,
    cold,
    helpsteer,
    nectar,
    ultrafeedback,
    user,
)

from stage_runs import write_model
from trial_runs import call
from trimtab import windtunnel

KTO = ("--objective", "kto")
CALL_AND_QUESTION = [
    {**row, "prompt": [cold(city), asks(city), user("Well?")]} for row, city in zip(CALLS, CITIES, strict=True)
]
CALL_AND_ANSWER = [{**row, "chosen": [asks(city), assistant("Yes.")]} for row, city in zip(CALLS, CITIES, strict=True)]

# rows, the run's words, the template that the model has, what both commands say
CASES: dict[str, tuple[list[Row], tuple[str, ...], str, str]] = {
    "a label that is a word": (
        [*TRL_UNPAIRED, TRL_UNPAIRED[0] | {"label": "perhaps"}],
        KTO,
        "",
        "1 of 11 rows (9.1%) are bad, more than data.max_rejected = 5%: 1 no_label: the label is neither true nor "
        "false (first: rows.jsonl:11, 'label' is 'perhaps', neither true nor false)",
    ),
    "labels of minus one": (
        [row | {"kto_tag": 1 if row["kto_tag"] else -1} for row in KTO_TAG],
        KTO,
        "",
        "(first: rows.jsonl:2, 'kto_tag' is -1, neither true nor false)",
    ),
    "good ones alone": (
        [row | {"label": True} for row in TRL_UNPAIRED],
        KTO,
        "",
        "rows.jsonl: all 10 rows are good (label true) (first: rows.jsonl:1), so there is nothing to tell apart",
    ),
    "bad ones alone": (
        [row | {"kto_tag": False} for row in KTO_TAG],
        KTO,
        "",
        "rows.jsonl: all 10 rows are bad (label false) (first: rows.jsonl:1), so there is nothing to tell apart",
    ),
    # the second question is among the 30 % of prompts that are held out
    "the bad one held out": (
        [row | {"label": number != 1} for number, row in enumerate(TRL_UNPAIRED)],
        (*KTO, "--data.holdout", "0.3"),
        "",
        "rows.jsonl: all 6 rows to train on are good: the 1 of the other label are held out",
    ),
    "one completion each": (
        [ultrafeedback(question, {good: 3.0}) for question, good, _ in QUESTIONS],
        (),
        "",
        "none of the 10 rows is a usable pair: 10 one_response: fewer than two scored responses (first: rows.jsonl:1, "
        "1 response, of which 1 can be compared)",
    ),
    "one row a prompt": (
        [helpsteer(question, good, 3) for question, good, _ in QUESTIONS],
        (),
        "",
        "10 one_response: fewer than two scored responses (first: rows.jsonl:1,",
    ),
    "equal scores": (
        [*LISTS, LISTS[0] | {"prompt": [user("Why?")], "scores": [0.5, 0.5]}],
        (),
        "",
        "1 no_preference: its scores prefer none of its responses (first: rows.jsonl:11, all 2 scores are equal)",
    ),
    "equal ranks alone": (
        [nectar(question, {good: 1.0, bad: 1.0}) for question, good, bad in QUESTIONS],
        (),
        "",
        "none of the 10 rows is a usable pair: 10 no_preference: its scores prefer none of its responses (first: "
        "rows.jsonl:1, all 2 scores are equal)",
    ),
    "no scores where gaps are read": (
        TRL_PAIRS,
        ("--objective", "odpo"),
        "",
        "rows.jsonl:1 has no scores, and odpo reads how far they lie apart",
    ),
    "a question behind a call": (
        CALL_AND_QUESTION,
        (),
        "qwen3",
        "(first: rows.jsonl:1, message 3 is from the user, not the tool whose result the call before it asks for)",
    ),
    "an answer behind a call": (
        CALL_AND_ANSWER,
        (),
        "llama32",
        "(first: rows.jsonl:1, the response in 'chosen': message 2 is from the assistant, and the tool call before it "
        "has no result)",
    ),
    "a template without tools": (
        CALLS,
        (),
        "chatml",
        "(first: rows.jsonl:1, the template leaves out the tool 'get_weather')",
    ),
    "a template without calls": (
        [{key: value for key, value in row.items() if key != "tools"} for row in RESULTS],
        (),
        "chatml",
        "(first: rows.jsonl:1, the template leaves out 'get_weather' of the tool_calls of a message of the assistant)",
    ),
    "a tool without a name": (
        [*CALLS, CALLS[0] | {"tools": [{"type": "function", "function": WEATHER["function"]["parameters"]}]}],
        (),
        "qwen3",
        "(first: rows.jsonl:11, tool 1 of 'tools' has no name)",
    ),
}
OF_THE_RUN = ("the bad one held out", "no scores where gaps are read")  # whose words the audit has not


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {"": windtunnel.model_folder()}
    tokenizers = {
        "qwen3": chat_families.chatml(tool_templates.QWEN3),
        "llama32": chat_families.llama3(tool_templates.LLAMA32),
        "chatml": chat_families.chatml(),
    }
    for name, tokenizer in tokenizers.items():
        folders[name] = write_model(tmp_path_factory.mktemp("models") / name, vocab_size=len(tokenizer))
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.mark.parametrize("name", CASES)
def test_one_message_names_the_file_and_a_row(
    name: str, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, own, template, sentence = CASES[name]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words: list[Any] = ["--model", models[template]]
    run = ["run", "--data", file, *words, *own, "--benchmark", "none", "--judge", "none", "--quiet"]
    code, out, err = call([*run, "--out", tmp_path / "run"], capsys)
    assert (code, out) == (2, "")
    message, _, rest = err.partition("\n  → ")
    assert message.startswith("trimtab: ")
    assert sentence in message
    assert "\n" not in message
    assert rest.strip()
    assert not (tmp_path / "run").exists()
    if name not in OF_THE_RUN:
        code, out, err = call(["audit", file, *words], capsys)
        assert code == 1
        assert sentence in err.partition("\n")[0]
