"""A matplotlib figure as an inline SVG that takes its ink from the page around it.

Text stays text, the background stays transparent, the size is a viewBox only, ids cannot clash with those of another
figure on the page, and the same figure gives the same bytes. Colours are written twice: a fixed one, and a CSS custom
property that a page may set (`--chosen`, `--rejected`, `--before`, `--after`, `--third`); lines and text of the frame
are `currentColor`. So one drawing serves light and dark, alone or inside a report.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"^(?:(?P<weight>bold|\d{3}) )?(?P<size>[\d.]+)px\b")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")


@contextmanager
def drawing_style() -> Iterator[None]:
    """matplotlib's settings for every figure here; restored on leaving."""
    import matplotlib as mpl

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    style = ink | {
        "svg.fonttype": "none",
        "svg.hashsalt": "trimtab",
        "font.size": 10,
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


def to_svg(figure: Figure, *, title: str) -> str:
    """The figure as one `<svg>` element; `title` is what a screen reader says."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314  our own output of the line above
    for child in [element for element in root if element.tag == f"{_SVG}metadata"]:
        root.remove(child)
    _strip_styles(root)
    for element in root.iter():
        _plain_attributes(element)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("font-family", "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif")
    heading = ET.Element(f"{_SVG}title")
    heading.text = title
    root.insert(0, heading)
    _own_ids(root)
    ET.register_namespace("", "http://www.w3.org/2000/svg")
    return ET.tostring(root, encoding="unicode")


def _strip_styles(root: ET.Element) -> None:
    """matplotlib writes a style sheet that would reach every drawing on the page; its two rules go on the root."""
    for parent in root.iter():
        for child in [element for element in parent if element.tag == f"{_SVG}style"]:
            parent.remove(child)
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")


def _plain_attributes(element: ET.Element) -> None:
    """Style attributes become presentation attributes, so that the drawing also holds under a strict policy."""
    style = element.attrib.pop("style", "")
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = declaration.partition(":")
        _set(element, name.strip(), value.strip())
    if _HREF in element.attrib:
        element.set("href", element.attrib.pop(_HREF))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name in ("d", "x", "y", "points"):
        if name in element.attrib:
            element.set(name, _NUMBER.sub(lambda number: f"{float(number[0]):.2f}", element.attrib[name]))


def _set(element: ET.Element, name: str, value: str) -> None:
    if name == "font-family":  # the root names the page's own
        return
    if name == "font":  # before matplotlib 3.11 one shorthand, since then single properties
        font = _FONT.match(value)
        assert font is not None, f"matplotlib wrote a font of an unknown form: {value}"
        element.set("font-size", font["size"])
        if font["weight"]:
            element.set("font-weight", font["weight"])
    elif value.lower() == INK:
        element.set(name, "currentColor")
    else:
        element.set(name, value)
        role = next((role for role, colour in PALETTE.items() if colour == value.lower()), None)
        if role is not None:
            element.set("style", f"{element.get('style', '')}{name}:var(--{role},{value});")


def _own_ids(root: ET.Element) -> None:
    """Keep only the ids that something points to, under a prefix made of the drawing itself."""
    text = ET.tostring(root, encoding="unicode")
    prefix = f"t{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    targets = set(re.findall(r"#([\w.-]+)\)", text)) | set(re.findall(r'href="#([\w.-]+)"', text))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in targets:
            element.set("id", prefix + str(identity))
        for name, value in element.attrib.items():
            if name == "href":
                element.set(name, value.replace("#", f"#{prefix}", 1))
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}"))


def new_figure(*, height: float, width: float = 3.4 * 72) -> Any:
    """An empty figure of `width` × `height` points, without the global state of pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72))
