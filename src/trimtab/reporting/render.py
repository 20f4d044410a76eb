"""The page as one self-contained HTML file and as Markdown.

Every value that a template prints passes through `visible`, then through autoescape: hostile text shows itself and does
nothing. The only markup that is let through as it is are our own drawings.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trimtab.reporting.forest import forest_layout
from trimtab.reporting.sections import Page
from trimtab.reporting.text import emphasis, fence, markdown, visible
from trimtab.version import __version__

_FENCE_OR_BLANK_LINES = re.compile(r"^(?P<fence>`{3,})text\n.*?^(?P=fence)$|\n{3,}", re.DOTALL | re.MULTILINE)
_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'  # HTML knows it; without it the page names no address at all


def page_html(page: Page) -> str:
    """One file without script and without a fetch; its policy forbids both."""
    return _environment().get_template("page.html.j2").render(page=page, version=__version__)


def page_md(page: Page) -> str:
    """The same in Markdown, without the plots."""
    text = _environment().get_template("page.md.j2").render(page=page, version=__version__)
    return _FENCE_OR_BLANK_LINES.sub(lambda match: match[0] if match["fence"] else "\n\n", text)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trimtab.reporting", "templates"),
        autoescape=select_autoescape(
            enabled_extensions=("html.j2",), disabled_extensions=("md.j2", "css"), default=True
        ),
        undefined=StrictUndefined,
        finalize=_make_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "emphasis": emphasis,
        "forest_layout": forest_layout,
        "kind": lambda value: type(value).__name__,
        "inline": _inline,
        "md": markdown,
        "fence": fence,
        "stressed": _stress,
    }
    return environment


def _make_visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _inline(svg: str) -> Markup:
    """A drawing made by `analysis.plots`, as markup."""
    assert svg.startswith("<svg"), "only our own drawings go in unescaped"
    assert "<script" not in svg, "a drawing has no script"
    return Markup(svg.replace(_NAMESPACE, "", 1))  # noqa: S704  # numbers and our own labels, no one's text


def _stress(text: str) -> str:
    """A sentence with its `**stress**` kept and everything else escaped for Markdown."""
    return "".join(f"**{markdown(part)}**" if strong else markdown(part) for part, strong in emphasis(text))
