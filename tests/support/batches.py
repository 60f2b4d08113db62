"""Batches to hand in, and a gateway whose terms let a student learn from some of the models."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.canonical import canonical_json
from gateway.ident import ExchangeId, item_id
from gateway.receipt.model import Opening, Receipt, Refusal, Statement
from gateway.receipt.statement import read_leaf
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import leaf_hash, root_of
from tests.support.dataset import TERMS
from tests.support.ports import free_port
from tests.support.proxy import Gateway

PROJECT: Final = "search"
TRAINING: Final = "purpose=train.sft, student=parser"
POLICY: Final = """\
policy: {name}
version: 1
title: What {name} says
in_force_from: 2026-01-01
review_by: 2099-12-01
terms: [words]
clauses:
  - id: plain-use
    effect: permit
    when: {{purpose: inference}}
    citation: {{document: words, section: "1"}}
    because: It may be used.
    change: Other terms.
  - id: training
    effect: permit
    when: {{purpose: train}}
    citation: {{document: words, section: "2"}}
    because: The terms speak of training.
    change: Other terms.
  - id: not-this-one
    effect: forbid
    when: {{features: {feature}}}
    citation: {{document: words, section: "3"}}
    because: This is for nobody.
    change: Ask for something else.
"""
"""Everything is permitted but one feature."""

FORBIDDEN: Final[dict[str, Any]] = {"logprobs": True}
"""What the terms of OpenAI's dialect forbid in a request."""

NAMES: Final = ("openai", "anthropic", "gemini")


def settings_text(port: int, url: str, more: str = "") -> str:
    """Return a `gateway.yaml` with three providers of the stub at *url*, and small policies."""
    lines = [f"listen: 127.0.0.1:{port}", "policies: ./policies", "providers:"]
    for name in NAMES:
        lines += [f"  {name}:", f"    base_url: {url}/{name}", f"    dialect: {name}"]
    return "\n".join(lines) + "\n" + more


def write_policies(folder: Path, forbids: Mapping[str, str]) -> None:
    """Write the small policies; each forbids one feature of requests."""
    for name in NAMES:
        feature = forbids.get(name, "logprobs")
        place = folder / "policies" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "policy.yaml").write_text(POLICY.format(name=name, feature=feature))
        (place / "terms.yaml").write_text(TERMS)


@contextmanager
def batching_gateway(
    folder: Path, url: str, more: str = "", forbids: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """Run a gateway before the stub at *url*; it is killed at the end."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    write_policies(folder, forbids or {})
    gateway = Gateway(folder=folder, port=port, settings=settings_text(port, url, more))
    gateway.init()
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()


def chat_line(number: int, text: str = "", **more: Any) -> dict[str, Any]:
    """Return a line of a batch of OpenAI's."""
    asked = text or f"What is the square of {number}?"
    said = [{"role": "user", "content": asked}]
    return {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "stub-large", "messages": said, **more},
    }


def message_request(number: int, text: str = "", **more: Any) -> dict[str, Any]:
    """Return a request of a batch of Anthropic's."""
    asked = text or f"What is the square of {number}?"
    return {
        "custom_id": f"line-{number}",
        "params": {
            "model": "stub-large",
            "max_tokens": 64,
            "messages": [{"role": "user", "content": asked}],
            **more,
        },
    }


def jsonl(lines: Iterable[Any]) -> bytes:
    """Return *lines* as a file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Written:
    """What stands in a gateway's ledger."""

    statements: list[Statement]
    first: int = 0
    """The leaf index of the first of them."""

    @property
    def receipts(self) -> list[Receipt]:
        """Return the receipts of exchanges."""
        return [one for one in self._receipts if one.item is None]

    @property
    def items(self) -> list[Receipt]:
        """Return the receipts of items."""
        return [one for one in self._receipts if one.item is not None]

    @property
    def refusals(self) -> list[Refusal]:
        """Return the refusals."""
        return [one for one in self.statements if isinstance(one, Refusal)]

    @property
    def openings(self) -> list[Opening]:
        """Return the openings."""
        return [one for one in self.statements if isinstance(one, Opening)]

    @property
    def _receipts(self) -> list[Receipt]:
        return [one for one in self.statements if isinstance(one, Receipt)]

    def of(self, operation: str) -> Receipt:
        """Return the one receipt of an exchange of that operation."""
        (found,) = [one for one in self.receipts if one.operation == operation]
        return found

    def check_items(self, *, count: int) -> None:
        """Insist that there are so many items, each under its own id and its opening."""
        openings = {
            one.exchange: at
            for at, one in enumerate(self.statements, self.first)
            if isinstance(one, Opening)
        }
        named = [one.item for one in self.items if one.item is not None]

        assert count == len(named)
        assert [item_id(item.of, item.number) for item in named] == [
            one.exchange for one in self.items
        ]
        assert len({one.exchange for one in self.items}) == count
        assert [openings[item.of] for item in named] == [one.opening for one in self.items]


def leaves(gateway: Gateway) -> int:
    """Return how many leaves are durable in the ledger of *gateway*."""
    with contextlib.closing(SqliteLedger(gateway.data / "ledger.db")) as ledger:
        return ledger.head().size


def written(gateway: Gateway, since: int = 0) -> Written:
    """Return what is durable in the ledger of *gateway* from leaf *since* on."""
    with contextlib.closing(SqliteLedger(gateway.data / "ledger.db")) as ledger:
        found = ledger.leaves(since, ledger.head().size)
        return Written([read_leaf(leaf) for leaf in found], since)


def report_of(gateway: Gateway, exchange: str, key: str = "") -> list[dict[str, Any]]:
    """Return the report per line of what *exchange* handed in."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    status, _, body = gateway.get(f"/-/batches/{exchange}/lines", headers)

    assert status == 200, body
    return [json.loads(line) for line in body.splitlines()]


def root_over(report: Iterable[Any]) -> str:
    """Return the root that a report of these lines has."""
    return root_of(leaf_hash(canonical_json(line)) for line in report).hex()


def exchange_of(headers: Any) -> ExchangeId:
    """Return the exchange that an answer says it is of."""
    return ExchangeId(headers["x-gateway-exchange"])
