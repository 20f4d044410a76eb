"""A model with a built-in chat template beside it: a folder of links in the global cache, like any other model's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from trimtab import store
from trimtab.data.builtin_templates import TemplateName, builtin_template
from trimtab.data.loading import tokenizer_of
from trimtab.engine import identity
from trimtab.records import digest

TEMPLATE_FILE = "chat_template.jinja"


def with_template(folder: Path, name: TemplateName, *, model: str) -> Path:
    """The folder's files and the template's. Raises ConfigError where the template does not fit the tokenizer."""
    text = builtin_template(name, tokenizer_of(str(folder), offline=True), model=model)
    files = identity.identify(str(folder))
    target = store.home() / "templates" / digest([files.weights, files.tokenizer, str(folder.resolve()), text])[:16]
    if not (target / TEMPLATE_FILE).is_file():
        target.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.is_file():
                with suppress(FileExistsError):  # another run makes the same folder
                    (target / path.name).symlink_to(path.resolve())
        store.write_text(target / TEMPLATE_FILE, text)  # last: with it the folder is whole
    return target
