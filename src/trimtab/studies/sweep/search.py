"""A search instead of a grid: the next point is proposed from what the earlier ones came to, by optuna's TPE.

Nothing of optuna is kept. The ledger has the trials, and each proposal is made from them anew, by a study in memory and
a sampler whose seed is that of the search and the number of the trial. So a search that was stopped goes on as it would
have, no stored study decides its direction, and a trial that a dead process left running counts for nothing.

J. Bergstra, R. Bardenet, Y. Bengio, B. Kégl: Algorithms for Hyper-Parameter Optimization (NeurIPS 2011), section 4.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trimtab.errors import ConfigError
from trimtab.studies.sweep.grid import RANGE, Axis, is_range
from trimtab.studies.sweep.numbers import PointNumbers
from trimtab.studies.sweep.result import Headline
from trimtab.studies.sweep.run_table import Run
from trimtab.studies.sweep.sweep_file import text_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LOG_FROM = 10.0  # a range whose ends are so many times apart is searched by its logarithm
DIGITS = 3  # of a proposed number: names and files stay readable
FRESH_TRIES = 50  # proposals in a row that have all been tried, after which the search has nothing new

Texts = Mapping[str, str]  # values by dotted key, as flags write them
TrialState = Literal["done", "pruned", "running", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A point that was proposed. `value` (of one that is done): what is searched for, the larger the better.

    pruned: it ended early, as starved or as distinguishably worse than earlier trials, which is worth knowing.
    """

    texts: Texts
    state: TrialState
    value: float | None = None

    @classmethod
    def of(cls, texts: Texts, runs: Sequence[Run]) -> Trial:
        """From the runs of the point's seeds."""
        states = {run.state for run in runs}
        values = [value for run in runs if run.state == "done" and (value := objective(run.numbers)) is not None]
        if states & {"waiting", "running", "stopped"}:
            return cls(texts, "running")
        if states & {"starved", "pruned"}:
            return cls(texts, "pruned")
        if "failed" in states or len(values) < len(runs):
            return cls(texts, "failed")
        return cls(texts, "done", sum(values) / len(values))


def objective(numbers: PointNumbers | None) -> float | None:
    """A run's win rate by the first judge, or its mean mark; without a judge its held-out accuracy."""
    if headline := Headline.of(numbers):
        return headline.estimate.value
    accuracy = None if numbers is None else numbers.answers.heldout_accuracy
    return None if accuracy is None else accuracy.value


@dataclass(frozen=True, slots=True)
class Search:
    """So many trials over these axes: of each the values that it lists, or a range, `1e-5..1e-3`.

    whole: keys whose values are whole numbers.
    """

    axes: tuple[Axis, ...]
    n_trials: int
    seed: int
    whole: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raises ConfigError for what cannot be searched, and without optuna."""
        if self.n_trials < 1:
            raise ConfigError(f"--trials {self.n_trials} is no number of trials", remedy="write --trials 20")
        _optuna()
        for axis in self.axes:
            self._distribution(axis)

    def propose(self, trials: Sequence[Trial]) -> Texts | None:
        """The next point; None where there are enough, or nothing new is left."""
        if len(trials) >= self.n_trials:
            return None
        optuna = _optuna()
        space = {axis.key: self._distribution(axis) for axis in self.axes}
        history = [_frozen(trial, space) for trial in trials if trial.state != "failed"]
        past = [dict(trial.texts) for trial in trials]
        for attempt in range(FRESH_TRIES):
            seed = self.seed * 1_000_003 + len(trials) * FRESH_TRIES + attempt
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # optuna calls constant_liar experimental
                sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.add_trials(history)
            texts = {key: _proposal(value, space[key]) for key, value in study.ask(space).params.items()}
            if texts not in past:
                return texts
        return None

    def to_json(self) -> dict[str, Any]:
        return {"sampler": "TPE", "trials": self.n_trials, "axes": {axis.key: list(axis.values) for axis in self.axes}}

    def _distribution(self, axis: Axis) -> BaseDistribution:
        """Raises ConfigError for a range that is none."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if not is_range(axis):
            return CategoricalDistribution(axis.values)
        low_text, _, high_text = axis.values[0].partition(RANGE)
        try:
            low, high = float(low_text), float(high_text)
            if not low < high < float("inf"):
                raise ValueError
        except ValueError:
            raise ConfigError(f"{axis.key}={axis.values[0]} is no range", remedy="write it as 1e-5..1e-3") from None
        is_log = low > 0 and high / low >= LOG_FROM
        if axis.key in self.whole and low.is_integer() and high.is_integer():
            return IntDistribution(int(low), int(high), log=is_log)
        return FloatDistribution(low, high, log=is_log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        remedy = "pip install 'trimtab[sweep]', or leave --trials out"
        raise ConfigError("--trials needs optuna", remedy=remedy) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _proposal(value: object, distribution: BaseDistribution) -> str:
    """As a flag would have it; a number of three digits, within its range."""
    if not isinstance(value, float):
        return str(value)
    low, high = getattr(distribution, "low", value), getattr(distribution, "high", value)
    return text_of(min(max(float(f"{value:.{DIGITS}g}"), low), high), "a proposal")


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial as optuna has them. One of an earlier, wider range counts as at its end."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState as State
    from optuna.trial import create_trial

    params: dict[str, Any] = {}
    for key, distribution in space.items():
        text = trial.texts[key]
        if isinstance(distribution, CategoricalDistribution):
            params[key] = text
        else:
            low, high = getattr(distribution, "low", None), getattr(distribution, "high", None)
            assert low is not None
            assert high is not None
            params[key] = type(low)(min(max(float(text), low), high))
    states = {"done": State.COMPLETE, "pruned": State.PRUNED, "running": State.RUNNING}
    return create_trial(state=states[trial.state], params=params, distributions=dict(space), value=trial.value)
