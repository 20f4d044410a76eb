"""The command that makes pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from trimtab.cli.app import AsJson, switch
from trimtab.cli.configuration import NO_KEYS
from trimtab.cli.idle import refuse_idle
from trimtab.cli.terminal import reporter, show
from trimtab.config.flags import Keys, tree
from trimtab.data.pair_rules import LENGTH_RATIO, Rule
from trimtab.errors import ConfigError

ReferenceChoice = Literal["first", "newest"]


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
    rounds: Annotated[
        int | None,
        Parameter(help="train on the pairs and begin again with the new model, so many times; --out is a folder"),
    ] = None,
    reference: Annotated[
        ReferenceChoice | None,
        Parameter(help="of each round's training: the model it begins with, or always the first"),
    ] = None,
    held_back: Annotated[
        float | None, Parameter(help="share of the prompts on which rounds are compared [default: 0.1]")
    ] = None,
    for_arena: Annotated[
        bool, switch("write two answers to each prompt as files for `trimtab arena`, where you judge them")
    ] = False,
    dry_run: Annotated[bool, switch("say what would be sampled and asked and what that costs, and stop")] = False,
    quiet: Annotated[bool, switch("plain lines, no bars")] = False,
    as_json: AsJson = False,
    keys: Keys = NO_KEYS,
) -> None:
    from trimtab.commands import arena_answers, verdict_pairs
    from trimtab.commands import pairs as command
    from trimtab.runtime.sampled_pairs import PairingOptions

    flags = tree(keys)
    choices = {
        "--samples": samples != PairingOptions().samples,
        "--rule": rule != PairingOptions().rule,
        "--length-matched": length_matched,
        "--rounds": rounds is not None,
        "--reference": reference is not None,
        "--held-back": held_back is not None,
        "--dry-run": dry_run,
    }
    if verdict_pairs.holds_verdicts(Path(prompts)) and "judge" not in flags:
        refuse_idle(choices | {"--for-arena": for_arena}, reason=f"{prompts} holds verdicts")
        out = flags.pop("out", None)
        by_verdict = verdict_pairs.main(Path(prompts), flags, out=out, min_gap=min_gap)
        show(by_verdict, as_json, verdict_pairs.VerdictPairs.lines)
        by_verdict.audit.require_start()
        return
    if for_arena:
        if "judge" in flags or rounds is not None:
            raise ConfigError("--for-arena: you are the judge", remedy="leave --judge and --rounds out")
        refuse_idle(
            choices | {"--min-gap": min_gap != PairingOptions().min_gap},
            reason="--for-arena writes two answers to each prompt, and nothing ranks them",
        )
        config = command.resolve_config(prompts, flags, judges=False)
        files = arena_answers.main(config, reporter=reporter(quiet=quiet))
        show(files, as_json, arena_answers.ArenaAnswers.lines)
        return
    options = PairingOptions(samples, rule, min_gap, length_matched)
    config = command.resolve_config(prompts, flags, trains=rounds is not None)
    if rounds is None and (reference is not None or held_back is not None):
        raise ConfigError("--reference and --held-back are of rounds", remedy="add --rounds, or leave them out")
    if dry_run:
        show(command.forecast(config, options), as_json, command.PairsForecast.lines)
        return
    if rounds is not None:
        from trimtab.commands import rounds as rounds_command

        round_options = rounds_command.RoundOptions(
            rounds, reference or "newest", 0.1 if held_back is None else held_back
        )
        progress = rounds_command.main(config, options, round_options, reporter=reporter(quiet=quiet))
        show(progress, as_json, rounds_command.RoundsResult.lines)
        return
    result = command.main(config, options, reporter=reporter(quiet=quiet))
    show(result, as_json, command.PairsResult.lines)
    result.audit.require_start()
