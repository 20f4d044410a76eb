"""The words of every page: a page is a headline and sections, a section is blocks. One template prints all of them.

    Page ── SummaryEntry…      the first screen: what was trained, did it help, did it harm, how sure
         ├─ Sentence…          all that came of it; what the summary leaves out stands in full below them
         └─ Section… ── Block  Text │ Sentences │ Table │ Facts │ Forest │ Figures │ Maps │ Code │ Terms │ …

Blocks hold what people read: numbers are formatted before they come here. A block that is empty is left out by whoever
makes the section, and so is a section without blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimtab.records import Estimate

Tone = Literal["good", "bad", "even", "warn", "plain"]
ForestKind = Literal["truth", "judge", "lc"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """`**…**` in the text is stress. A number keeps its unit on its line: build it with `sentence`."""

    text: str
    tone: Tone = "plain"

    def to_json(self) -> dict[str, str]:
        return {"text": self.text, "tone": self.tone}


def sentence(text: str, tone: Tone = "plain") -> Sentence:
    return Sentence(text.replace(" %", "\u00a0%"), tone)


# --- blocks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. `lead` opens a section, `note` is set small."""

    text: str
    kind: Literal["lead", "plain", "note"] = "plain"


@dataclass(frozen=True, slots=True)
class Heading:
    """Within a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Sentences:
    """A list of sentences, each in the colour of its tone."""

    sentences: Sequence[Sentence]


@dataclass(frozen=True, slots=True)
class Link:
    """A cell that leads to a file beside the page."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` have as many cells as `head`; the first column names the row. `title` set: folded under it.

    A `detail` is left out of the Markdown, as plots are. `text`: the other columns hold words, which wrap.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    title: str = ""
    open: bool = False
    detail: bool = False
    text: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, one a line. `title` set: folded under it."""

    rows: Sequence[tuple[str, str]]
    title: str = ""
    code: bool = False


@dataclass(frozen=True, slots=True)
class ForestRow:
    """`was`: the value before, as an open dot. `kind` picks the colour."""

    name: str
    estimate: Estimate
    note: str = ""
    kind: ForestKind = "judge"
    was: float | None = None


@dataclass(frozen=True, slots=True)
class Forest:
    """A dot and its interval a row, on one scale; `even` is where nothing has changed.

    Rows that have a value before get a legend.
    """

    rows: Sequence[ForestRow]
    label: str
    even: float | None
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing made by `analysis.plots`; `svg` goes in as it is."""

    svg: str
    title: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Plots side by side; with `beside`, a narrow table stands next to them."""

    plots: Sequence[Plot]
    beside: Table | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of a map. `colour` is a CSS colour; `marks` are words below the figure, such as `starved`."""

    figure: str
    interval: str = ""
    colour: str = ""
    marks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Map:
    """A figure over two axes, or over one (`column_axis` empty). `named`: rows are names, not values of an axis."""

    title: str
    row_axis: str
    column_axis: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""
    named: bool = False


@dataclass(frozen=True, slots=True)
class Maps:
    """Maps side by side."""

    maps: Sequence[Map]


@dataclass(frozen=True, slots=True)
class Code:
    """Commands or a text as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Terms:
    """A glossary: term and meaning."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Bullets:
    """Plain notes, one a bullet."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class SampleSide:
    """One answer: whose, its length with unit, whether it was cut at the limit."""

    label: str
    length: str
    text: str
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt with the answers before and after, and what the judges said."""

    prompt_id: str
    prompt: str
    before: SampleSide
    after: SampleSide
    family: str = ""
    verdicts: str = ""


@dataclass(frozen=True, slots=True)
class Samples:
    """Answers side by side."""

    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks under a title that opens. A `detail` is left out of the Markdown."""

    title: str
    blocks: Sequence[Block]
    open: bool = False
    detail: bool = False


Block = (
    Text | Heading | Sentences | Table | Facts | Forest | Figures | Maps | Code | Terms | Bullets | Samples | Fold
)  # fmt: skip


# --- the page --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Section:
    """`anchor` is the address on the page; `name` is how the navigation calls it."""

    anchor: str
    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class SummaryEntry:
    """A question of the first screen and what answers it. `main`: the one that the page is read for, set large."""

    question: str
    sentences: Sequence[Sentence]
    main: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """`kind` stands in the brand and the window's title (`report`, `sweep`, `probe`, `calibrate`, `compare`).

    `subject`: name and value, as chips under the title. `summary` is the first screen, 250 words at most with the
    title, the chips and the navigation; `sentences` are everything that the page concludes. `json_name`: the file
    beside the page that holds every number.
    """

    kind: str
    title: str
    subject: Sequence[tuple[str, str]]
    summary: Sequence[SummaryEntry]
    sentences: Sequence[Sentence]
    sections: Sequence[Section]
    json_name: str

    @property
    def tone(self) -> Tone:
        """Of the main answer."""
        return next(entry.sentences[0].tone for entry in self.summary if entry.main)

    @property
    def all_sections(self) -> list[Section]:
        """The sentences that the summary leaves out, in a section of their own, then the others."""
        texts = {sentence.text for entry in self.summary for sentence in entry.sentences}
        rest = [sentence for sentence in self.sentences if sentence.text not in texts]
        details = [Section("details", "In full", "What else was found", [Sentences(rest)])] if rest else []
        return [*details, *self.sections]
