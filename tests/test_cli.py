"""The command line as a user meets it: exit codes, one clear message for each mistake, nothing half-written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimtab import cli, config, windtunnel

PAIR = {"prompt": "What is two plus two?", "chosen": "Four.", "rejected": "Five."}


def call(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of one command."""
    try:
        cli.main(words)
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [PAIR | {"prompt": f"What is {n} plus {n}?"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def model() -> Path:
    return windtunnel.model_folder()


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "trimtab", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert b"run" in done.stdout
    assert min(seconds) < 0.5


def test_the_fast_path_imports_nothing_heavy() -> None:
    script = (
        "import sys, trimtab, trimtab.cli, trimtab.config, trimtab.objectives\n"
        "trimtab.objectives.table()\n"
        "assert not {'torch', 'transformers', 'peft', 'datasets', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_help_of_run_lists_every_key_with_its_meaning_default_and_choices(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = call(["run", "--help"], capsys)[1]
    for key in config.keys():  # noqa: SIM118  # a function of the module, no mapping
        field, default = config.field_of(key), config.default_of(key)
        [line] = [line for line in shown.splitlines() if re.match(rf"│ --{config.flag_name(key)}[ │]", line)]
        assert field.description, key
        assert field.description[:40] in line
        if default not in (None, "", "required"):
            assert f"[default: {str(default).lower() if isinstance(default, bool) else default}]" in line
    assert "--engine.screening auto|on|off" in shown
    assert all(f"─ {section} ─" in shown for section in ("run", "data", "train", "judge", "windtunnel"))


def test_objectives_prints_formulas_and_dead_zones(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["objectives"], capsys)
    assert code == 0
    assert "apo_hinge_zero(beta=0.1, margin=1.0)" in out
    assert "r_w ≥ m/β" in out
    rows = json.loads(call(["objectives", "--json"], capsys)[1])
    assert {row["name"] for row in rows} >= {
        "dpo",
        "apo_zero",
        "apo_hinge_zero",
        "apo_hinge_softplus",
        "margin_sigmoid",
    }


def test_doctor_and_keys_speak_json(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(call(["doctor", "--json"], capsys)[1])
    assert told["packages"]["torch"]
    rows = json.loads(call(["keys", "--json"], capsys)[1])
    assert {"data.limit", "train.save_every", "engine.pack_tokens"} <= {row["key"] for row in rows}
    assert call(["keys"], capsys)[0] == 0
    assert call(["doctor"], capsys)[0] == 0


def _broken_line_17(tmp_path: Path, pairs: Path, model: Path) -> list[str]:
    lines = pairs.read_text().splitlines(keepends=True)
    lines[16] = '{"prompt": "x", "chosen": \n'
    pairs.write_text("".join(lines))
    return ["--model", str(model), "--data", str(pairs)]


def _missing_column(tmp_path: Path, pairs: Path, model: Path) -> list[str]:
    pairs.write_text('{"question_text": "x", "good": "a", "bad": "b"}\n')
    return ["--model", str(model), "--data", str(pairs)]


def _empty_responses(tmp_path: Path, pairs: Path, model: Path) -> list[str]:
    pairs.write_text("".join(json.dumps(PAIR | {"prompt": str(n), "rejected": "  "}) + "\n" for n in range(20)))
    return ["--model", str(model), "--data", str(pairs)]


def _no_end_token(tmp_path: Path, pairs: Path, model: Path) -> list[str]:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=8, bos_token_id=None, eos_token_id=None, pad_token_id=None, **shape)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "Four.": 1, "Five.": 2, "What": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    LlamaForCausalLM(config).save_pretrained(tmp_path / "endless")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path / "endless")
    return ["--model", str(tmp_path / "endless"), "--data", str(pairs)]


def _empty_folder(tmp_path: Path, pairs: Path, model: Path) -> list[str]:
    (tmp_path / "empty").mkdir()
    return ["--model", str(tmp_path / "empty"), "--data", str(pairs)]


MISTAKES = {
    "missing file": (lambda t, p, m: ["--model", str(m), "--data", str(t / "nowhere.jsonl")], 2, "nowhere.jsonl"),
    "no model there": (_empty_folder, 2, "empty"),
    "no such model": (lambda t, p, m: ["--model", str(t / "none"), "--data", str(p), "--offline"], 2, "none"),
    "broken line": (_broken_line_17, 2, "17"),
    "missing column": (_missing_column, 2, "--columns"),
    "empty responses": (_empty_responses, 2, "empty"),
    "no end token": (_no_end_token, 2, "end token"),
    "config typo": (lambda t, p, m: ["--model", str(m), "--data", str(p), "--train.epoch", "1"], 2, "train.epochs"),
    "dead margin": (
        lambda t, p, m: ["--model", str(m), "--data", str(p), "--objective", "margin_sigmoid", "--delta", "0.7"],
        2,
        "delta",
    ),
    "foreign parameter": (lambda t, p, m: ["--objective", "dpo", "--margin", "2"], 2, "margin"),
    "model without data": (lambda t, p, m: ["--model", str(m)], 2, "--data"),
    "unknown command word": (lambda t, p, m: ["one.toml", "two.toml"], 2, "two.toml"),
    "no such config": (lambda t, p, m: [str(t / "none.toml")], 2, "none.toml"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_message_with_its_remedy_and_leaves_nothing(
    mistake: str, tmp_path: Path, pairs: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, exit_code, said = MISTAKES[mistake]
    out = tmp_path / "out"
    code, printed, complaint = call(["run", *make(tmp_path, pairs, model), "--out", str(out), "--quiet"], capsys)
    assert code == exit_code, complaint
    assert said in complaint
    assert "→" in complaint
    assert "Traceback" not in complaint
    assert complaint.count("trimtab:") == 1
    assert printed == ""
    assert not out.exists()


def test_no_permission_to_write_is_exit_1(
    tmp_path: Path, pairs: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    code, _, complaint = call(["run", "--model", str(model), "--data", str(pairs), "--out", str(out)], capsys)
    assert code == 1
    assert "cannot write" in complaint
    assert "--out" in complaint


def test_an_unknown_command_is_exit_2_and_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, complaint = call(["frobnicate"], capsys)
    assert code == 2
    assert "frobnicate" in complaint
    with pytest.raises(Exception, match="nowhere"):
        cli.main(["run", "nowhere.toml", "--debug"])


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, complaint = call(["audit", str(tmp_path / "\x1b[31mred\u202e.jsonl")], capsys)
    assert "\x1b" not in complaint
    assert "\u202e" not in complaint
    assert "red" in complaint


def test_audit_counts_every_row_and_speaks_json(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pairs.open("a") as file:
        file.write(json.dumps(PAIR | {"chosen": ""}) + "\n" + json.dumps(PAIR | {"rejected": PAIR["chosen"]}) + "\n")
    code, out, _ = call(["audit", str(pairs), "--json"], capsys)
    told = json.loads(out)
    assert code == 0
    assert (told["rows"], told["kept"], told["dropped"]) == (42, 40, 2)
    assert told["dropped_by_reason"] == {"empty_response": 1, "identical_responses": 1}
    with_model = call(["audit", str(pairs), "--model", str(windtunnel.model_folder())], capsys)
    assert with_model[0] == 0
    assert "tokens, median" in with_model[1]
