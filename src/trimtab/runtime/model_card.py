"""The README that lies beside the weights: what the model is, what it was made from, and how its training went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from trimtab.analysis.auc import auc_estimate
from trimtab.analysis.calibration import score_gaps
from trimtab.analysis.intervals import rate_interval
from trimtab.analysis.selection import MIN_PAIRS
from trimtab.config import Config, to_json
from trimtab.progress import printable
from trimtab.runtime import resuming
from trimtab.runtime.milestones import Selection
from trimtab.runtime.run_setup import RunSetup
from trimtab.version import __version__

PACKAGES = ("torch", "transformers", "peft")
_POLICY_LIMITS = (
    "- These figures say how the training went. Whether the answers are better is a matter for a judge: see the run's "
    "report."
)
_REWARD_USE = (
    "- `AutoModelForSequenceClassification` loads it; its one logit at the end of a conversation in the chat template "
    "is the score. Only the difference of two scores of one prompt means something. Its bias for length and its "
    "calibration are in the run's report."
)


def text(
    setup: RunSetup,
    *,
    rows: Sequence[Mapping[str, Any]],
    heldout: Mapping[str, Any],
    selection: Selection,
) -> str:
    """The card, in Markdown with the Hub's front matter. `rows` of metrics.jsonl, `heldout` as heldout.json has it."""
    config, objective, on_scores = setup.config, setup.objective, setup.objective.on_scores
    parameters = ", ".join(f"{name} {value}" for name, value in objective.parameters().items() if value is not None)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    lines = [
        "---",
        "library_name: " + ("peft" if config.adapter.kind == "lora" and not on_scores else "transformers"),
        f"base_model: {json.dumps(config.model.name)}",
        f"pipeline_tag: text-{'classification' if on_scores else 'generation'}",
        f"tags: [trimtab, {'reward-model' if on_scores else 'preference-optimization, alignment'}]",
        "---",
        "",
        f"# {_safe(config.model.name)}{', a reward model' if on_scores else f', aligned with {objective.name}'}",
        "",
        f"{_kind(config, on_scores=on_scores)} of `{_safe(config.model.name)}` on the preference pairs of "
        f"`{_safe(config.data.label)}`, "
        f"made by trimtab {__version__} ({versions}).",
        "",
        *([] if (source := setup.gguf_source) is None else [f"- Trained from weights {_safe(source.sentence)}"]),
        f"- Objective: {objective.name}" + (f" ({parameters})" if parameters else ""),
        *_training_figures(rows, has_dead_zone=objective.has_dead_zone),
        f"- Weights: after step {selection.picked} of {selection.last}, because {selection.why}",
        *([f"- {selection.early_end[0].upper()}{selection.early_end[1:]}"] if selection.early_end else []),
        *([f"- Warning: {selection.warning}"] if selection.warning else []),
        *_heldout_figures(heldout),
        *_changes(resuming.changes(setup.folder)),
        _REWARD_USE if on_scores else _POLICY_LIMITS,
        "",
        "## Configuration",
        "",
        "```json",
        json.dumps(to_json(config), indent=2, ensure_ascii=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def _kind(config: Config, *, on_scores: bool) -> str:
    if on_scores and config.adapter.kind == "lora":
        return "Sequence classifier with one output (trained as a LoRA adapter, which is merged in)"
    if on_scores:
        return "Sequence classifier with one output"
    if config.adapter.quantize != "none":
        return (
            f"LoRA adapter, trained against the base with its matrices in 4 bit ({config.adapter.quantize}; to be "
            "merged into a base rounded likewise, as `trimtab export --format merged` does),"
        )
    if config.adapter.kind == "lora":
        return "LoRA adapter"
    return "Full fine-tune but for the embeddings" if config.train.freeze_embeddings else "Full fine-tune"


def _training_figures(rows: Sequence[Mapping[str, Any]], *, has_dead_zone: bool) -> list[str]:
    if not rows:
        return []
    last, tail = rows[-1], rows[-max(1, len(rows) // 10) :]
    active = f"; pairs still active there: {sum(row['active/pair'] for row in tail) / len(tail):.0%}"
    return [
        f"- Training: {last['step']} optimizer steps, {last['epoch']:.3g} epochs, {last['seconds']:.0f} s",
        f"- Loss: {rows[0]['loss']:.4f} at the first step, {sum(r['loss'] for r in tail) / len(tail):.4f} over the "
        f"last {len(tail)}" + (active if has_dead_zone else ""),
    ]


def _heldout_figures(heldout: Mapping[str, Any]) -> list[str]:
    after = heldout["after"]
    if after is None:
        return []
    scores = score_gaps(after["reward_gaps"])
    if len(scores.right) < MIN_PAIRS:
        return [f"- Held-out pairs: {len(scores.right)}, too few to say how many are ranked right"]
    low, high = rate_interval(scores.right)
    if "labels" in after:
        gaps, good = np.array(after["reward_gaps"]), np.array(after["labels"])
        area = auc_estimate(np.where(good, gaps, -gaps)[None], good)
        bounds = "" if area.ci95 is None else f" (95 % CI {area.ci95[0]:.3f} to {area.ci95[1]:.3f}, .5 is chance)"
        value = "unknown" if area.value is None else f"{area.value:.3f}"
        return [
            f"- Held-out rows ({heldout['n']}): AUC of the reward, good against bad, {value}{bounds}; reward on the "
            f"label's side of the reference in {after['accuracy']:.1%}"
        ]
    return [
        f"- Held-out pairs ({heldout['n']}): reward accuracy {after['accuracy']:.3f} (95 % CI {low:.3f} to {high:.3f}, "
        f"ties as half; .5 is chance), gap {after['reward_gap']:.3f}"
    ]


def _changes(changes: Sequence[resuming.Change]) -> list[str]:
    return [
        f"- Resumed after step {change.after_step} though {'; '.join(_safe(line) for line in change.changed)}"
        for change in changes
    ]


def _safe(words: str) -> str:
    """A name as Markdown takes it: no backticks, no control characters."""
    return printable(words).replace("`", "'")
