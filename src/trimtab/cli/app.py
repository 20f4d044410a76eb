"""The application that commands are hung on, and what their words look like."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from trimtab.version import __version__

app = App(
    name="trimtab",
    version=__version__,
    help="Align small language models with preference pairs, and say honestly whether it helped.",
    help_format="plaintext",
)

Words = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="print one JSON object on stdout, nothing else")]
