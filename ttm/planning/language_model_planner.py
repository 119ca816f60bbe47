"""From a sentence to a plan by a language model, as Through-The-Mask does it: :class:`LanguageModelPlanner`.

Imports nothing heavy: the libraries of the extra ``llm`` are loaded when the first sentence is planned.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Literal

from ttm.objects import MAX_OBJECTS, PromptPlan
from ttm.planning.chat_server import ChatServer, Message, NoAnswerError
from ttm.planning.plan_cache import PlanCache, user_cache_folder
from ttm.planning.rule_planner import RulePlanner
from ttm.planning.tokens import checked_sentence

if TYPE_CHECKING:
    from ttm.planning.local_model import LocalModel

AnsweredBy = Literal["language model", "cache", "rules"]

_SHOWN = 2000  # characters of a wrong answer that are shown to the model again


class NoPlanError(RuntimeError):
    """The language model gave no plan: it can't be reached, did not finish, or answered something else."""


class PlannerFallbackWarning(UserWarning):
    """The rules made a plan that a language model was asked for."""


class LanguageModelPlanner:
    """Takes a sentence apart by a language model: any language, any wording.

    A local model can write nothing but a plan (its tokens are constrained by the schema of the answer). A server is
    asked for the same through ``response_format``; if it ignores or refuses that, its answer is read and checked, and
    it is told what was wrong. The prompts are then put together from the answer in the form of ``PromptPlanner``.

    Args:
        model: of a server: the name that it knows. Local: a folder or a Hub id of a causal language model.
        server: the URL of an OpenAI-compatible server, up to and with the version ("http://localhost:8000/v1");
            None = local, with transformers.
        template: a text file to ask by in place of the package's own, with ``$prompt`` where the sentence goes, and
            perhaps ``$max_objects``; other dollar signs are doubled.
        timeout: seconds. Server: without any answer, for each request. Local: for the answer.
        retries: of a server: further requests after one that failed, and further answers after a wrong one.
        cache: whether plans are kept on disk, by model, server, template and sentence. A path = in this folder.
        fallback: "rules": where the model gives no plan, let ``RulePlanner`` make one, with a
            ``PlannerFallbackWarning``; None: raise.
        api_key_variable: the environment variable with the server's key.
        options: further fields of a request to a server.
        device, dtype: of a local model; None and "auto" = cuda where there is one, and as the weights are stored.

    Attributes:
        answered_by: who made the latest plan: "language model", "cache" (a language model, earlier) or "rules".

    Raises:
        ValueError: an argument out of range, or a template without ``$prompt``.
        FileNotFoundError: no such template.
        ImportError: the extra ``llm`` is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        server: str | None = None,
        template: str | Path | None = None,
        timeout: float = 120.0,
        retries: int = 2,
        cache: bool | str | Path = True,
        fallback: Literal["rules"] | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        _check_arguments(model, server, timeout, retries, fallback)
        _check_installed("pydantic", "openai" if server else "llguidance")
        self.model, self.server, self.timeout, self.retries = model, server, timeout, retries
        self.fallback, self.answered_by = fallback, "language model"
        self.template = _read_template(template)
        self._options = {"temperature": 0.0} if options is None else dict(options)
        self._key_variable, self._device, self._dtype = api_key_variable, device, dtype
        folder = user_cache_folder() if cache is True else cache
        self._cache = PlanCache(folder) if folder is not False else None
        self._opened: ChatServer | LocalModel | None = None

    answered_by: AnsweredBy

    def plan(self, prompt: str) -> PromptPlan:
        """Take a sentence apart; see ``ttm.prompt_planner.PromptPlanner``.

        Raises:
            ValueError: not a text, over 400 words, or (local) a model that can't be opened.
            NoPlanError: the model gave no plan, and there is no fallback.
        """
        key = self._key(checked_sentence(prompt))
        if self._cache is not None and (kept := self._cache.load(key)) is not None:
            self.answered_by = "cache"
            return kept
        try:
            made = self._asked(prompt)
        except NoPlanError as error:
            if self.fallback is None:
                raise
            warnings.warn(f"{error} The rules made this plan.", PlannerFallbackWarning, stacklevel=2)
            self.answered_by = "rules"
            return RulePlanner().plan(prompt)
        self.answered_by = "language model"
        if self._cache is not None:
            self._cache.store(key, made)
        return made

    def _key(self, prompt: str) -> dict[str, Any]:
        """All that a plan depends on."""
        from ttm.planning.plan_answer import answer_schema

        model = self.model if self.server else _local_identity(self.model)
        asked = {"model": model, "server": self.server, "options": self._options if self.server else {}}
        return {**asked, "template": self.template.template, "schema": answer_schema(), "prompt": prompt}

    def _asked(self, prompt: str) -> PromptPlan:
        from ttm.planning.plan_answer import read_answer

        question = self.template.substitute(prompt=" ".join(prompt.split()), max_objects=MAX_OBJECTS)
        messages: list[Message] = [{"role": "user", "content": question}]
        tries = 1 + (self.retries if self.server else 0)
        wrong = ""
        for _ in range(tries):
            try:
                text = self._answer(messages)
            except NoAnswerError as error:
                raise NoPlanError(str(error)) from error
            try:
                return read_answer(text).plan(prompt)
            except ValueError as error:
                wrong = str(error)
            again = f"This can't be used: {wrong}. Answer again, with the JSON alone."
            messages = [
                messages[0],
                {"role": "assistant", "content": text[:_SHOWN]},
                {"role": "user", "content": again},
            ]
        raise NoPlanError(f"{self.server or self.model} gave no plan in {tries} answers: {wrong}.")

    def _answer(self, messages: list[Message]) -> str:
        from ttm.planning.plan_answer import answer_schema, longest_answer

        model = self._opened = self._opened or self._open()
        if isinstance(model, ChatServer):
            return model.ask(messages, answer_schema())
        return model.ask(messages, answer_schema(), longest_answer())

    def _open(self) -> ChatServer | LocalModel:
        if self.server is not None:
            limits = (self.timeout, self.retries)
            return ChatServer(self.model, self.server, *limits, self._key_variable, self._options)
        from ttm.planning.local_model import LocalModel

        return LocalModel(self.model, self.timeout, self._device, self._dtype)


def _read_template(path: str | Path | None) -> Template:
    if path is None:
        text = (resources.files("ttm.planning") / "templates" / "take_apart.txt").read_text(encoding="utf-8")
    elif Path(path).is_file():
        text = Path(path).read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(f"{path} is no file; expected a text with $prompt where the sentence goes.")
    template = Template(text)
    try:
        template.substitute(prompt="", max_objects=0)
    except (KeyError, ValueError) as error:
        expected = "expected $prompt and perhaps $max_objects, and every other dollar sign doubled"
        raise ValueError(
            f"The template {path} has a placeholder that stands for nothing ({error}); {expected}."
        ) from error
    if template.substitute(prompt="", max_objects=0) == template.substitute(prompt="x", max_objects=0):
        raise ValueError(f"The template {path} has no $prompt; expected it where the sentence goes.")
    return template


def _local_identity(model: str) -> Any:
    """A Hub id as it is; a folder by where it lies and what lies in it, whose weights may be trained further."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return {"folder": str(folder.resolve()), "files": [list(item) for item in told]}


def _check_arguments(model: str, server: str | None, timeout: float, retries: int, fallback: str | None) -> None:
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"model is {model!r}; expected a folder, a Hub id, or the name that the server knows.")
    if server is not None and not server.startswith(("http://", "https://")):
        raise ValueError(f"server is {server!r}; expected a URL such as http://localhost:8000/v1.")
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout}; expected seconds above 0.")
    if retries < 0:
        raise ValueError(f"retries is {retries}; expected 0 or more.")
    if fallback not in (None, "rules"):
        raise ValueError(f"fallback is {fallback!r}; expected None or 'rules'.")


def _check_installed(*names: str) -> None:
    if missing := [name for name in names if find_spec(name) is None]:
        raise ImportError(
            f"LanguageModelPlanner needs {', '.join(missing)}; expected: pip install 'through-the-mask[llm]'"
        )
