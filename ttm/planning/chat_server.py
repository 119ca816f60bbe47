"""A language model behind any server that speaks the protocol of OpenAI's chat completions."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

_log = logging.getLogger(__name__)

Message = dict[str, str]


class NoAnswerError(RuntimeError):
    """The model could not be asked, or did not finish."""


class ChatServer:
    """Asks a server (vLLM, llama.cpp, Ollama, ``transformers serve``, OpenAI, …).

    Connections that fail, time-outs, "too many requests" and errors of the server are tried again by the client,
    each time after a longer pause.

    Args:
        model: the name that the server knows.
        url: up to and with the version: "http://localhost:8000/v1".
        timeout: seconds without an answer before a request counts as failed.
        retries: further requests after one that failed.
        api_key_variable: the environment variable that holds the key; local servers need none.
        options: further fields of the request, such as "temperature" or "max_tokens".
    """

    def __init__(
        self,
        model: str,
        url: str,
        timeout: float,
        retries: int,
        api_key_variable: str,
        options: Mapping[str, Any],
    ) -> None:
        from openai import OpenAI

        self.model, self.url, self.timeout, self.retries, self.options = model, url, timeout, retries, dict(options)
        self._key_variable = api_key_variable
        self._constrains = True
        key = os.environ.get(api_key_variable) or "none"
        self._client = OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> str:
        """Send a conversation; ask for an answer that keeps to a JSON schema, where the server can see to that.

        Returns:
            the text of the answer, "" if it came in no form that is known. It need not keep to the schema.

        Raises:
            NoAnswerError: no answer after all retries, or a refusal; says which.
        """
        from openai import BadRequestError, UnprocessableEntityError

        if self._constrains:
            try:
                return self._send(messages, _response_format(schema))
            except (BadRequestError, UnprocessableEntityError) as error:
                _log.warning("%s refuses a JSON schema (%s); asking without.", self.url, _reason(error))
                self._constrains = False
        try:
            return self._send(messages, {})
        except (BadRequestError, UnprocessableEntityError) as error:
            raise NoAnswerError(f"{self.url} refuses the request ({_reason(error)}).") from error

    def _send(self, messages: Sequence[Message], response_format: dict[str, Any]) -> str:
        import openai

        create: Any = self._client.chat.completions.create
        tries = f"{self.retries + 1} tries"
        try:
            answer = create(model=self.model, messages=list(messages), **response_format, **self.options)
        except openai.APITimeoutError as error:
            raise NoAnswerError(f"{self.url} did not answer within {self.timeout:g} s ({tries}).") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())
            raise NoAnswerError(f"{self.url} can't be reached or hung up ({reason}; {tries}).") from error
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            raise
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            hint = f"expected a key that it takes in ${self._key_variable}"
            raise NoAnswerError(f"{self.url} refuses the key ({_reason(error)}); {hint}.") from error
        except openai.NotFoundError as error:
            hint = "expected a URL that ends in the version, such as http://localhost:8000/v1, and a model it has"
            raise NoAnswerError(f"{self.url} has no {self.model!r} ({_reason(error)}); {hint}.") from error
        except openai.APIStatusError as error:
            raise NoAnswerError(f"{self.url} failed ({_reason(error)}; {tries}).") from error
        except ValueError:  # what should be JSON is none
            return ""
        return _text(answer)


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {"name": "plan", "strict": True, "schema": dict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


def _reason(error: Any) -> str:
    return f"{error.status_code}: {' '.join(str(error.message).split())[:160]}"


def _text(answer: Any) -> str:
    """The text of a completion. The client hands on whatever JSON it got, in the classes of its protocol or not."""
    choices = getattr(answer, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    content = getattr(message, "content", None)
    return content if isinstance(content, str) else ""
