"""Pairs from the model itself: sample answers to prompts, have them judged, write the pairs, audit them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab import store, windtunnel
from trimtab.commands import audit, dry_run
from trimtab.config import EMBEDDED_RECIPE, Config, files, merge, resolve, to_json
from trimtab.config.flags import setting
from trimtab.data.problems import RowProblem
from trimtab.errors import ConfigError, DataError
from trimtab.judging.questions import CallEstimate
from trimtab.progress import Reporter, SilentReporter
from trimtab.runtime import set_up
from trimtab.runtime.answer_judges import Candidates, comparisons_of
from trimtab.runtime.judges import judge_setup
from trimtab.runtime.judges.cached_endpoint import cached_endpoint
from trimtab.runtime.prompt_source import Prompts, read_prompts
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.sampled_pairs import PairingOptions, SampledPairs, heat_of, judged_pairs, sampled_answers
from trimtab.runtime.signals import Stop

_OF_TRAINING = ("objective", "adapter", "train", "select", "seed", "seeds")
_OF_AUDIT = ("max_rejected", "holdout", "eval", "eval_split")
_UNREAD = {  # of judging a benchmark, and of the embedded world's own labels
    "benchmark": {"name", "limit", "unaligned"},
    "judge": {"canaries", "allow_missing"},
    "generate": {"unaligned_served_as"},
    "windtunnel": {"length_bias", "label_noise", "judge_length_bias", "temperature"},
}
_OF_RECIPE = ("model", "data", "windtunnel", "engine", "generate", "judge", "objective", "train")


@dataclass(frozen=True, slots=True)
class PairsResult:
    """The file of pairs, how they came about, and their audit."""

    path: Path
    account: SampledPairs
    dropped_rows: tuple[RowProblem, ...]
    audit: audit.SourceAudit

    @property
    def summary(self) -> Path:
        """The same account as JSON, beside the pairs."""
        return summary_path(self.path)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            **self.account.to_json(),
            "prompts_dropped": [row.to_json() for row in self.dropped_rows],
            "audit": self.audit.to_json(),
        }

    def lines(self) -> list[str]:
        """The account for a terminal, and what the audit says of the file."""
        by_reason = Counter(row.reason for row in self.dropped_rows)
        return [
            *self.account.lines(),
            *(f"  {n:,} rows of prompts left out: {reason.sentence}" for reason, n in by_reason.most_common()),
            *audit.lines(self.audit),
        ]


def summary_path(pairs: Path) -> Path:
    """Where the account of a file of pairs lies."""
    return pairs.with_name(pairs.name + ".summary.json")


def resolve_config(prompts: str, flags: Mapping[str, Any], *, trains: bool = False, judges: bool = True) -> Config:
    """The configuration that is meant. Of the embedded world's prompts its recipe holds, unless another model is named.

    trains: rounds, which train on the pairs; without them keys of training have no effect and are refused.
    judges: False where a person will.
    """
    own = merge({}, flags)
    _refuse_idle(own, prompts, trains=trains)
    base = merge(setting("data.source", prompts), {"benchmark": prompts})
    if not trains:
        stem = re.sub(r"(\.\w+)?(\.gz)?$", "", Path(prompts.partition(",")[0]).name)
        base["out"] = f"{stem}.pairs.jsonl" if judges else stem
    if prompts == windtunnel.NAME and "model" not in own:
        recipe = files.read_file(EMBEDDED_RECIPE)
        base = merge({key: recipe[key] for key in _OF_RECIPE if trains or key not in _OF_TRAINING}, base)
    tree = merge(base, own)
    sampler = tree.get("generate", {})
    if sampler.get("sampler") == "openai" and "served_as" not in sampler and "model" in tree:
        tree = merge(tree, {"generate": {"served_as": tree["model"]["name"]}})
    if not judges:
        tree = {name: section for name, section in tree.items() if name != "judge"}
    config = resolve(tree)
    if judges and config.judge.kind == "none":
        raise ConfigError("nothing ranks the answers", remedy="add --judge openai:MODEL, reward:DIR, FILE.py or oracle")
    return config


def _refuse_idle(own: Mapping[str, Any], prompts: str, *, trains: bool) -> None:
    """Raises ConfigError for keys that would have no effect, and for a judge that does not know these prompts."""
    if "source" in own.get("data", {}):
        raise ConfigError("the prompts are named twice: PROMPTS and --data", remedy="leave --data out")
    if not trains and (idle := [name for name in _OF_TRAINING if name in own]):
        raise ConfigError(f"{idle[0]} has no effect here: nothing is trained", remedy="leave it out, or add --rounds")
    for section, keys in _UNREAD.items():
        if idle := sorted(keys & set(own.get(section, {}))):
            raise ConfigError(f"{section}.{idle[0]} has no effect on pairs of answers", remedy="leave it out")
    if own.get("judge", {}).get("name") == "oracle" and prompts != windtunnel.NAME:
        raise ConfigError(
            f"the oracle can judge only the embedded world, and the prompts are those of {prompts}",
            remedy="write `trimtab pairs windtunnel`, or name another judge",
        )


def main(config: Config, options: PairingOptions, *, reporter: Reporter) -> PairsResult:
    """Sample, judge, write `config.out` and its summary, audit. Stopped, the same command goes on: what was sampled and
    judged is in the caches of all runs."""
    path = Path(config.out)
    require(config, options)
    require_own(path, sources=tuple(config.data.sources))
    setup, prompts = set_up(config), prompts_of(config)
    for line in _plan_lines(setup, prompts, options):
        reporter.say(line)
    answers = sampled_answers(
        setup,
        model_folder(setup),
        prompts.sound,
        samples=options.samples,
        reporter=reporter,
        description="sampling answers",
    )
    account = judged_pairs(setup, prompts.sound, answers, options=options, reporter=reporter)
    return write(path, config, account, prompts.dropped_rows)


@dataclass(frozen=True, slots=True)
class PairsForecast:
    """What sampling and judging would take at most. `estimate`: of a judge that is paid, with every answer as long as
    may be sampled; None for one that costs no calls."""

    n_prompts: int
    n_answers: int
    judge: str
    estimate: CallEstimate | None

    def to_json(self) -> dict[str, Any]:
        calls = None if self.estimate is None else asdict(self.estimate)
        return {"prompts": self.n_prompts, "answers": self.n_answers, "judge": self.judge, "calls": calls}

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [f"{self.n_answers:,} answers to {self.n_prompts:,} prompts, ranked by {self.judge}"]
        if self.estimate is None:
            return [*lines, "that judge costs no calls"]
        return [*lines, *dry_run.estimate_lines(self.estimate), dry_run.ASSUMPTION]


def forecast(config: Config, options: PairingOptions) -> PairsForecast:
    """Nothing is sampled, asked or written."""
    require(config, options)
    prompts, setup, estimate = prompts_of(config).sound, set_up(config), None
    if config.judge.kind == "openai":
        text = "x" * dry_run.CHARACTERS_A_TOKEN * config.generate.max_new_tokens
        answers = tuple(text + "." * place for place in range(options.samples))
        comparisons = comparisons_of([Candidates(prompt, answers) for prompt in prompts])
        with cached_endpoint(config, reporter=SilentReporter(), stop=Stop()) as client:
            judge = judge_setup.endpoint_judge(setup, client)
            estimate = client.estimate(judge.questions([pair for group in comparisons for pair in group]))
    return PairsForecast(len(prompts), options.samples * len(prompts), config.judge.name, estimate)


def require(config: Config, options: PairingOptions) -> None:
    """Raises UserError for what cannot give pairs, before anything is sampled."""
    if options.samples < 2:
        raise ConfigError(f"--samples {options.samples} gives no two answers to compare", remedy="write --samples 4")
    if options.min_gap < 0:
        raise ConfigError(f"--min-gap {options.min_gap:g} is below zero", remedy="give the least gap of two scores")
    if heat_of(config) == 0:
        raise ConfigError(
            "generate.temperature = 0 gives the same answer every time", remedy="sample at a temperature such as 1"
        )
    judge_setup.require_of_answers(set_up(config))


def prompts_of(config: Config) -> Prompts:
    """The prompts that are named. Raises DataError where there are none."""
    world = config.windtunnel
    return read_prompts(config.data, world_seed=world.seed, n_tasks=world.pairs, offline=config.offline)


def model_folder(setup: RunSetup) -> Path | None:
    """Of the model that answers here; None for one that only a server has."""
    name = setup.config.model.name
    is_here = setup.config.generate.sampler == "local" or name == windtunnel.NAME or Path(name).exists()
    return setup.model_folder if is_here else None


def write(path: Path, config: Config, account: SampledPairs, dropped_rows: tuple[RowProblem, ...]) -> PairsResult:
    """The file of pairs, its audit and its summary. Raises DataError where there is no pair."""
    if not account.pairs:
        raise DataError("no pair came of it\n" + "\n".join(account.lines()), remedy="mend what the reasons name")
    store.write_jsonl(path, [pair.row(judge=account.judge) for pair in account.pairs])
    result = PairsResult(path, account, dropped_rows, audit.main(str(path), _audit_flags(config)))
    store.write_json(summary_path(path), result.to_json())
    return result


def _audit_flags(config: Config) -> dict[str, Any]:
    """Of an audit of all pairs as a run would begin on them; on tokens where the model is here."""
    tree = to_json(config)
    data = {key: value for key, value in tree["data"].items() if key.endswith("_tokens") or key in _OF_AUDIT}
    flags = {"data": data, "offline": config.offline}
    is_here = model_folder(set_up(config)) is not None
    return flags | ({"model": tree["model"]} if is_here else {})


def require_own(path: Path, *, sources: tuple[str, ...]) -> None:
    """Raises ConfigError where the file of pairs would take the place of something that this command did not write."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", remedy="name a file with --out, such as pairs.jsonl")
    if str(path) in sources or (path.exists() and not summary_path(path).exists()):
        raise ConfigError(f"{path} holds something else already", remedy="name another file with --out")


def _plan_lines(setup: RunSetup, prompts: Prompts, options: PairingOptions) -> list[str]:
    """What is about to be done, before anything is."""
    n, k, config = len(prompts.sound), options.samples, setup.config
    server = config.generate.base_url or config.base_url or "the sampler's server"
    by = "here" if config.generate.sampler == "local" else f"by {config.generate.served_as} at {server}"
    lines = [f"{n:,} prompts, {k} answers each: {n * k:,} to sample {by}, at temperature {heat_of(config):g}"]
    match config.judge.kind:
        case "openai":
            calls = n * k * (k - 1) // 2 * (2 if config.judge.both_orders else 1)
            lines.append(f"judge: {config.judge.name} compares every two answers: at most {calls:,} calls")
        case _:
            lines.append(f"judge: {config.judge.name} scores each answer: at most {n * k:,}")
    return lines
