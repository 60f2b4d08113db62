"""No credential ever reaches a log, an error, a receipt, a metric or the data folder.

Secrets are sent in every place in which a key can come, right and wrong, through answers,
refusals, errors and a kill; then all that the gateway said or kept is searched for them.
"""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.support.caller import Answer, Caller
from tests.support.provider import FakeProvider, Script
from tests.support.proxy import NOBODY, PROVIDER_SECRET, Gateway, running_gateway

OPENAI: Final = "/openai/v1/chat/completions"
ANTHROPIC: Final = "/anthropic/v1/messages"
GEMINI: Final = "/gemini/v1beta/models/stub-large:generateContent"
BODIES: Final = {
    OPENAI: {"model": "stub-large", "messages": [{"role": "user", "content": "hi"}]},
    ANTHROPIC: {
        "model": "stub-large",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    },
    GEMINI: {"contents": [{"parts": [{"text": "hi"}]}]},
}
MORE: Final = (
    NOBODY
    + """\
  bare:
    base_url: http://127.0.0.1:1
    dialect: openai
    policy: openai
limits:
- {project: spent, requests: {day: 0}}
"""
)
WAIT_S: Final = 120.0


@dataclass
class Canaries:
    """Secrets, each sent in one place, and all that came back."""

    prefix: str
    sent: list[str] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)
    """Everything that the gateway answered."""

    def new(self) -> str:
        """Return a secret that was never used before."""
        secret = f"{self.prefix}canary{len(self.sent):04}secret{len(self.sent) * 7919:08}"
        self.sent.append(secret)
        return secret

    def forms(self) -> set[bytes]:
        """Return how a secret may be written."""
        found: set[bytes] = set()
        for secret in self.sent:
            plain = secret.encode()
            # In base 64 a text may begin at any of three places.
            coded = {base64.b64encode(b"\0" * shift + plain)[4:-4] for shift in (0, 1, 2)}
            found |= {plain, plain.hex().encode(), *coded}
        return found

    def ask(
        self,
        gateway: Gateway,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        method: str = "POST",
        path: str = OPENAI,
    ) -> Answer:
        """Send a request, and keep what comes back."""
        body = json.dumps(BODIES[path]).encode() if method == "POST" else b""
        said = [("content-type", "application/json"), ("anthropic-version", "2023-06-01")]
        with Caller(gateway.port) as caller:
            answer = caller.ask(method, target, [*said, *headers], body)
        self.seen.append(answer.wire)
        return answer

    def found_in(self, content: bytes) -> list[bytes]:
        """Return which secrets *content* holds."""
        return [form for form in self.forms() if form in content]


