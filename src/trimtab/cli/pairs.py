"""The command that makes pairs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from trimtab.cli.app import AsJson, switch
from trimtab.cli.configuration import NO_KEYS
from trimtab.cli.terminal import reporter, show
from trimtab.config.flags import Keys, tree
from trimtab.data.pair_rules import LENGTH_RATIO, Rule


def pairs(
    prompts: str,
    /,
    *,
    samples: Annotated[int, Parameter(help="answers to each prompt")] = 4,
    rule: Annotated[Rule, Parameter(help="which of a prompt's ranked answers make pairs")] = "best_worst",
    min_gap: Annotated[float, Parameter(help="two scores less apart make no pair")] = 0.0,
    length_matched: Annotated[
        bool, switch(f"only pairs in which the longer response is at most {LENGTH_RATIO} times the shorter")
    ] = False,
    dry_run: Annotated[bool, switch("say what would be sampled and asked and what that costs, and stop")] = False,
    quiet: Annotated[bool, switch("plain lines, no bars")] = False,
    as_json: AsJson = False,
    keys: Keys = NO_KEYS,
) -> None:
    from trimtab.commands import pairs as command
    from trimtab.runtime.sampled_pairs import PairingOptions

    flags = tree(keys)
    options = PairingOptions(samples, rule, min_gap, length_matched)
    config = command.resolve_config(prompts, flags)
    if dry_run:
        show(command.forecast(config, options), as_json, command.PairsForecast.lines)
        return
    result = command.main(config, options, reporter=reporter(quiet=quiet))
    show(result, as_json, command.PairsResult.lines)
    result.audit.require_start()
