"""A language model as a labeller of preferences: it first compares two answers in words, and then chooses."""

import dataclasses
import re
from collections.abc import Callable
from typing import Annotated

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Text, check_arguments, takes
from lmirl_jax.types import UserError

COMPARE = """Two answers to one prompt follow.

Prompt:
{prompt}

First answer:
{first}

Second answer:
{second}

The goal: {goal}

Describe in a few sentences what each answer does with regard to the goal, and how they differ.
"""
CHOOSE = """A comparison of two answers to a prompt, with regard to this goal: {goal}

{comparison}

Which answer is nearer to the goal? Reply with one number: 0 for the first, 1 for the second, -1 if they do not differ or you are
not sure.
"""
_CHOICE = re.compile(r"(?<![\w.-])(-1|0|1)(?!\w|\.\d)")


@check_arguments
@dataclasses.dataclass(frozen=True)
class TwoStageJudge:
    """A labeller `(prompt, first, second) -> 0, 1 or None` that asks a language model twice.

    The first question asks for a comparison in words, the second for a choice, given the comparison alone.

    Args:
        complete: the language model: a function from a text to its completion.
        goal: what a good answer is, in words.
        compare: the first question, with the places {prompt}, {first}, {second} and {goal}.
        choose: the second question, with the places {comparison} and {goal}. The first of -1, 0 and 1 in the reply is the choice;
            with -1, or none of them, the judge abstains.

    Source: two questions as in RL-VLM-F, https://arxiv.org/abs/2402.03681; these words are our own.
    """

    complete: Annotated[Callable[..., str], Words("a function of a text, without brackets", takes(1))]
    goal: Text = "a right and complete answer"
    compare: Text = COMPARE
    choose: Text = CHOOSE

    def __call__(self, prompt: str, first: str, second: str) -> int | None:
        places = {"prompt": prompt, "first": first, "second": second, "goal": self.goal}
        comparison = self._ask(_fill(self.compare, places))
        choice = _CHOICE.search(self._ask(_fill(self.choose, {"comparison": comparison, "goal": self.goal})))
        return None if choice is None or choice[1] == "-1" else int(choice[1])

    def _ask(self, question: str) -> str:
        reply = self.complete(question)
        if not isinstance(reply, str):
            raise UserError(f"labelled.TwoStageJudge: complete gave {type(reply).__name__}; return a text")
        return reply


def _fill(template: str, places: dict[str, str]) -> str:
    """Puts texts into their places; braces within a text are left as they are."""
    pattern = "|".join(re.escape(f"{{{name}}}") for name in places)
    return re.sub(pattern, lambda match: places[match[0][1:-1]], template)
