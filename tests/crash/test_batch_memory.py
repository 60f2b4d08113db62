"""What a gateway holds of a batch is the same however many lines it has, and however long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import openai
import pytest

from tests.support.batches import TRAINING, batching_gateway, chat_line, jsonl, written
from tests.support.proxy import Gateway
from tests.support.stub.server import stub_server

pytestmark = pytest.mark.crash

MB: Final = 1_000_000
USE: Final = {"x-intended-use": TRAINING}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway before a stub of one's own."""
    with stub_server() as (server, url), batching_gateway(tmp_path, url) as running:
        server.begin("memory")
        yield running


def peak(gateway: Gateway, count: int, size: int) -> int:
    """Return the most that the process holds while a batch of so many such lines is done."""
    assert gateway.process is not None
    about = Path("/proc", str(gateway.process.pid))
    # The kernel forgets the peak of before.
    (about / "clear_refs").write_text("5")
    with openai.OpenAI(api_key="sk", base_url=gateway.openai(), max_retries=0) as sdk:
        lines = (
            chat_line(number, f"{number} " + "word " * (size // 5)) for number in range(count)
        )
        file = sdk.files.create(
            file=("a.jsonl", jsonl(lines)), purpose="batch", extra_headers=USE
        )
        begun = sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        sdk.batches.retrieve(begun.id)
        output = sdk.batches.retrieve(begun.id).output_file_id or ""
        for _ in range(2):
            assert count == sdk.files.content(output).content.count(b"\n")
    told = dict(line.split(":", 1) for line in (about / "status").read_text().splitlines())
    return int(told["VmHWM"].split()[0]) * 1024


def warm(gateway: Gateway, count: int, size: int) -> int:
    """Return the peak of a third such batch.

    The first two fill what a process fills once and keeps: caches, threads, pages of its
    database. Some ten megabytes come with them whatever the batch.
    """
    return [peak(gateway, count, size) for _ in range(3)][-1]


def test_many_lines_take_no_more_than_few(gateway: Gateway) -> None:
    """Five thousand lines of ten kilobytes take hardly more memory than a thousand."""
    few = warm(gateway, 1_000, 10_000)
    many = peak(gateway, 5_000, 10_000)

    # Four thousand lines more are forty megabytes.
    assert many < few + 20 * MB
    written(gateway).check_items(count=3 * 1_000 + 5_000)


def test_long_lines_are_not_held_together(gateway: Gateway) -> None:
    """However long requests are, only few of them are in memory at once."""
    few = warm(gateway, 10, MB // 2)
    many = peak(gateway, 110, MB // 2)

    # A hundred requests more are fifty megabytes, and several times that once they are read.
    assert many < few + 30 * MB
    written(gateway).check_items(count=3 * 10 + 110)
    assert 0 == gateway.command("ledger", "fsck").returncode
