"""A finished run's model on the Hugging Face Hub, with a card that says what was measured."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import store
from trimtab.commands.finished import finished_model
from trimtab.config import files
from trimtab.disk import size
from trimtab.errors import ConfigError, EndpointError
from trimtab.progress import Reporter
from trimtab.runtime.folder import MODEL_CARD, Folder
from trimtab.runtime.hub_card import hub_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True, slots=True)
class Push:
    """What was sent, or would be: `files` by name with their bytes. `url` is None where nothing was."""

    repo: str
    private: bool
    url: str | None
    files: Mapping[str, int]
    notes: tuple[str, ...]
    card: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"files": dict(self.files), "notes": list(self.notes)}


def main(
    run_folder: str,
    repo: str,
    *,
    private: bool = False,
    merged: bool = False,
    dry_run: bool = False,
    reporter: Reporter,
) -> Push:
    """Make the repository `repo` (owner/name) if it is not there, and commit the model's files and the card to it.

    merged: an adapter folded into its base. dry_run: nothing is sent and no token is needed. The token is the Hub
    client's own ($HF_TOKEN or `hf auth login`); it goes into its requests and nowhere else.
    Raises ConfigError for what cannot be pushed, EndpointError where the Hub refuses or cannot be reached.
    """
    _require_name(repo)
    model, folder = finished_model(run_folder), Folder(Path(run_folder))
    if not folder.report("json").is_file():
        raise ConfigError(f"{run_folder} has no report", remedy=f"write it first: trimtab report {run_folder}")
    if merged and not (model / "adapter_config.json").is_file():
        raise ConfigError("--merged has no effect here: the model is no adapter", remedy="leave it out")
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None and not dry_run:
        raise ConfigError("the Hub wants to know who you are", remedy="hf auth login, or a token in $HF_TOKEN")
    card = hub_card(
        (model / MODEL_CARD).read_text(encoding="utf-8"),
        repo=repo,
        config=files.stored_config(folder.root),
        report=store.read_json(folder.report("json")),
        merged=merged,
        secrets=(token or "",),
    )
    with _weights(run_folder, model, merged=merged) as source:
        paths = [path for path in sorted(source.iterdir()) if path.is_file() and path.name != store.MANIFEST]
        sizes = {path.name: path.stat().st_size for path in paths} | {MODEL_CARD: len(card.text.encode())}
        push = Push(repo, private, None, sizes, card.notes, card.text)
        if dry_run:
            return push
        reporter.say(f"push: {len(sizes)} files, {size(sum(sizes.values()))}, to {repo}")
        with _one_message(repo):
            url = _commit(HfApi(), push, paths)
    return Push(repo, private, url, sizes, card.notes, card.text)


def _commit(api: HfApi, push: Push, paths: list[Path]) -> str:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # exported without saying so

    if not sys.stderr.isatty():  # the client's bars are made of carriage returns
        disable_progress_bars()
    url = api.create_repo(push.repo, private=push.private or None, exist_ok=True)
    if push.private and not api.model_info(push.repo).private:
        raise ConfigError(
            f"{push.repo} is there already, and public", remedy="make it private there, or leave --private out"
        )
    operations = [CommitOperationAdd(path.name, str(path)) for path in paths if path.name != MODEL_CARD]
    operations.append(CommitOperationAdd(MODEL_CARD, push.card.encode()))
    api.create_commit(push.repo, operations, commit_message="Model and card from trimtab")
    return str(url)


@contextmanager
def _weights(run_folder: str, model: Path, *, merged: bool) -> Iterator[Path]:
    """The folder whose files go; a merged one lasts as long as the push."""
    if not merged:
        yield model
        return
    from trimtab.commands import export  # with torch

    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".push-") as place:
        yield export.main(run_folder, format="merged", to=str(Path(place) / "merged")).folder


@contextmanager
def _one_message(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status, first = error.response.status_code, (str(error).strip() or "no reason given").splitlines()[0]
        remedy = "try again later"
        if status in (401, 403):
            remedy = "hf auth login, or $HF_TOKEN, with a token that may write to it"
        raise EndpointError(f"{repo}: the Hub refuses ({first})", remedy=remedy) from error
    except ValueError as error:  # the Hub's validator of cards
        first = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{repo}: {first}", remedy="mend model/README.md") from error
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("httpx", "httpcore")):
            raise
        raise EndpointError(f"{repo}: the Hub cannot be reached ({error})", remedy="check the connection") from error


def _require_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported without saying so

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is no name on the Hub: {error}", remedy="write OWNER/NAME") from error
    if repo.count("/") != 1:
        raise ConfigError(f"{repo!r} names no owner", remedy="write OWNER/NAME")


def lines(push: Push) -> list[str]:
    """For a terminal: what went, or would go; of a dry run the card, too."""
    listing = [f"{name:<32} {size(n_bytes)}" for name, n_bytes in push.files.items()]
    notes = [f"note: {note}" for note in push.notes]
    if push.url is not None:
        return [*listing, *notes, push.url]
    visibility = "private" if push.private else "public"
    return [f"would go to {push.repo} ({visibility} where it is new):", *listing, *notes, "", *push.card.splitlines()]
