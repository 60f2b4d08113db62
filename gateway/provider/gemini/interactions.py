"""Reads interactions: what a model or an agent did, step by step, whole or as it is streamed.

Written after https://ai.google.dev/api/interactions-api. What the caller put in is no output; a
step that is neither words, a thought nor a function call is digested as the JSON that it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.canonical import canonical_json
from gateway.provider.gemini.asked import objects
from gateway.provider.gemini.content import shown_of, usage_from
from gateway.provider.gemini.errors import error_of, stop_of
from gateway.provider.model import Answer, Choice, Made, Resource, ToolCall, Unit, Usage
from gateway.provider.readers import NonsenseError
from gateway.provider.units import base64_unit, json_unit, pieces_unit

_WORKING: Final = frozenset({"queued", "in_progress"})
_ENDED: Final = frozenset(
    {
        "budget_exceeded",
        "cancelled",
        "completed",
        "failed",
        "incomplete",
        "requires_action",
        "requires_continuation",
    }
)
_SILENT: Final = frozenset({"thought_signature"})
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class _HeardStep:
    """One step as it grows."""

    def __init__(self, step: Mapping[str, Any]) -> None:
        self.kind = step.get("type")
        self.start = dict(step)
        self.words: list[str] = []
        self.thoughts: list[str] = []
        self.arguments: list[str] = []
        self.sound: list[str] = []
        self.units: list[Unit] = []
        self.strange: list[Any] = []
        """Deltas of which nobody here has heard."""
        for content in objects(step.get("content")):
            self.hear(content)
        for summary in objects(step.get("summary")):
            self.hear({"type": "thought_summary", "content": summary})

    def hear(self, delta: Mapping[str, Any]) -> bool:
        """Take in content or a delta; tell whether it carries anything."""
        match delta.get("type"):
            case "text" if isinstance(delta.get("text"), str):
                self.words.append(delta["text"])
                return bool(delta["text"])
            case "thought_summary":
                content = delta.get("content")
                text = content.get("text") if isinstance(content, dict) else None
                if isinstance(text, str):
                    self.thoughts.append(text)
                return bool(text)
            case "arguments_delta" if isinstance(delta.get("arguments"), str):
                self.arguments.append(delta["arguments"])
                return True
            case "audio" if isinstance(delta.get("data"), str):
                self.sound.append(delta["data"])
                return True
            case "image" if isinstance(delta.get("data"), str):
                self.units.append(base64_unit("image", 0, delta["data"]))
                return True
            case "image" | "audio" | "video" | "document" if isinstance(delta.get("uri"), str):
                self.units.append(json_unit("link", 0, delta["uri"]))
                return True
            case kind if kind in _SILENT:
                return False
            case _:
                self.strange.append(dict(delta))
                return True

    def others(self) -> list[Unit]:
        """Return what the step holds beside words, thoughts and a function call."""
        units = list(self.units)
        if self.sound:
            units.append(pieces_unit("audio", 0, self.sound))
        if self.kind in ("model_output", "thought", "function_call"):
            return [*units, *(json_unit("other", 0, one) for one in self.strange)]
        told = self.start | ({"deltas": self.strange} if self.strange else {})
        ran = isinstance(self.kind, str) and self.kind.endswith("_result")
        return [*units, json_unit("tool-result" if ran else "other", 0, told)]

    def call(self) -> ToolCall | None:
        """Return the function call that the step is, if it is one."""
        if self.kind != "function_call":
            return None
        given = self.start.get("arguments") or {}
        try:
            arguments = "".join(self.arguments) or canonical_json(given).decode()
        except TypeError as exc:
            raise NonsenseError("arguments without a form") from exc
        return ToolCall(
            id=str(self.start.get("id") or ""),
            name=str(self.start.get("name") or ""),
            arguments=arguments,
        )


class InteractionListener:
    """Hears the events of one interaction; *made* here, or told of again."""

    def __init__(self, *, made: bool) -> None:
        self._made = made
        self._steps: dict[int, _HeardStep] = {}
        self._id: str | None = None
        self._model: str | None = None
        self._status: str | None = None
        self._usage: Any = None
        self._error: object = None

    def hear(self, data: bytes) -> bool:
        """Take one event's data; tell whether it carries content."""
        if data.startswith(b"[DONE]"):
            return False
        event = _decode(data)
        index = event.get("index")
        match event.get("event_type"):
            case "step.start" if isinstance(index, int) and isinstance(event.get("step"), dict):
                step = self._steps[index] = _HeardStep(event["step"])
                return bool(step.words or step.thoughts or step.kind != "model_output")
            case "step.delta" if isinstance(index, int) and isinstance(
                event.get("delta"), dict
            ):
                step = self._steps.setdefault(index, _HeardStep({"type": "model_output"}))
                return step.hear(event["delta"])
            case "interaction.created" | "interaction.completed" if isinstance(
                event.get("interaction"), dict
            ):
                return self.take(event["interaction"])
            case "interaction.status_update":
                self._told(event.get("interaction_id"), None, event.get("status"))
                self._count(event.get("usage"))
            case "error":
                self._error = event.get("error") or {}
            case _:
                pass
        return False

    def take(self, interaction: Mapping[str, Any]) -> bool:
        """Take in an interaction, as far as it goes; tell whether it carries content."""
        model = interaction.get("model") or interaction.get("agent")
        self._told(interaction.get("id"), model, interaction.get("status"))
        self._count(interaction.get("usage"))
        if interaction.get("errors") and self._status == "failed":
            self._error = next(objects(interaction["errors"]), {})
        steps = [*objects(interaction.get("steps") or [])]
        outputs = [*objects(interaction.get("outputs") or [])]
        if outputs and not steps:
            # As earlier versions of the API have it.
            steps = [{"type": "model_output", "content": outputs}]
        for index, step in enumerate(steps):
            self._steps[index] = _HeardStep(step)
        return bool(steps)

    @property
    def ending(self) -> bool:
        """Whether the interaction has ended, or an error has come."""
        return self._status in _ENDED or self._error is not None

    def answer(self) -> Answer:
        """Return what was heard; whole once the interaction has ended or is put off."""
        made: tuple[Made, ...] = ()
        if self._made and self._id is not None:
            made = (Made(resource=Resource(kind="interaction", id=self._id)),)
        return Answer(
            readable=True,
            whole=self._error is None and self._status is not None and self._status in _ENDED,
            id=self._id,
            model=self._model,
            choices=(self._choice(),) if self._steps else (),
            usage=_usage_of(self._usage),
            error=error_of(self._error),
            made=made,
            pending=self._status in _WORKING,
            stop=stop_of(self._error),
        )

    def _told(self, id_: object, model: object, status: object) -> None:
        self._id = id_ if isinstance(id_, str) and id_ else self._id
        self._model = model if isinstance(model, str) else self._model
        self._status = status if isinstance(status, str) else self._status

    def _count(self, usage: object) -> None:
        self._usage = self._usage if usage is None else usage

    def _choice(self) -> Choice:
        steps = [step for _, step in sorted(self._steps.items()) if step.kind != "user_input"]
        calls = (step.call() for step in steps)
        return Choice(
            index=0,
            text="".join(word for step in steps for word in step.words),
            reasoning=tuple("".join(step.thoughts) for step in steps if step.thoughts),
            shown=shown_of("".join(step.thoughts) for step in steps),
            tool_calls=tuple(call for call in calls if call is not None),
            finish_reason=self._status,
            others=tuple(unit for step in steps for unit in step.others()),
        )


def read_interaction(body: bytes, *, made: bool) -> Answer:
    """Return what a whole *body* says; one that parses has its end.

    Raises:
        NonsenseError: it is no interaction.
    """
    interaction = _decode(body)
    if not isinstance(interaction.get("id"), str) or "status" not in interaction:
        raise NonsenseError("no interaction")
    listener = InteractionListener(made=made)
    listener.take(interaction)
    return msgspec.structs.replace(listener.answer(), whole=True)


def _usage_of(usage: object) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    return usage_from(
        usage,
        asked=("total_input_tokens", "total_tool_use_tokens"),
        said=("total_output_tokens", "total_thought_tokens"),
        cached="total_cached_tokens",
        thought="total_thought_tokens",
    )
