"""What finished work left, as a notebook wants it: a model, a frame of metrics, a report that shows itself."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import store
from trimtab.errors import ConfigError, require_package

if TYPE_CHECKING:
    import pandas

FRAME_HEIGHT = 720  # pixels of a report shown in a notebook, which scrolls inside


@dataclass(frozen=True, slots=True)
class Report(Mapping[str, Any]):
    """A page and its numbers: a mapping with the keys of the JSON file (`report.json`, `sweep.json`).

    A notebook shows the page itself, in a frame that runs no script and fetches nothing.
    """

    numbers: Mapping[str, Any]
    html: Path

    def __getitem__(self, key: str) -> Any:
        return self.numbers[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def _repr_html_(self) -> str:
        page = html.escape(self.html.read_text(encoding="utf-8"), quote=True)
        return f'<iframe sandbox srcdoc="{page}" width="100%" height="{FRAME_HEIGHT}" style="border:0"></iframe>'

    def __repr__(self) -> str:
        return f"Report({str(self.html)!r})"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, by its folder. It may also be opened later: `trimtab.Run(Path("runs/mine"))`."""

    folder: Path

    @property
    def seeds(self) -> tuple[Run, ...]:
        """The run of each seed, where there are several; else the run itself."""
        folders = sorted(self.folder.glob("seed-*"), key=lambda path: int(path.name.removeprefix("seed-")))
        return tuple(Run(path) for path in folders) or (self,)

    @property
    def model(self) -> Path:
        """The aligned model's folder, for transformers or PEFT. Raises ConfigError where seeds have one each."""
        if len(self.seeds) > 1:
            raise ConfigError(f"{self.folder} has a model for each seed", remedy="name one: run.seeds[0].model")
        return self.folder / "model"

    def load(self) -> tuple[Any, Any]:
        """The aligned model, an adapter merged in, in eval mode on the fastest device, and its tokenizer."""
        from trimtab.commands.finished import finished_model
        from trimtab.engine import models

        loaded = models.load(str(finished_model(str(self.model.parent))))
        return loaded.model, loaded.tokenizer

    @property
    def metrics(self) -> pandas.DataFrame:
        """`metrics.jsonl`, a row an optimizer step; several seeds one after another, by `seed`."""
        require_package("pandas", extra="hub", reason="metrics as a data frame")
        import pandas

        if len(self.seeds) == 1:
            return pandas.DataFrame(store.read_jsonl(self.folder / "metrics.jsonl"))
        numbers = [int(run.folder.name.removeprefix("seed-")) for run in self.seeds]
        frames = [run.metrics.assign(seed=number) for number, run in zip(numbers, self.seeds, strict=True)]
        return pandas.concat(frames, ignore_index=True)

    def report(self) -> Report:
        """The report. Raises ConfigError where none was written."""
        return _report(self.folder, "report")

    def push(self, repo: str, *, private: bool = False, merged: bool = False) -> str:
        """The model on the Hub as `repo` (owner/name), with its card; gives the address. As `trimtab push`."""
        from trimtab.commands import push
        from trimtab.progress import reporter

        result = push.main(str(self.folder), repo, private=private, merged=merged, reporter=reporter(quiet=True))
        assert result.url is not None
        return result.url

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A finished sweep, by its folder."""

    folder: Path

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run that has ended with a model, by point and seed."""
        return tuple(Run(path.parent) for path in sorted(self.folder.glob("points/*/seed-*/model")))

    def report(self) -> Report:
        """The map, with the keys of `trimtab sweep --json`."""
        return _report(self.folder, "sweep")

    def __repr__(self) -> str:
        return f"Sweep({str(self.folder)!r})"


def _report(folder: Path, name: str) -> Report:
    numbers, page = folder / f"{name}.json", folder / f"{name}.html"
    if not numbers.is_file() or not page.is_file():
        raise ConfigError(f"{folder} has no {name} yet", remedy=f"finish it first: `trimtab {name} {folder}` writes it")
    return Report(store.read_json(numbers), page)
