"""The page as one self-contained HTML file and as Markdown.

Every value that a template prints passes through `visible`, then through autoescape: hostile text shows itself and does
nothing. The only markup that is let through as it is are our own drawings.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.stages.reporting.text import emphasis, fence, markdown, visible

_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'  # HTML knows it; without it the page names no address at all


def html(page: Mapping[str, Any]) -> str:
    """One file without script and without a fetch; its policy forbids both."""
    environment = _environment(autoescape=True)
    css = environment.loader.get_source(environment, "report.css")[0] if environment.loader else ""
    return environment.get_template("report.html.j2").render(page=page, css=Markup(css))


def md(page: Mapping[str, Any]) -> str:
    """The same in Markdown, without the plots."""
    return _environment(autoescape=False).get_template("report.md.j2").render(page=page)


@cache
def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("trimtab.stages.reporting", "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"emphasis": emphasis, "inline": _inline, "md": markdown, "fence": fence, "stressed": _stressed}
    return environment


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _inline(svg: str) -> Markup:
    """A drawing made by `analysis.plots`, as markup."""
    assert svg.startswith("<svg") and "<script" not in svg, "only our own drawings go in unescaped"
    return Markup(svg.replace(_NAMESPACE, "", 1))


def _stressed(text: str) -> str:
    """A sentence with its `**stress**` kept and everything else escaped for Markdown."""
    return "".join(f"**{markdown(part)}**" if strong else markdown(part) for part, strong in emphasis(text))
