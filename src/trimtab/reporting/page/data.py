"""The audit of the data: rows in, rows out, why; what lengths alone give away; the first pair as the model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.reporting.page.answers import LONGEST_TEXT
from trimtab.reporting.sections import Block, Code, Fold, Heading, Section, Table, Text
from trimtab.reporting.text import number, shorten

_COLUMNS = {"median": "median", "mean": "mean", "p95": "95th percentile", "maximum": "maximum"}


def data(audit: Mapping[str, Any] | None) -> Section:
    """From `data/audit.json` as `data.audit.Audit` writes it; what an older version left out is not shown."""
    if audit is None:
        absent = Text("The audit of the data (data/audit.json) is not in this run folder.")
        return Section("data", "Data", "Data", [absent])
    blocks: list[Block] = [Text(_lead(audit), "lead")]
    if template := audit.get("template_sentence"):
        blocks.append(Text(template))
    blocks += [Text(note) for note in audit.get("notes", [])]
    blocks += _sources(audit.get("sources", []))
    reasons = sorted(audit.get("dropped_by_reason", {}).items(), key=lambda entry: -entry[1])
    if reasons:
        blocks.append(Table(["dropped because", "rows"], [[name, number(count)] for name, count in reasons]))
    return Section("data", "Data", "Data", [*blocks, *_lengths(audit), *_first_pair(audit.get("sample") or {})])


def _sources(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Where there are several."""
    if len(rows) < 2:
        return []
    n_trained = sum(row["train"] for row in rows)
    names = ("rows", "train", "heldout", "leaked", "dropped")
    table = [
        [row["source"], *(number(row[name]) for name in names), f"{number(100 * row['train'] / max(1, n_trained))} %"]
        for row in rows
    ]
    head = ["source", "rows", "trained on", "held out", "left out", "dropped", "share of the training pairs"]
    return [Table(head, table, title="sources")]


def _lengths(audit: Mapping[str, Any]) -> list[Block]:
    rows = [
        [f"{part}, {unit}", *(number(summary.get(key)) for key in _COLUMNS)]
        for unit, parts in audit.get("lengths", {}).items()
        for part, summary in parts.items()
    ]
    if not rows:
        return []
    bias = " ".join(_bias(unit, of_unit) for unit, of_unit in audit.get("length_bias", {}).items())
    by_source = [
        Text(_bias(f"characters, of {source} alone", row), "note")
        for source, row in audit.get("length_bias_by_source", {}).items()
    ]
    heading = Heading("Lengths of the pairs and what they give away")
    return [heading, Table(["", *_COLUMNS.values()], rows), Text(bias, "note"), *by_source]


def _first_pair(sample: Mapping[str, Any]) -> list[Block]:
    texts = [(name, str(sample[name])) for name in ("prompt", "chosen", "rejected") if name in sample]
    blocks = [block for name, text in texts for block in (Heading(name), Code(shorten(text, limit=LONGEST_TEXT)))]
    return [Fold("The first pair as the model sees it", blocks, detail=True)] if blocks else []


def _lead(audit: Mapping[str, Any]) -> str:
    n_rows, n_kept, n_dropped = (number(audit.get(key)) for key in ("rows", "kept", "dropped"))
    lead = f"{n_rows} rows read, {n_kept} kept, {n_dropped} dropped."
    noun = "rows" if "labels" in audit else "pairs"
    if (n_read := audit.get("rows_read", audit.get("rows"))) != audit.get("rows"):
        noun = "single responses" if "labels" in audit else noun
        lead = (
            f"{number(n_read)} rows read. Of {n_rows} {noun}, and rows that make none, {n_kept} were kept and "
            f"{n_dropped} dropped."
        )
    if audit.get("train") is not None:
        lead += f" {number(audit['train'])} {noun} were trained on, {number(audit.get('heldout'))} held out"
        lead += "." if (held := audit.get("evaluation")) is None else f", from {held}."
        if labels := audit.get("labels"):
            lead += f" {number(labels['good'])} are good, {number(labels['bad'])} bad."
        if audit.get("leaked"):
            lead += f" {number(audit['leaked'])} pairs have a prompt of the held-out set and were left out of training."
    overlap = audit.get("overlap_with_evaluation")
    if overlap is not None:
        lead += f" {number(overlap['rows'])} kept rows hold a prompt of the benchmark."
    return lead


def _bias(unit: str, bias: Mapping[str, Any]) -> str:
    if (longer := bias["chosen_longer"]) is None:
        start, sides = "", "good from bad responses"
    else:
        start, sides = (
            f"the chosen response is the longer one in {number(100 * longer)} % of the pairs; ",
            "chosen from rejected",
        )
    return (
        f"In {unit}: {start}length alone tells {sides} with an AUC of {number(bias['auc'], digits=2)} "
        f"(0.5 is no information), Cohen's d {number(bias['cohens_d'], digits=2)}."
    )