def places(secret: str) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield (path, query, headers) for every place in which a key can come."""
    plain = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "x-gateway-key")
    for path in (OPENAI, ANTHROPIC, GEMINI):
        for name in plain:
            yield path, "", [(name, secret)]
            yield path, "", [(name, f"Bearer {secret}")]
        yield path, "", [("authorization", f"Token {secret}")]
        basic = base64.b64encode(f"user:{secret}".encode()).decode()
        yield path, "", [("authorization", f"Basic {basic}")]
        yield path, "", [("proxy-authorization", f"Bearer {secret}")]
        yield path, "", [("cookie", f"session={secret}")]
        for name in ("key", "api_key", "api-key", "access_token"):
            yield path, f"?{name}={secret}", []
            yield path, f"?alt=sse&{name}={secret}", [("authorization", f"Bearer {secret}")]
        yield path, "", list(itertools.product(plain, [secret]))
    upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", base64.b64encode(b"0123456789abcdef").decode()),
    ]
    subprotocol = f"realtime, openai-insecure-api-key.{secret}"
    yield "/openai/v1/realtime", "?model=m", [*upgrade, ("sec-websocket-protocol", subprotocol)]
    yield "/openai/v1/realtime", "?model=m", [*upgrade, ("authorization", f"Bearer {secret}")]
    live = "/gemini/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent"
    yield live, f"?key={secret}", upgrade
    yield live, f"?access_token={secret}", upgrade
    for own in ("/-/receipts/x", "/-/uses", "/-/nothing", "/-/log/checkpoint"):
        yield own, f"?key={secret}", [("authorization", f"Bearer {secret}")]
    for odd in ("/nobody/v1/chat/completions", "/unknown/v1", "/bare/v1/models"):
        yield odd, f"?key={secret}", [("x-gateway-key", secret)]


def send_everywhere(gateway: Gateway, canaries: Canaries) -> None:
    """Send a secret of its own in each place."""
    for number in range(len(list(places("")))):
        secret = canaries.new()
        path, query, headers = next(itertools.islice(places(secret), number, None))
        method = "POST" if path in BODIES else "GET"
        canaries.ask(
            gateway,
            path + query,
            headers,
            method=method,
            path=path if path in BODIES else OPENAI,
        )
    # Requests that are none, and one whose address holds a name and a password.
    for raw in (
        "POST http://user:{}@gateway.example/openai/v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET //user:{}@gateway.example/openai/v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /openai/v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n bad\r\n\r\n",
        "POST /openai/v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\0\r\n\r\n",
    ):
        with Caller(gateway.port) as caller:
            caller.send(raw.format(canaries.new()).encode())
            canaries.seen.append(caller.read().wire)


def send_through_faults(gateway: Gateway, canaries: Canaries, good: str | None) -> None:
    """Send secrets through refusals, errors, broken answers and limits."""
    for more in (
        Script(status=401).header(),
        Script(status=429).header(),
        Script(status=500).header(),
        Script(break_after=9).header(),
        Script(content_length=9999).header(),
        {"x-intended-use": "purpose=train.sft, student=s, audience=public"},
        {"x-intended-use": "purpose=nonsense"},
        {"x-intended-use": "use-0123456789abcdef0123"},
        {"x-stainless-retry-count": "1", "idempotency-key": "once"},
    ):
        secret = canaries.new()
        keys = [("authorization", f"Bearer {good or secret}"), ("x-api-key", secret)]
        canaries.ask(gateway, OPENAI, [*keys, *more.items()])
        canaries.ask(gateway, ANTHROPIC, [*keys, *more.items()], path=ANTHROPIC)


def kept(gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    """Yield all that the gateway keeps or has said, with a name."""
    for file in sorted(gateway.data.rglob("*")):
        if file.is_file():
            yield str(file.relative_to(gateway.folder)), file.read_bytes()
    yield "gateway.log", (gateway.folder / "gateway.log").read_bytes()


def shown(gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    """Yield what commands show."""
    for words in (
        ("receipt", "list", "--json", "--limit", "10000"),
        ("key", "list"),
        ("config", "show"),
        ("limit", "show", "--json"),
    ):
        done = gateway.command(*words)
        yield " ".join(words), (done.stdout + done.stderr).encode()


def receipts(gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    """Yield some receipts, as people see them."""
    listed = gateway.command("receipt", "list", "--json", "--limit", "10000").stdout
    exchanges = [json.loads(line)["exchange"] for line in listed.splitlines()]
    assert exchanges
    for exchange in exchanges[:: max(1, len(exchanges) // 5)]:
        yield exchange, gateway.command("receipt", "show", exchange).stdout.encode()


def leaks(gateway: Gateway, canaries: Canaries) -> list[str]:
    """Return every place that holds a secret."""
    everything = itertools.chain(kept(gateway), shown(gateway), receipts(gateway))
    found = [
        f"{name}: {form.decode()}"
        for name, content in everything
        for form in canaries.found_in(content)
    ]
    return found + [
        f"an answer: {answer[:300]!r}" for answer in canaries.seen if canaries.found_in(answer)
    ]


def killed_in_the_middle(
    gateway: Gateway, provider: FakeProvider, headers: list[tuple[str, str]]
) -> None:
    """Kill the gateway while an answer is on its way, and start it again."""
    provider.script = Script(slow_first_byte=True)
    with Caller(gateway.port) as caller:
        before = len(provider.received)
        caller.send_request(
            "POST",
            OPENAI,
            [("content-type", "application/json"), *headers],
            json.dumps(BODIES[OPENAI]).encode(),
        )
        until = time.monotonic() + WAIT_S
        while len(provider.received) == before:
            assert time.monotonic() < until
            time.sleep(0.01)
        gateway.kill()
    provider.release()
    provider.script = Script()
    gateway.start()


@pytest.mark.crash
def test_where_keys_are_managed(
    provider: FakeProvider, provider_url: str, tmp_path: Path
) -> None:
    """Neither the callers' keys nor the providers' are anywhere but where they were put."""
    names = ("openai", "anthropic", "gemini")
    with running_gateway(
        tmp_path, provider_url, keys="managed", names=names, more=MORE
    ) as gateway:
        canaries = Canaries("gw-")

        def key(project: str) -> str:
            done = gateway.command("key", "new", "--principal", "ada", "--project", project)
            assert done.returncode == 0, done.stderr
            canaries.sent.append(done.stdout.strip())
            return done.stdout.strip()

        good, spent = key("search"), key("spent")
        assert (
            200 == canaries.ask(gateway, OPENAI, [("authorization", f"Bearer {good}")]).status
        )
        assert (
            429 == canaries.ask(gateway, OPENAI, [("authorization", f"Bearer {spent}")]).status
        )
        for path, query, headers in places(good):
            canaries.ask(
                gateway,
                path + query,
                headers,
                method="POST" if path in BODIES else "GET",
                path=path if path in BODIES else OPENAI,
            )
        upstream = b"".join(
            one.target.encode() + b"".join(name + value for name, value in one.headers)
            for one in provider.received
        )
        send_everywhere(gateway, canaries)
        send_through_faults(gateway, canaries, good)
        canaries.ask(gateway, "/-/metrics", method="GET")
        killed_in_the_middle(gateway, provider, [("authorization", f"Bearer {good}")])
        canaries.ask(gateway, "/-/metrics", method="GET")
        canaries.sent.append(PROVIDER_SECRET)
        assert 0 == gateway.stop()

        assert [] == leaks(gateway, canaries)
        assert good.encode() not in upstream
        assert PROVIDER_SECRET.encode() in upstream


@pytest.mark.crash
def test_where_keys_pass_through(
    provider: FakeProvider, provider_url: str, tmp_path: Path
) -> None:
    """The callers' own provider keys go upstream, and stay nowhere on the way."""
    names = ("openai", "anthropic", "gemini")
    with running_gateway(tmp_path, provider_url, names=names, more=MORE) as gateway:
        canaries = Canaries("sk-")
        mine = canaries.new()
        canaries.ask(gateway, OPENAI, [("authorization", f"Bearer {mine}")])
        send_everywhere(gateway, canaries)
        send_through_faults(gateway, canaries, None)
        canaries.ask(gateway, "/-/metrics", method="GET")
        killed_in_the_middle(gateway, provider, [("authorization", f"Bearer {canaries.new()}")])
        assert 0 == gateway.stop()

        assert [] == leaks(gateway, canaries)
