"""What a trained model stands on. A run whose inputs changed is another run, and is refused before it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trimtab import store
from trimtab.config import DataSection
from trimtab.errors import ConfigError
from trimtab.runtime.run_setup import RunSetup


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """Digests: of the pairs as their source has them, of the tokenizer's files with the template, of the weights.

    sources, evaluation: of the pairs to train on, and of those held out by `data.eval`. They say in words what `pairs`
    tells apart; None for the embedded world, and for runs of versions that did not write them down.
    """

    pairs: str
    tokenizer: str
    weights: str
    sources: str | None = None
    evaluation: str | None = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """All that a trained model stands on."""
        return self.pairs, self.tokenizer, self.weights

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> TrainingInputs:
        return cls(tree["pairs"], tree["tokenizer"], tree["weights"], tree.get("sources"), tree.get("evaluation"))


def changes(setup: RunSetup, inputs: TrainingInputs) -> str:
    """In words, what is no longer what the run, or one of its seeds, was trained on; empty where nothing is.

    Also of a run that has only begun to train. What no file says (runs of earlier versions) counts as unchanged.
    """
    for single in setup.each_seed():
        folder = single.folder
        if folder.has_trained and folder.training_inputs.is_file():
            earlier = TrainingInputs.from_json(store.read_json(folder.training_inputs))
            if earlier.identity != inputs.identity:
                return _differences(setup, earlier, inputs)
    return ""


def _differences(setup: RunSetup, earlier: TrainingInputs, now: TrainingInputs) -> str:
    model = setup.config.model.name
    names = [] if earlier.pairs == now.pairs else _pair_differences(setup.config.data, earlier, now)
    if earlier.tokenizer != now.tokenizer:
        names.append(f"the tokenizer or chat template of {model}")
    if earlier.weights != now.weights:
        names.append(f"the weights of {model}")
    return " and ".join(names)


def _pair_differences(data: DataSection, earlier: TrainingInputs, now: TrainingInputs) -> list[str]:
    """Which pairs; a run of an earlier version does not say."""
    of_sources, of_evaluation = f"the pairs of {data.label}", f"the held-out pairs of {data.eval_label or 'data.eval'}"
    if earlier.sources is None:
        return [of_sources if data.eval is None else f"{of_sources} or {of_evaluation}"]
    names = [of_sources] if earlier.sources != now.sources else []
    return [*names, of_evaluation] if earlier.evaluation != now.evaluation else names


def refuse_changed(setup: RunSetup, inputs: TrainingInputs) -> None:
    """Raises ConfigError, naming what changed, where the run has trained on something else."""
    if names := changes(setup, inputs):
        raise ConfigError(
            f"{setup.folder.root} was trained before {names} changed",
            remedy="put that back as it was, or give the new run another folder with --out",
        )
