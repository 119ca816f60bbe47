"""``ttm plan``: a sentence, taken apart."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from ttm.cli.errors import CommandError
from ttm.cli.output_folder import refuse_overwriting
from ttm.cli.planner import make_plan
from ttm.objects import PromptPlan


def run(arguments: Namespace) -> int:
    """Print the plan of a sentence; write it too with ``--output``."""
    path = Path(arguments.output) if arguments.output else None
    if path is not None:
        refuse_overwriting(path.parent, [path.name], arguments.overwrite)
    if path is not None and not path.absolute().parent.is_dir():
        raise CommandError(f"{path.absolute().parent} is no folder; expected one to write {path.name} in.")
    plan, _ = make_plan(arguments)
    if path is not None:
        refuse_overwriting(path.parent, [path.name], arguments.overwrite)
        plan.save(path)
    print(json.dumps(plan.to_dict(), indent=2, ensure_ascii=False) if arguments.json else page(plan))
    return 0


def page(plan: PromptPlan) -> str:
    """The plan as a table to read: id, phrase, what the object does."""
    width = max(len("object"), *(len(phrase) for phrase in plan.phrases))
    lines = [f"id  {'object':<{width}}  what it does"]
    for number, item in enumerate(plan.objects, start=1):
        lines.append(f"{number:>2}  {item.phrase:<{width}}  {item.local_prompt}")
    lines += ["", f"motion prompt: {plan.motion_prompt}"]
    return "\n".join(lines)
