"""The run folder: where each artefact lies, and which stage has already made it.

Stages speak only through these files. A stage that finished leaves a note: the digest of what it was made from, and
the sha256 of each file that it made. It is skipped when the first is unchanged and its files are still there. A file
that is no longer what its stage left is refused by whoever reads it; but answers and verdicts, which have the public
forms that other tools write, are the user's to edit, and the report says that they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trimtab import store
from trimtab.errors import ConfigError, StoreError
from trimtab.records import TokenPair

MODEL_CARD = "README.md"  # the user's to edit, and no note speaks of it
PUBLIC_FORMS = ("answers", "verdicts")  # folders of the files that may be edited


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths of one run. Nothing is created by asking for a path."""

    root: Path

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
    def training_inputs(self) -> Path:
        """Digests of pairs, tokenizer and weights, as they were when the run was planned."""
        return self.root / "training_inputs.json"

    @property
    def has_trained(self) -> bool:
        """Whether there is a checkpoint or a model."""
        return self.model.is_dir() or any(self.checkpoints.glob("step-*"))

    @property
    def data(self) -> Path:
        """`train.jsonl` and `heldout.jsonl` (TokenPair rows), `pairs.jsonl`, `audit.json`, `rejected.jsonl`."""
        return self.root / "data"

    @property
    def reference(self) -> Path:
        """A small JSON that names the folder of the global cache and the keys it was made from."""
        return self.root / "reference.json"

    @property
    def precision(self) -> Path:
        """What `engine.dtype auto` was settled to, and the noise that it was settled by; only where it was auto."""
        return self.root / "precision.json"

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
    def outlook(self) -> Path:
        """What the run was heading for after its first steps, and where it went."""
        return self.root / "outlook.json"

    @property
    def heldout(self) -> Path:
        """Held-out rewards before and after training."""
        return self.root / "heldout.json"

    @property
    def check(self) -> Path:
        """What the models could do before and after, by sample; only where `trimtab check` was asked."""
        return self.root / "check.json"

    @property
    def milestones(self) -> Path:
        """Weights that the run may end with, until it has; afterwards only with `select.keep`."""
        return self.root / "milestones"

    @property
    def selection(self) -> Path:
        """Which milestone is in `model/`, why, and what held-out pairs said of each."""
        return self.root / "selection.json"

    @property
    def overrides(self) -> Path:
        """What `--resume-anyway` let pass; only where it was used."""
        return self.root / "resumed.json"

    @property
    def screening(self) -> Path:
        """What was done with responses whose gradient is zero; only where the run screened."""
        return self.root / "screening.json"

    def train_pairs(self) -> list[TokenPair]:
        """The pairs to train on, as `prepare` tokenised them."""
        return _token_pairs(self.data / "train.jsonl")

    def heldout_pairs(self) -> list[TokenPair]:
        """The pairs that are held out of training, as `prepare` tokenised them."""
        return _token_pairs(self.data / "heldout.jsonl")

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
        """Whether `stage` has finished from exactly these inputs and its files are still there.

        Raises StoreError where one of them is not what the stage left.
        """
        path = self._note_path(stage)
        if not path.is_file():
            return False
        note = _Note.read(path)
        if note.inputs != inputs or any(not (self.root / name).exists() for name in note.outputs):
            return False
        self._refuse_changed(note, note.outputs)
        return True

    def finish(self, stage: str, inputs: str, outputs: Iterable[Path]) -> None:
        """Record that `stage` made `outputs`, files and folders, from `inputs` (a digest)."""
        files = sorted(file for path in outputs for file in _files(path))
        digests = {file.relative_to(self.root).as_posix(): store.file_digest(file) for file in files}
        store.write_json(self._note_path(stage), {"inputs": inputs, "outputs": digests})

    def require(self, path: Path, stage: str) -> Path:
        """`path` as `stage` left it, or a clear word about the stage that has to run first."""
        if not path.exists():
            raise ConfigError(f"{path} is not there yet", remedy=f"run `trimtab {stage}` first, or `trimtab run`")
        return self.intact(path)

    def intact(self, path: Path) -> Path:
        """`path`, a file or folder. Raises StoreError where a file of it is not what the stage that made it left."""
        for note in self._notes():
            files = (self.root / name for name in note.outputs)
            below = [file for file in files if path == file or path in file.parents]
            self._refuse_changed(note, [file.relative_to(self.root).as_posix() for file in below])
        return path

    def edited_files(self) -> list[str]:
        """Answers and verdicts that are not what their stages left: names, relative to the run folder."""
        return [
            name
            for note in self._notes()
            for name, sha256 in note.outputs.items()
            if _is_public(name) and (self.root / name).is_file() and _digest_of(self.root / name) != sha256
        ]

    def _refuse_changed(self, note: _Note, names: Iterable[str]) -> None:
        for name in names:
            path = self.root / name
            if not path.is_file():
                raise StoreError(f"{path} is gone", remedy=f"`trimtab {note.stage} {self.root}` makes it again")
            if not _is_public(name) and _digest_of(path) != note.outputs[name]:
                raise StoreError(
                    f"{path} is not what `trimtab {note.stage}` left: damaged, edited, or being made again",
                    remedy="put it back from a copy, or delete it; the stage that made it will make it again",
                )

    def _notes(self) -> list[_Note]:
        paths = sorted((self.root / ".stages").glob("[!.]*.json"))  # a process may be at work on a hidden one
        return [_Note.read(path) for path in paths]

    def _note_path(self, stage: str) -> Path:
        return self.root / ".stages" / f"{stage}.json"


@dataclass(frozen=True, slots=True)
class _Note:
    """What a finished stage left: the digest of its inputs, and the sha256 of each of its files by name."""

    stage: str
    inputs: str
    outputs: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> _Note:
        match store.read_json(path):
            case {"inputs": str() as inputs, "outputs": dict() as outputs}:
                if all(isinstance(sha256, str) for sha256 in outputs.values()):
                    return cls(path.stem, inputs, outputs)
        raise StoreError(
            f"{path} does not have the form that this version of trimtab reads",
            remedy="delete the file; the stage that made it will make it again",
        )


def _token_pairs(path: Path) -> list[TokenPair]:
    return [TokenPair.from_json(row) for row in store.iter_jsonl(path)]


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    yield from (file for file in path.rglob("*") if file.is_file() and file.name != MODEL_CARD)


def _is_public(name: str) -> bool:
    return name.partition("/")[0] in PUBLIC_FORMS


def _digest_of(path: Path) -> str:
    status = path.stat()
    return _digest(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1024)
def _digest(path: Path, _version: tuple[int, int, int]) -> str:
    """Once a process and version: every stage of a run looks at what the ones before it left."""
    return store.file_digest(path)


def _suffix(turns: bool) -> str:
    return "jsonl" if turns else "json"
