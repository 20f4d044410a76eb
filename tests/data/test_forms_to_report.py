"""Files in every published form, from the audit to the report by the command line: every row is accounted for."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import chat_families
import pytest
import tool_templates
from published_forms import FORMS, Form

from stage_runs import write_model
from trial_runs import call, rows_of, tree_of
from trimtab import windtunnel

RUN = (
    *("--train.max-steps", "2"),
    *("--train.epochs", "2"),
    *("--train.batch-pairs", "4"),
    *("--engine.dtype", "float32"),
    *("--benchmark", "none"),
    *("--judge", "none"),
    "--quiet",
)
COUNTS = ("rows_read", "rows", "kept", "dropped", "dropped_by_reason", "train", "heldout", "labels")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded world's model, and one with random weights for each family's template."""
    mistral = chat_families.mistral()
    mistral.chat_template = tool_templates.MISTRAL
    tokenizers = {
        "qwen3": chat_families.chatml(tool_templates.QWEN3),
        "llama32": chat_families.llama3(tool_templates.LLAMA32),
        "mistral": mistral,
        "smollm3": chat_families.chatml(tool_templates.SMOLLM3),
    }
    folders = {"windtunnel": windtunnel.model_folder()}
    for name, tokenizer in tokenizers.items():
        eos = int(tokenizer.eos_token_id)
        folder = tmp_path_factory.mktemp("models") / name
        folders[name] = write_model(folder, vocab_size=len(tokenizer), bos_token_id=eos, eos_token_id=eos)
        tokenizer.save_pretrained(folders[name])
    return folders


def rows_in(row_id: str) -> set[int]:
    """Numbers of the file's rows in the id of a row or pair: `rows.jsonl:3..4/2-1` is of 3 and 4."""
    first, _, last = row_id.partition("/")[0].rpartition(":")[2].partition("..")
    return set(range(int(first), int(last or first) + 1))


@pytest.mark.parametrize("name", FORMS)
def test_every_row_is_accounted_for(
    name: str, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, folder = FORMS[name], tmp_path / "run"
    file, model = form.write(tmp_path), models[form.model]
    words = ["--model", model, "--data.holdout", "0.2", *form.words]
    code, out, err = call(["audit", file, *words, "--json"], capsys)
    assert code == 0, err
    audit = json.loads(out)
    code, _, err = call(["run", "--data", file, *words, "--objective", form.objective, "--out", folder, *RUN], capsys)
    assert code == 0, err
    check_audit(form, audit)
    check_run(form, folder, audit)


def check_audit(form: Form, audit: dict[str, Any]) -> None:
    """Counts and reasons are those that were counted by hand."""
    reasons = {row["id"].removeprefix(f"{form.file}:"): row["reason"] for row in audit["rejected"]}
    assert reasons == form.dropped
    assert audit["rows_read"] == len(form.rows)
    assert (audit["kept"], audit["dropped"]) == (form.kept, len(form.dropped))
    assert audit["rows"] == form.kept + len(form.dropped)
    assert audit["dropped_by_reason"] == Counter(form.dropped.values())
    assert set(form.notes) <= set(audit["notes"])


def check_run(form: Form, folder: Path, audit: dict[str, Any]) -> None:
    """What was prepared is what was audited; each row of the file is trained on, held out or dropped by name."""
    prepared = tree_of(folder / "data" / "audit.json")
    assert [prepared.get(key) for key in COUNTS] == [audit.get(key) for key in COUNTS]
    rows = {name: rows_of(folder / "data" / f"{name}.jsonl") for name in ("train", "heldout", "rejected")}
    assert len(rows["train"]) == prepared["train"] > 0
    assert len(rows["heldout"]) == prepared["heldout"]
    assert len(rows["train"]) + len(rows["heldout"]) == form.kept
    assert set(audit["notes"]) <= set(prepared["notes"])
    ids = [row["id"] for side in rows.values() for row in side]
    assert len(set(ids)) == len(ids) == audit["rows"]
    assert set().union(*map(rows_in, ids)) == set(range(1, len(form.rows) + 1))
    steps = rows_of(folder / "metrics.jsonl")
    assert len(steps) == 2
    assert all(math.isfinite(value) for step in steps for value in step.values())
    page = unescape(re.sub(r"<[^>]+>", "", (folder / "report.html").read_text(encoding="utf-8")))
    n_rows, noun = len(form.rows), "rows" if "labels" in audit else "pairs"
    head = f"{n_rows} rows read, {form.kept} kept, {len(form.dropped)} dropped."
    if audit["rows"] != n_rows:
        head = f"{n_rows} rows read. Of {audit['rows']} pairs, and rows that make none, {form.kept} were kept and "
        head += f"{len(form.dropped)} dropped."
    assert f"{head} {len(rows['train'])} {noun} were trained on, {len(rows['heldout'])} held out." in page
    for sentence in (*form.notes, *(f"{reason}{n}" for reason, n in Counter(form.dropped.values()).items())):
        assert sentence in page
