"""A reward model's own sections: ranking and length, and how to use it."""

from __future__ import annotations

import shlex

from trimtab.reporting.forest import EVEN
from trimtab.reporting.numbers.reward import RewardNumbers
from trimtab.reporting.numbers.training import HeldoutNumbers
from trimtab.reporting.sections import Code, Forest, ForestRow, Section, Table, Text
from trimtab.reporting.text import estimate_text, number


def ranking(heldout: HeldoutNumbers | None, numbers: RewardNumbers | None) -> Section | None:
    """How many pairs are ranked right, in all and by which response is the longer one."""
    if heldout is None or numbers is None:
        return None
    named = [("All held-out pairs", heldout.after.accuracy)]
    if (length := numbers.length) is not None:
        named += [("The longer one was chosen", length.accuracy_longer), ("… the shorter", length.accuracy_shorter)]
    if numbers.truth is not None:
        named.append(("The oracle's ranking", numbers.truth.by_reward))
    rows = [ForestRow(name, of.scaled(100), f"{number(of.n)} pairs", "truth") for name, of in named if of.n]
    lead = (
        "Share of preference pairs, kept out of training, that the reward ranks as the labels do, in percent, ties "
        "counted as half; 50 is chance. A reward that does nothing but count characters has 100 where the longer "
        "response was chosen and 0 where the shorter was."
    )
    blocks: list[Text | Forest | Table] = [Text(lead, "lead"), Forest(rows, "Ranked as labelled", EVEN)]
    if length is not None:
        blocks.append(
            Table(
                ["the longer response is preferred", "% of pairs"],
                [
                    ["by the reward", estimate_text(length.by_reward.scaled(100))],
                    ["by the labels", estimate_text(length.by_labels.scaled(100))],
                    ["difference, points", estimate_text(length.lean.scaled(100))],
                ],
            )
        )
    return Section("ranking", "Ranking", "Does it rank as the labels do, and does it like length?", blocks)


def use(out: str) -> Section:
    """The two ways in which its folder is read."""
    python = "\n".join(
        (
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
            "",
            f"model = AutoModelForSequenceClassification.from_pretrained({f'{out}/model'!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({f'{out}/model'!r})",
            'messages = [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]',
            'ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)',
            "score = model(**ids).logits[0, 0]",
        )
    )
    return Section(
        "use",
        "Use",
        "Use it",
        [
            Text("As a judge of another run's answers:"),
            Code(f"trimtab run CONFIG --benchmark PROMPTS --judge reward:{shlex.quote(out)}"),
            Text("Or with transformers, as a sequence classifier with one output:"),
            Code(python),
            Text("Only the difference of two scores of one prompt means something; their level does not.", "note"),
        ],
    )
