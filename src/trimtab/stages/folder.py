"""The run folder: where each artefact lies, and which stage has already made it.

Stages speak only through these files. A stage that finished writes the digest of what it was made from; it is skipped
when that digest is unchanged and its files are still there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trimtab import store
from trimtab.config import Config
from trimtab.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths of one run. Nothing is created by asking for a path."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> Folder:
        return cls(Path(config.out))

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def versions(self) -> Path:
        return self.root / "versions.json"

    @property
    def data(self) -> Path:
        """`train.jsonl` and `heldout.jsonl` (TokenPair rows), `pairs.jsonl`, `audit.json`, `rejected.jsonl`."""
        return self.root / "data"

    @property
    def reference(self) -> Path:
        """A small JSON that names the folder of the global cache and the keys it was made from."""
        return self.root / "reference.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def visits(self) -> Path:
        """What the objective saw of each training pair at each optimizer step."""
        return self.root / "visits.jsonl"

    @property
    def heldout(self) -> Path:
        """Held-out rewards before and after training."""
        return self.root / "heldout.json"

    @property
    def milestones(self) -> Path:
        """Weights that the run may end with, until it has; afterwards only with `select.keep`."""
        return self.root / "milestones"

    @property
    def selection(self) -> Path:
        """Which milestone is in `model/`, why, and what held-out pairs said of each."""
        return self.root / "selection.json"

    @property
    def resumed(self) -> Path:
        """What `--resume-anyway` let pass; only where it was used."""
        return self.root / "resumed.json"

    @property
    def screening(self) -> Path:
        """What was done with responses whose gradient is zero; only where the run screened."""
        return self.root / "screening.json"

    def answers(self, benchmark: str, *, turns: bool = False) -> Path:
        """The aligned model's. Answers of several turns are lines of FastChat's form, others a list of AlpacaEval's."""
        return self.root / "answers" / f"{benchmark}.{_suffix(turns)}"

    def baseline_answers(self, benchmark: str) -> Path:
        """What the aligned model's answers are judged against: published ones, or the unaligned model's."""
        return self.root / "answers" / f"{benchmark}.baseline.json"

    def unaligned_answers(self, benchmark: str, *, turns: bool = False) -> Path:
        """The unaligned model's, where the baseline is another's or where answers are marked and not compared."""
        return self.root / "answers" / f"{benchmark}.unaligned.{_suffix(turns)}"

    def verdicts(self, benchmark: str, judge: str | None = None, *, turns: bool = False) -> Path:
        """Those of one of several judges, by name, or of the one that the configuration chose."""
        return self.root / "verdicts" / f"{benchmark}{'' if judge is None else '.' + judge}.{_suffix(turns)}"

    def unaligned_verdicts(self, benchmark: str) -> Path:
        """The unaligned model's answers against the same baseline, by the chosen judge."""
        return self.verdicts(benchmark, "unaligned")

    def canaries(self, benchmark: str) -> Path:
        """What the judge said of answers that must lose, or tie."""
        return self.verdicts(benchmark, "canaries")

    def judge(self, benchmark: str) -> Path:
        """Who judged: model, prompt, order, counts, cost."""
        return self.verdicts(benchmark, "judge")

    def report(self, suffix: str) -> Path:
        """`suffix` is json, html or md."""
        return self.root / f"report.{suffix}"

    def is_done(self, stage: str, inputs: str) -> bool:
        """Whether `stage` has finished from exactly these inputs and its files are still there."""
        note = self._note(stage)
        if not note.is_file():
            return False
        told = store.read_json(note)
        return told["inputs"] == inputs and all((self.root / name).exists() for name in told["outputs"])

    def finish(self, stage: str, inputs: str, outputs: Iterable[Path]) -> None:
        """Record that `stage` made `outputs` from `inputs` (a digest)."""
        names = sorted(path.relative_to(self.root).as_posix() for path in outputs)
        store.write_json(self._note(stage), {"inputs": inputs, "outputs": names})

    def require(self, path: Path, stage: str) -> Path:
        """`path`, or a clear word about the stage that has to run first."""
        if not path.exists():
            raise ConfigError(f"{path} is not there yet", remedy=f"run `trimtab {stage}` first, or `trimtab run`")
        return path

    def _note(self, stage: str) -> Path:
        return self.root / ".stages" / f"{stage}.json"


def _suffix(turns: bool) -> str:
    return "jsonl" if turns else "json"


def one_a_seed(config: Config) -> list[Config]:
    """The runs that a configuration with several seeds stands for, each in a folder of its own below `out`."""
    if config.seeds == 1:
        return [config]
    return [
        config.model_copy(update={"seed": seed, "seeds": 1, "out": f"{config.out}/seed-{seed}"})
        for seed in range(config.seed, config.seed + config.seeds)
    ]
