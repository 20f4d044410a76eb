"""A matplotlib figure as an inline SVG that takes its ink from the page around it.

Text stays text, the background stays transparent, the size is a viewBox only, ids cannot clash with those of another
figure on the page, and the same figure gives the same bytes. Colours are written twice: a fixed one, and a CSS custom
property that a page may set (`--chosen`, `--rejected`, `--before`, `--after`, `--third`); lines and text of the frame
are `currentColor`. So one drawing serves light and dark, alone or inside a report.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Sentinels: matplotlib draws with the first, the file holds the second, a page may set the third. The fixed colours
# keep a contrast of at least 3 : 1 on white and on near-black.
INK = "#010203"
PALETTE = {
    "chosen": "#0b8078",
    "rejected": "#c2612a",
    "before": "#7d8a92",
    "after": "#0b807a",
    "third": "#8468b8",
}

_ROLES = {colour: role for role, colour in PALETTE.items()}
_COLOUR = re.compile(rf"(?P<name>fill|stroke): (?P<colour>{'|'.join(_ROLES)})")
_COORDINATES = re.compile(r' (?:d|x|y|points|transform)="[^"]*"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_GROUP_ID = re.compile(r' id="[A-Za-z0-9.]+_\d+"')  # figure_1, matplotlib.axis_2: nothing points to them
_TARGET_ID = re.compile(r"""(?<= id=")[^"]+|(?<=href="#)[^"]+|(?<=url\(#)[^)]+""")  # of markers and clip paths
_STYLE_SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)


@contextmanager
def drawing_style() -> Iterator[None]:
    """matplotlib's settings for every figure here; restored on leaving."""
    import matplotlib as mpl

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    style = ink | {
        "svg.fonttype": "none",
        "svg.hashsalt": "trimtab",
        "font.size": 10,
        "font.sans-serif": ["DejaVu Sans"],  # what texts are measured with; the page's own font draws them
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "figure.constrained_layout.use": True,
    }
    with mpl.rc_context(style):
        yield


def to_svg(figure: Any, *, title: str) -> str:
    """The figure (a `matplotlib.figure.Figure`) as one `<svg>` element; `title` is what a screen reader says."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    _, _, text = buffer.getvalue().partition("<svg ")
    _, _, body = text.partition(">")
    # the style sheet would reach every drawing on the page: its rules go on the root
    body = _GROUP_ID.sub("", _STYLE_SHEET.sub("", body, count=1)).replace("xlink:href", "href")
    body = _COORDINATES.sub(lambda match: _LONG_NUMBER.sub(_two_decimals, match[0]), body)
    body = body.replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif").replace(INK, "currentColor")
    body = _COLOUR.sub(_fixed_and_property, body)
    prefix = f"t{hashlib.sha256(body.encode()).hexdigest()[:8]}-"
    body = _TARGET_ID.sub(lambda match: prefix + match[0], body)
    width, height = (72 * inches for inches in figure.get_size_inches())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'stroke-linejoin="round" stroke-linecap="butt"><title>{html.escape(title)}</title>{body.strip()}'
    )


def _two_decimals(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


def _fixed_and_property(declaration: re.Match[str]) -> str:
    """The second declaration wins wherever custom properties are known."""
    name, colour = declaration["name"], declaration["colour"]
    return f"{name}: {colour}; {name}: var(--{_ROLES[colour]},{colour})"


def new_figure(*, height: float, width: float = 3.4 * 72) -> Any:
    """An empty figure of `width` × `height` points, without the global state of pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72))
