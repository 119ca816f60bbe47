"""Which planner takes a sentence apart: its options, for ``ttm plan`` and ``ttm generate``. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING, Any

from ttm.cli.argument_types import given_options
from ttm.cli.errors import EXIT_USAGE, CommandError

if TYPE_CHECKING:
    from ttm.objects import PromptPlan

LLM_OPTIONS = ("llm_model", "llm_server", "llm_template", "llm_timeout", "llm_fallback")


def add_planner(page: argparse.ArgumentParser) -> None:
    """Add the group of options."""
    group = page.add_argument_group("planner")
    group.add_argument(
        "--planner",
        choices=("rules", "llm"),
        default="rules",
        help="rules: a grammar of English, no model (default); llm: a language model",
    )
    group.add_argument("--llm-model", metavar="ID", help="a folder or Hub id; with --llm-server a name that it knows")
    group.add_argument(
        "--llm-server",
        metavar="URL",
        help="an OpenAI-compatible server, such as http://localhost:8000/v1; its key in $OPENAI_API_KEY",
    )
    group.add_argument("--llm-template", metavar="FILE", help="your own question, with $prompt where the sentence goes")
    group.add_argument("--llm-timeout", metavar="S", type=float, help="seconds to wait for an answer (default 120)")
    group.add_argument(
        "--llm-fallback",
        action="store_true",
        default=None,
        help="if the language model gives no plan, let the rules make it, and say so",
    )


def make_plan(arguments: argparse.Namespace) -> tuple[PromptPlan, dict[str, Any] | None]:
    """The plan of ``arguments.prompt``, and what run.json tells of a language model (None for the rules).

    Raises:
        CommandError: options that do not go together, a language model that is not there or gives no plan.
        ValueError: a sentence that no plan can be made of.
    """
    from ttm.planning.language_model_planner import PlannerFallbackWarning
    from ttm.prompt_planner import LanguageModelPlanner, RulePlanner

    if arguments.planner == "rules":
        if given := given_options(arguments, LLM_OPTIONS):
            raise CommandError(f"{given[0]} belongs to a language model; expected --planner llm beside it.", EXIT_USAGE)
        return RulePlanner().plan(arguments.prompt), None
    if arguments.llm_model is None:
        raise CommandError("--llm-model is missing; expected which language model --planner llm asks.", EXIT_USAGE)
    if arguments.llm_server is None:
        from ttm.cli.progress import hush_libraries

        hush_libraries()
    try:
        planner = LanguageModelPlanner(
            arguments.llm_model,
            server=arguments.llm_server,
            template=arguments.llm_template,
            fallback="rules" if arguments.llm_fallback else None,
            **({} if arguments.llm_timeout is None else {"timeout": arguments.llm_timeout}),
        )
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", PlannerFallbackWarning)
            plan = planner.plan(arguments.prompt)
    except (RuntimeError, FileNotFoundError, ImportError) as error:
        raise CommandError(str(error)) from error
    for warning in told:
        if issubclass(warning.category, PlannerFallbackWarning):
            print(f"ttm {arguments.command}: warning: {warning.message}", file=sys.stderr)
    answered = {"server": planner.server, "answered_by": planner.answered_by}
    return plan, {"language_model": planner.model, **answered}
