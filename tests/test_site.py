"""The site: built strictly (a link or an anchor that leads nowhere fails), then every page of it in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from devtools import CHROMIUM, CONTRASTS, TOO_WIDE, browser

ROOT = Path(__file__).resolve().parents[1]
GENERATOR = ROOT / ".venv-site" / "bin" / "mkdocs"
AA = 4.5  # WCAG 2.2, level AA
# the theme's own: a list that scrolls downwards, and headings cut with an ellipsis
BY_DESIGN = ("md-sidebar", "md-ellipsis", "md-nav", "md-search", "md-header")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GENERATOR.is_file(), reason="no generator here: make site brings it"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


def test_every_page_fits_and_can_be_read(tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [GENERATOR, "build", "--site-dir", site], cwd=ROOT, check=True,
        env=os.environ | {"TRIMTAB_PYTHON": sys.executable, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    pages = sorted(
        path for path in site.rglob("*.html") if path.name != "404.html"
    )  # that one is served at any address
    assert {"index.html", "tutorials/laptop.html", "reference/keys.html", "findings.html"} <= {
        path.relative_to(site).as_posix() for path in pages
    }
    with browser(tmp_path / "profile") as chromium:
        for path in pages:
            page = chromium.open(path.as_uri())
            for width, dark in product((390, 1200), (False, True)):
                page.look(width=width, dark=dark)
                look = (path.name, width, "dark" if dark else "light")
                page.until(f"document.body.dataset.mdColorScheme === '{'slate' if dark else 'default'}'")
                wide = [name for name in page.value(TOO_WIDE) if not any(part in name for part in BY_DESIGN)]
                assert wide == [], look
                assert {text: ratio for text, ratio in page.value(CONTRASTS) if ratio < AA} == {}, look
            assert page.complaints() == [], path.name
            assert [url for url in page.requested() if not url.startswith(("file:", "data:"))] == [], path.name
            page.close()
