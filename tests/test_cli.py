"""The command line as a user meets it: exit codes, one clear message for each mistake, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from trimtab import cli, config, windtunnel
from trimtab.cli.app import app

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
    """In processor time: other processes on a busy machine do not count."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "trimtab", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
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
    # the command line keeps the console that it printed to first: another test's may be narrow
    monkeypatch.setattr(app, "console", Console(width=400))
    shown = call(["run", "--help"], capsys)[1]
    for key in config.keys():  # noqa: SIM118  # a function of the module, no mapping
        field, default = config.field_of(key), config.default_of(key)
        [line] = [line for line in shown.splitlines() if re.match(rf"│ --{config.flag_name(key)}[ │]", line)]
        assert field.description, key
        assert field.description[:40] in line
        if default not in (None, "", (), "required"):
            assert f"[default: {str(default).lower() if isinstance(default, bool) else default}]" in line
    assert "--engine.screening auto|on|off" in shown
    assert all(f"─ {section} ─" in shown for section in ("run", "data", "train", "judge", "windtunnel"))


# each is a mistake of one letter, which nobody should wait seconds for
TYPOS = [
    "run --lr 3",
    "run --objective dpoo",
    "run --train.schedule lineer",
    "run --adapter lorra",
    "train --data.limti 3",
    "generate --benchmrk x",
    "judge --judge gpt-4",
    "plan --epoch 2",
    "sweep --grid margn=1,2",
    "audit pairs.jsonl --data.limti 3",
    "compare a b --judg x",
    "run pairs.csv",
    "frobnicate",
]


def test_a_typing_mistake_is_answered_before_torch_loads(tmp_path: Path) -> None:
    script = (
        "import sys, trimtab\n"
        "from trimtab.cli import main\n"
        f"for line in {TYPOS!r}:\n"
        "    try: main(line.split())\n"
        "    except SystemExit as stopped: assert stopped.code == 2, (line, stopped.code)\n"
        "    else: raise AssertionError(line)\n"
        "    assert 'torch' not in sys.modules, line\n"
        "try: trimtab.run(train={'lr': 1})\n"
        "except trimtab.TrimtabError as error: assert 'train.learning_rate' in str(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["objectives"], ["objectives", "--json"], ["run", "--help"], ["frobé"], ["doctor"]])
def test_a_terminal_that_knows_ascii_only_gets_the_nearest_letters(words: list[str]) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "trimtab", *words], capture_output=True, env=environment, check=False)
    text = (done.stdout + done.stderr).decode("ascii")
    assert done.returncode == (2 if words == ["frobé"] else 0), text
    assert "defect" not in text
    assert "r_w >= m/" in text or words != ["objectives"]
    if "--json" in words:
        assert "β" in json.loads(done.stdout)[0]["formula"] + json.loads(done.stdout)[4]["formula"]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ModuleNotFoundError(\"No module named 'torch'\", name='torch')", "No module named 'torch'"),
        (
            "OSError('libcudart.so.12: cannot open shared object file: No such file or directory')",
            "libcudart.so.12: cannot open",
        ),
    ],
    ids=["not installed", "CUDA's libraries missing"],
)
def test_without_torch_there_is_one_message(tmp_path: Path, pairs: Path, raised: str, said: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, importlib.abc\n"
        "class Missing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name.partition('.')[0] == 'torch': raise {raised}\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from trimtab.cli import main\n"
        "main(sys.argv[1:])\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    doctor = run("doctor")
    assert doctor.returncode == 0, doctor.stderr
    assert f"torch        cannot be used: {said}" in doctor.stdout
    for words in (["audit", str(pairs), "--model", "windtunnel"], ["run"]):
        done = run(*words)
        assert done.returncode == 1
        assert said in done.stderr
        assert "defect" not in done.stderr
        assert done.stderr.count("trimtab:") == 1


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
    assert with_model[1].splitlines()[-1] == "a run would start on these data"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "5 of 40 rows (12.5%) are bad"),
        (["--data.max-rejected", "1", "--data.holdout", "0.9999"], "all 35 are held out"),
        (["--data.max-rejected", "0.2"], None),
    ],
)
def test_an_audit_ends_as_a_run_on_the_same_data_would_begin(
    tmp_path: Path, pairs: Path, more: list[str], said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    pairs.write_text("".join(json.dumps(row | ({"chosen": ""} if n < 5 else {})) + "\n" for n, row in enumerate(rows)))
    code, _, complaint = call(["audit", str(pairs), *more], capsys)
    verdict = json.loads(call(["audit", str(pairs), "--json", *more], capsys)[1])["verdict"]
    assert code == (0 if said is None else 1)
    assert verdict["starts"] == (said is None)
    assert said is None or (said in complaint and said in verdict["reason"] and "→" in complaint)
    words = ["run", "--model", "windtunnel", "--data", str(pairs), *more, "--out", str(tmp_path / "run"), "--quiet"]
    run_code, _, run_complaint = call([*words, "--train.max-steps", "1"], capsys)
    assert run_code == (0 if said is None else 2), run_complaint
    assert said is None or said in run_complaint


def test_a_stage_alone_runs_what_it_needs_and_says_when_it_has_nothing_to_do(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--model", "windtunnel", "--data", str(pairs), "--out", str(out), "--train.max-steps", "1", "--quiet"]
    code, _, complaint = call(["train", *words], capsys)
    assert code == 0, complaint
    assert (out / "model" / "model.safetensors").is_file()
    for command, remedy in (("generate", "--benchmark"), ("judge", "--benchmark")):
        code, _, complaint = call([command, str(out)], capsys)
        assert code == 2
        assert "has no benchmark" in complaint
        assert remedy in complaint
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(["What is one plus one?", "What is two plus three?"]))
    code, _, complaint = call(["judge", str(out), "--benchmark", str(prompts)], capsys)
    assert code == 2
    assert "has no judge" in complaint
    code, _, complaint = call(["generate", str(out), "--benchmark", str(prompts), "--quiet"], capsys)
    assert code == 0, complaint
    assert (out / "answers" / "prompts.json").is_file()
