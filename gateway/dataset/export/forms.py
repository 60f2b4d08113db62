"""The forms that a dataset can be exported in, and what each holds.

A form is one module's function from a row to what is written, and back where nothing was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.canonical import canonical_json
from gateway.dataset.export import alpaca, chat, parquet, sharegpt
from gateway.dataset.export.lost import Converted
from gateway.receipt.model import RowKind

PARQUET: Final = "parquet"

Convert = Callable[[Mapping[str, Any]], Converted]
Restore = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form: which rows it takes, how they are written, and how they are read by others."""

    name: str
    kinds: tuple[RowKind, ...]
    readers: str
    """Who takes it, in words for the card."""
    features: tuple[tuple[str, str], ...] = ()
    """Columns as `datasets` should hold them; none where the file itself says so."""
    llama_factory: Mapping[str, Any] | None = None
    """What LLaMA-Factory's `dataset_info.json` says of it."""
    _convert: Callable[[Mapping[str, Any], RowKind], Converted]
    _restore: Callable[[Mapping[str, Any], RowKind], dict[str, Any]]

    @property
    def is_parquet(self) -> bool:
        """Tell whether it is written as columns; the others are lines of JSON."""
        return self.name == PARQUET

    def convert(self, row: Mapping[str, Any], kind: RowKind) -> Converted:
        """Return *row* in this form, with every loss that it had.

        Where no loss is named, `restore` gives the row again.
        """
        converted = self._convert(row, kind)
        if converted.row is None or converted.lost:
            return converted
        if canonical_json(self._restore(converted.row, kind)) != canonical_json(row):
            return Converted(converted.row, ("form",))
        return converted

    def restore(self, written: Mapping[str, Any], kind: RowKind) -> dict[str, Any]:
        """Return the row that was written, of one that lost nothing.

        Raises:
            KeyError, TypeError, ValueError: nothing in this form was written so.
        """
        return self._restore(written, kind)


def _plain(
    convert: Convert, restore: Restore
) -> tuple[
    Callable[[Mapping[str, Any], RowKind], Converted],
    Callable[[Mapping[str, Any], RowKind], dict[str, Any]],
]:
    return lambda row, _: convert(row), lambda written, _: restore(written)


def _form(name: str, *kinds: RowKind, convert: Convert, restore: Restore, **said: Any) -> Form:
    there, back = _plain(convert, restore)
    return Form(name=name, kinds=kinds, _convert=there, _restore=back, **said)


_TOOLS: Final = ("tools", "list: json")

FORMS: Final[dict[str, Form]] = {
    form.name: form
    for form in (
        _form(
            "openai",
            "messages",
            convert=chat.as_it_is,
            restore=chat.unchanged,
            readers="OpenAI fine-tuning, TRL, axolotl (`type: chat_template`)",
            features=(("messages", "list: json"), _TOOLS),
        ),
        _form(
            "prompt-completion",
            "messages",
            convert=chat.to_completion,
            restore=chat.from_completion,
            readers="TRL, which learns the completion alone",
            features=(("prompt", "list: json"), ("completion", "list: json"), _TOOLS),
        ),
        _form(
            "trl-preference",
            "preference",
            convert=chat.as_it_is,
            restore=chat.unchanged,
            readers="TRL's DPO trainer",
            features=(
                ("prompt", "list: json"),
                ("chosen", "list: json"),
                ("rejected", "list: json"),
                _TOOLS,
            ),
        ),
        _form(
            "openai-preference",
            "preference",
            convert=chat.to_openai_preference,
            restore=chat.from_openai_preference,
            readers="OpenAI preference tuning, Together, Fireworks",
            features=(
                ("input", "dtype: json"),
                ("preferred_output", "list: json"),
                ("non_preferred_output", "list: json"),
            ),
        ),
        _form(
            "sharegpt",
            "messages",
            convert=sharegpt.to_sharegpt,
            restore=sharegpt.from_sharegpt,
            readers="LLaMA-Factory (`dataset_info.json` is beside it), axolotl",
            features=(
                (
                    "conversations",
                    "list: [{name: from, dtype: string}, {name: value, dtype: string}]",
                ),
                ("tools", "dtype: string"),
            ),
            llama_factory={
                "formatting": "sharegpt",
                "columns": {"messages": "conversations", "tools": "tools"},
                "tags": {
                    "role_tag": "from",
                    "content_tag": "value",
                    "user_tag": "human",
                    "assistant_tag": "gpt",
                    "observation_tag": "observation",
                    "function_tag": "function_call",
                    "system_tag": "system",
                },
            },
        ),
        _form(
            "alpaca",
            "messages",
            convert=alpaca.to_alpaca,
            restore=alpaca.from_alpaca,
            readers="LLaMA-Factory (`dataset_info.json` is beside it), axolotl",
            features=tuple(
                (name, "dtype: string") for name in ("instruction", "input", "output", "system")
            ),
            llama_factory={
                "formatting": "alpaca",
                "columns": {
                    "prompt": "instruction",
                    "query": "input",
                    "response": "output",
                    "system": "system",
                },
            },
        ),
        _form(
            "prompt-only",
            "prompt",
            convert=chat.as_it_is,
            restore=chat.unchanged,
            readers="TRL's GRPO trainer, with a reward function for the verifier's id",
            features=(
                ("prompt", "list: json"),
                ("verifier", "dtype: string"),
                ("answer", "dtype: string"),
                _TOOLS,
            ),
        ),
        Form(
            name=PARQUET,
            kinds=("messages", "preference", "prompt"),
            readers="whatever reads Parquet",
            _convert=parquet.to_columns,
            _restore=parquet.from_columns,
        ),
    )
}
"""Every form, by its name."""
