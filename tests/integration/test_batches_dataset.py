"""Rows from batches of every provider: built, verified, traced and erased like any others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.support.batches import (
    batching_gateway,
    chat_line,
    jsonl,
    message_request,
    written,
)
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer


def ask_openai(gateway: Gateway, use: dict[str, str]) -> None:
    """Ask three questions, and fetch the answers."""
    with openai.OpenAI(api_key="sk", base_url=gateway.openai()) as sdk:
        file = sdk.files.create(
            file=("a.jsonl", jsonl(chat_line(number) for number in range(3))),
            purpose="batch",
            extra_headers=use,
        )
        begun = sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        sdk.batches.retrieve(begun.id)
        output = sdk.batches.retrieve(begun.id).output_file_id
        sdk.files.content(output or "")


def ask_anthropic(gateway: Gateway, use: dict[str, str]) -> None:
    """Ask three questions, and fetch the answers."""
    requests: Any = [message_request(number) for number in range(3, 6)]
    with anthropic.Anthropic(api_key="sk", base_url=gateway.anthropic()) as sdk:
        begun = sdk.messages.batches.create(requests=requests, extra_headers=use)
        for _ in range(2):
            sdk.messages.batches.retrieve(begun.id)
        assert 3 == len(list(sdk.messages.batches.results(begun.id)))


def ask_gemini(gateway: Gateway, use: dict[str, str]) -> None:
    """Ask three questions, and fetch the answers."""
    options = types.HttpOptions(base_url=f"{gateway.url}/gemini", headers=use)
    sdk = genai.Client(api_key="key", http_options=options)
    asked: list[Any] = [
        types.InlinedRequest(contents=f"What is the square of {number}?")
        for number in range(6, 9)
    ]
    begun = sdk.batches.create(model="gemini-2.5-flash", src=asked)
    for _ in range(2):
        sdk.batches.get(name=begun.name or "")
    sdk.close()


@pytest.mark.crash
def test_rows_of_batches_are_rows_like_others(
    stub: tuple[StubServer, str], tmp_path: Path
) -> None:
    """Answers of three providers' batches become a dataset that verifies and can be traced."""
    stub[0].begin("dataset")
    with batching_gateway(tmp_path, stub[1]) as gateway:
        told = gateway.command(
            "use",
            "declare",
            "--project",
            "default",
            "--owner",
            "ada",
            "purpose=train.sft",
            "student=parser",
        )
        declaration = told.stdout.split()[0]
        use = {"x-intended-use": declaration}
        for ask in (ask_openai, ask_anthropic, ask_gemini):
            ask(gateway, use)
        found = written(gateway)
        found.check_items(count=9)
        built = gateway.command("dataset", "build", "answers", "--for", declaration)
        (folder,) = [one.parent for one in tmp_path.rglob("rows.jsonl")]
        rows = [json.loads(row) for row in (folder / "rows.jsonl").read_text().splitlines()]
        verified = gateway.command("dataset", "verify", str(folder))
        item = found.items[0]
        traced = gateway.command("lineage", "show", item.exchange)
        fsck = gateway.command("ledger", "fsck")
        of = {one.item.of for one in found.items if one.item is not None}
        gateway.command(
            "content", "erase", "--project", "default", "--by", "ada", "--reason", "asked"
        )
        again = gateway.command("dataset", "build", "later", "--for", declaration)

    asked = {row["messages"][0]["content"] for row in rows}
    assert (0, 9) == (built.returncode, len(rows)), built.stderr
    assert {f"What is the square of {number}?" for number in range(9)} == asked
    assert 0 == verified.returncode, verified.stdout + verified.stderr
    assert 0 == fsck.returncode, fsck.stdout
    assert 0 == traced.returncode, traced.stderr
    assert "openai (stub-large), for train.sft" in traced.stdout
    assert 3 == len(of)
    assert "content-erased" in again.stdout + again.stderr
