"""What a trained model stands on. A run whose inputs changed is another run, and is refused before it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trimtab import store
from trimtab.errors import ConfigError
from trimtab.runtime.run_setup import RunSetup


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """Digests: of the pairs as their source has them, of the tokenizer's files with the template, of the weights."""

    pairs: str
    tokenizer: str
    weights: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> TrainingInputs:
        return cls(tree["pairs"], tree["tokenizer"], tree["weights"])


def changes(setup: RunSetup, inputs: TrainingInputs) -> str:
    """In words, what is no longer what the run, or one of its seeds, was trained on; empty where nothing is.

    Also of a run that has only begun to train. What no file says (runs of earlier versions) counts as unchanged.
    """
    for single in setup.each_seed():
        folder = single.folder
        if folder.has_trained and folder.training_inputs.is_file():
            earlier = TrainingInputs.from_json(store.read_json(folder.training_inputs))
            if earlier != inputs:
                return _differences(setup, earlier, inputs)
    return ""


def _differences(setup: RunSetup, earlier: TrainingInputs, now: TrainingInputs) -> str:
    data, model = setup.config.data.label, setup.config.model.name
    sources = {
        f"the pairs of {data}": (earlier.pairs, now.pairs),
        f"the tokenizer or chat template of {model}": (earlier.tokenizer, now.tokenizer),
        f"the weights of {model}": (earlier.weights, now.weights),
    }
    return " and ".join(name for name, (before, after) in sources.items() if before != after)


def refuse_changed(setup: RunSetup, inputs: TrainingInputs) -> None:
    """Raises ConfigError, naming what changed, where the run has trained on something else."""
    if names := changes(setup, inputs):
        raise ConfigError(
            f"{setup.folder.root} was trained before {names} changed",
            remedy="put that back as it was, or give the new run another folder with --out",
        )
