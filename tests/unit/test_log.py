"""The log: a closed list of events, no secrets, and no exchange that it could break."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.publishing.alarms import ALARMS
from gateway.limits import PIPE_BYTES_AT_ONCE
from gateway.log import EVENTS, Lines, build_logger, frames, redact

ROOT = Path(__file__).resolve().parents[2]
LEVELS = ("debug", "info", "warning", "error")


class Pipe(io.TextIOWrapper):
    """Where a process writes its log: text over bytes, as standard output is."""

    def __init__(self, raw: io.BufferedIOBase | None = None) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(raw or self.raw_bytes, encoding="utf-8")  # type: ignore[arg-type]  # it is a binary buffer

    def lines(self) -> list[dict[str, Any]]:
        """Return what was written, line by line."""
        return [json.loads(line) for line in self.raw_bytes.getvalue().splitlines()]


def said() -> Iterator[tuple[str, str]]:
    """Yield file and name of every event that the package logs."""
    for file in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=owner, attr=level),
                    args=[ast.Constant(value=str(event)), *_],
                ) if level in LEVELS and ast.unparse(owner).endswith("log"):
                    yield str(file.relative_to(ROOT)), event


def test_every_event_is_on_the_list() -> None:
    """Only events of the closed list are logged, and each of the list somewhere is."""
    used = {event for _, event in said()}
    # Alarms are logged by their codes, and a witness's answers carry the event they are.
    carried = set(ALARMS) | {"witness.cosigned", "witness.contradicted"}

    assert used
    assert {} == {event: file for file, event in said() if event not in EVENTS}
    assert [] == sorted(set(EVENTS) - used - carried)


def test_every_event_has_a_name_and_a_sentence() -> None:
    """An event is `thing.happened`, and the list says what it tells."""
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", event) for event in EVENTS)
    assert all(EVENTS.values())


names = st.sampled_from(
    ["authorization", "x-api-key", "API_KEY", "provider_credential", "Secret", "password2"]
)


@given(st.text(max_size=5), names, st.text(max_size=5), st.text() | st.integers())
def test_no_secret_is_logged(before: str, name: str, after: str, value: object) -> None:
    """A field whose name could carry a credential is blanked, whatever it holds."""
    event = redact(None, "info", {before + name + after: value, "event": "gateway.started"})

    assert {"[redacted]", "gateway.started"} == set(event.values())


def test_a_line_is_one_json_object() -> None:
    """Each event is one line with its level, its time and its fields."""
    pipe = Pipe()
    log = build_logger("info", pipe)
    log.debug("gateway.started")
    log.warning("gateway.started", data="a\nb", api_key="sk-1", listen=Path("x"))
    (line,) = pipe.lines()

    assert ("gateway.started", "warning", "a\nb", "[redacted]", "x") == tuple(
        line[name] for name in ("event", "level", "data", "api_key", "listen")
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["at"])


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"a": "\udfff"}, 2**200, {1: 2}, {"s"}, object(), float("nan"), b"\xff", None],
    ids=map(str, count()),
)
def test_no_value_breaks_the_log(value: object) -> None:
    """Whatever a field holds there is one line, because an exchange must not end on its log."""
    pipe = Pipe()
    build_logger("info", pipe).error("exchange.broken", path=value)
    (line,) = pipe.lines()

    assert "exchange.broken" == line["event"]


class FullDisk(io.BytesIO):
    """A log file on a disk without room."""

    def write(self, _: Any) -> int:
        """Fail as a full disk does."""
        raise OSError(28, "No space left on device")


def test_a_log_that_cant_be_written_breaks_nothing() -> None:
    """The log may be lost; whoever logs goes on."""
    log = build_logger("info", Pipe(FullDisk()))

    for level in ("info", "error"):
        getattr(log, level)("exchange.broken", error="x")

    assert build_logger("info", Pipe()) is not log


def test_a_terminal_gets_words() -> None:
    """Where a person looks on the events come as words, with secrets blanked."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    build_logger("info", screen).info("gateway.started", secret="sk-1", listen="here")

    assert "gateway.started" in screen.getvalue()
    assert "here" in screen.getvalue()
    assert "sk-1" not in screen.getvalue()


def test_what_is_written_at_once_stays_in_one_piece_where_others_write_too() -> None:
    """A shared log is written in whole lines, few enough for a pipe to keep together."""
    pages: list[bytes] = []

    class Pages(io.BytesIO):
        def write(self, page: Any) -> int:
            pages.append(bytes(page))
            return len(page)

    lines = Lines(Pages(), PIPE_BYTES_AT_ONCE)
    said = [str(number).encode() * 50 for number in range(1000, 1300)]
    for line in said:
        lines.info(line)
    lines.flush()

    assert max(map(len, pages)) <= PIPE_BYTES_AT_ONCE
    assert all(page.endswith(b"\n") for page in pages)
    assert said == b"".join(pages).splitlines()


def test_of_a_bug_its_place_is_told_and_none_of_its_words() -> None:
    """Where it was raised is enough to find it; what it says may hold a key or a prompt."""

    def deeper(count: int) -> None:
        if not count:
            raise ValueError("sk-canary")
        deeper(count - 1)

    found: list[str] = []
    try:
        deeper(30)
    except ValueError as broken:
        found = frames(broken)

    assert "unit/test_log.py:" in found[-1]
    assert found[-1].endswith(" deeper")
    assert 12 == len(found)
    assert "canary" not in str(found)
