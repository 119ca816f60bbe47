"""From a sentence to a plan: which objects move, and what each of them does.

Through-The-Mask lets a large language model write these prompts: :class:`LanguageModelPlanner` asks one, on this
machine or on a server. :class:`RulePlanner` does it with a grammar of its own: no model, no network, the same answer
every time. Any other way fits behind :class:`PromptPlanner`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ttm.objects import PromptPlan
from ttm.planning.language_model_planner import LanguageModelPlanner
from ttm.planning.rule_planner import RulePlanner
from ttm.planning.tokens import EXAMPLE

__all__ = ["EXAMPLE", "LanguageModelPlanner", "PromptPlanner", "RulePlanner"]


@runtime_checkable
class PromptPlanner(Protocol):
    """Anything that takes a sentence apart.

    What an implementation has to hold to, because the models were trained on it:

    * ``plan.prompt`` is the sentence as it was handed in.
    * Objects come in the order in which the sentence names them; that order is the order of ids and colours.
    * ``phrase`` is lower case, without article ("red ball"); it grounds the segmentation, so it keeps whatever
      tells one object from another ("man in the red shirt").
    * ``local_prompt`` is lower case, in the present tense, "the <phrase> <does this> and <does that>", no period.
    * ``motion_prompt`` names every object once and all that it does, in the same order, joined by ", ", without
      words on where things are ("on the table"); directions are "left", "right", "up", "down".
    """

    def plan(self, prompt: str) -> PromptPlan:
        """Take a sentence apart.

        Args:
            prompt: one or several sentences.

        Raises:
            ValueError: the sentence names no object that does something, or more than ``MAX_OBJECTS``.
        """
        ...
