"""What names a run's results: all that its reference log-probabilities, and its trajectory, depend on."""

from __future__ import annotations

from typing import Any

from trimtab import store
from trimtab.config import Config, PythonObjectiveSection, to_json
from trimtab.engine import identity
from trimtab.engine.reference import ReferenceKey
from trimtab.records import digest
from trimtab.runtime.run_setup import RunSetup

# keys of `train` that change what is kept of a run, not what it is
_OF_KEEPING = frozenset({"save_every", "keep_checkpoints"})
_LATER = frozenset({"max_minutes"})  # keys that earlier versions had not; where they are not set, their runs go on


def reference_key(setup: RunSetup) -> ReferenceKey:
    """All that a reference log-probability depends on, known without loading the model."""
    config, folder = setup.config, setup.folder
    model = identity.identify(str(setup.reference_folder), offline=config.offline)
    audit = store.read_json(folder.require(folder.data / "audit.json", "prepare"))
    return ReferenceKey(
        weights=model.weights,
        adapter=model.adapter,
        tokenizer=f"{model.tokenizer}/{audit['template']}",
        truncation=(config.data.max_prompt_tokens, config.data.max_response_tokens),
        dtype=setup.precision,
        device=setup.device.type,
        packed=config.engine.packed != "off",
        quantized=None if config.adapter.quantize == "none" else config.adapter.quantize,
    )


def run_identity(setup: RunSetup) -> dict[str, Any]:
    """All that a trajectory depends on, key by key. What changes only its cost, or its rounding, is left out."""
    config, objective, folder = setup.config, setup.objective, setup.folder
    tree, key = to_json(config), reference_key(setup)
    return {
        "model": key.digest,
        **({} if setup.begins_at_reference else {"policy": setup.model_identity.weights}),
        "data": digest([store.file_digest(folder.data / name) for name in ("train.jsonl", "heldout.jsonl")]),
        "seed": config.seed,
        "engine.dtype": key.dtype,
        "engine.shrinking": config.engine.shrinking,
        "objective": objective.name,
        **_python_class(config),
        **{f"objective.{name}": value for name, value in objective.parameters().items()},
        **{f"adapter.{name}": value for name, value in tree["adapter"].items()},
        **{
            f"train.{name}": value
            for name, value in tree["train"].items()
            if name not in _OF_KEEPING and not (name in _LATER and value is None)
        },
    }


def _python_class(config: Config) -> dict[str, str]:
    """Two programs may give their classes one name."""
    section = config.objective
    return {"objective.python_class": section.python_class} if isinstance(section, PythonObjectiveSection) else {}
