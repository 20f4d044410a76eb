"""The README that lies beside the weights: what the model is, what it was made from, and how its training went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from trimtab.config import Config, to_json
from trimtab.progress import printable
from trimtab.runtime.run_setup import RunSetup
from trimtab.version import __version__

PACKAGES = ("torch", "transformers", "peft")


def text(
    setup: RunSetup,
    *,
    rows: Sequence[Mapping[str, Any]],
    heldout: Mapping[str, Any],
    selected: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The card, in Markdown with the Hub's front matter. `changes`: those of `resuming.changes`."""
    config, objective = setup.config, setup.objective
    kind = _kind(config)
    parameters = ", ".join(f"{name} {value}" for name, value in objective.parameters().items() if value is not None)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    lines = [
        "---",
        "library_name: " + ("peft" if config.adapter.kind == "lora" else "transformers"),
        f"base_model: {json.dumps(config.model.name)}",
        "pipeline_tag: text-generation",
        "tags: [trimtab, preference-optimization, alignment]",
        "---",
        "",
        f"# {_said(config.model.name)}, aligned with {objective.name}",
        "",
        f"{kind} of `{_said(config.model.name)}` on the preference pairs of `{_said(config.data.source)}`, made by "
        f"trimtab {__version__} ({versions}).",
        "",
        f"- Objective: {objective.name}" + (f" ({parameters})" if parameters else ""),
        *_figures(rows),
        f"- Weights: after step {selected['picked']} of {selected['last']}, because {selected['why']}",
        *_heldout(heldout),
        *_changes(changes),
        "- These figures say how the training went. Whether the answers are better is a matter for a judge: see the "
        "run's report.",
        "",
        "## Configuration",
        "",
        "```json",
        json.dumps(to_json(config), indent=2, ensure_ascii=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def _kind(config: Config) -> str:
    if config.adapter.quantize != "none":
        return (
            f"LoRA adapter, trained against the base with its matrices in 4 bit ({config.adapter.quantize}; to be "
            "merged into a base rounded likewise, as `trimtab export --format merged` does),"
        )
    if config.adapter.kind == "lora":
        return "LoRA adapter"
    return "Full fine-tune but for the embeddings" if config.train.freeze_embeddings else "Full fine-tune"


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    last, tail = rows[-1], rows[-max(1, len(rows) // 10) :]
    active = sum(row["active/pair"] for row in tail) / len(tail)
    return [
        f"- Training: {last['step']} optimizer steps, {last['epoch']:.3g} epochs, {last['seconds']:.0f} s",
        f"- Loss: {rows[0]['loss']:.4f} at the first step, {sum(r['loss'] for r in tail) / len(tail):.4f} over the "
        f"last {len(tail)}; pairs still active there: {active:.0%}",
    ]


def _heldout(told: Mapping[str, Any]) -> list[str]:
    after = told["after"]
    if after is None:
        return []
    return [f"- Held-out pairs ({told['n']}): reward accuracy {after['accuracy']:.3f}, gap {after['reward_gap']:.3f}"]


def _changes(told: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"- Resumed after step {one['after_step']} though {'; '.join(_said(words) for words in one['changed'])}"
        for one in told
    ]


def _said(words: str) -> str:
    """A name as Markdown takes it: no backticks, no control characters."""
    return printable(words).replace("`", "'")
