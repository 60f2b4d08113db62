"""Limits of keys, projects and declarations: refused before the dial, counted behind it."""

from __future__ import annotations

import concurrent.futures
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest

from tests.support.provider import FakeProvider, Script
from tests.support.proxy import Gateway, running_gateway
from tests.support.workers import ended, kill, new_house, start

pytestmark = pytest.mark.usefixtures("one_day")

PRICES: Final = """\
currency: EUR
as_of: 2026-11-22
models:
  - {provider: openai, model: stub-*, input: 1, output: 2, output_max: 100}
  - {provider: anthropic, model: stub-*, input: 3, output: 15}
"""
LIMITS: Final = """\
prices: prices.yaml
limits:
  - {project: three-a-day, requests: {day: 3}}
  - {project: tokens, tokens: {day: 1000}}
  - {project: money, money: {month: 0.01}}
  - {declaration: "*", requests: {month: 2}}
  - {project: many, requests: {day: 25, month: 1000}, tokens: {month: 1000000}}
"""


@pytest.fixture(scope="module")
def limited(
    provider_and_url: tuple[FakeProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway with managed keys and limits."""
    folder = tmp_path_factory.mktemp("limited")
    (folder / "prices.yaml").write_text(PRICES)
    with running_gateway(folder, provider_and_url[1], keys="managed", more=LIMITS) as gateway:
        yield gateway


def new_key(gateway: Gateway, project: str, *words: str) -> str:
    """Return the secret of a new gateway key."""
    done = gateway.command("key", "new", "--principal", "ada", "--project", project, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def client(gateway: Gateway, key: str) -> openai.OpenAI:
    """Return OpenAI's SDK, which tries nothing again."""
    return openai.OpenAI(base_url=gateway.openai(), api_key=key, max_retries=0)


def ask(gateway: Gateway, key: str, model: str = "stub-large", **more: Any) -> Any:
    """Make one call."""
    with client(gateway, key) as sdk:
        return sdk.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], **more
        )


def left(gateway: Gateway, **of: str) -> dict[str, Any]:
    """Return what `gateway limit show` says of limits, by what they are."""
    words = [word for name, value in of.items() for word in (f"--{name}", value)]
    done = gateway.command("limit", "show", "--json", *words)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {f"{row['measure']}/{row['window']}": row for row in rows}


def reached(gateway: Gateway, scope: str) -> float:
    """Return how many requests met a limit of that scope on requests so far."""
    _, _, metrics = gateway.get("/-/metrics")
    named = b'gateway_limits_reached_total{measure="requests",scope="%b"} ' % scope.encode()
    counts = [line for line in metrics.splitlines() if line.startswith(named)]
    return float(counts[0].removeprefix(named)) if counts else 0.0


def test_what_is_over_the_limit_is_refused_and_asks_nobody(
    limited: Gateway, provider: FakeProvider
) -> None:
    """The call after the last raises RateLimitError, says which limit, and dials nothing."""
    key, before = new_key(limited, "three-a-day"), reached(limited, "project")
    for _ in range(3):
        ask(limited, key)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(limited, key)
    with (
        anthropic.Anthropic(base_url=limited.anthropic(), api_key=key, max_retries=0) as sdk,
        pytest.raises(anthropic.RateLimitError) as other,
    ):
        sdk.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        )

    assert 3 == len(provider.received)
    for error in (caught.value, other.value):
        assert "3 requests a day for project three-a-day" in str(error)
        assert "limit.reached" == error.response.headers["x-gateway-problem"]
        assert 1 <= int(error.response.headers["retry-after"]) <= 60
        assert "x-gateway-exchange" not in error.response.headers
    assert 2 == reached(limited, "project") - before
    until = time.monotonic() + 120
    while '"limit.reached"' not in limited.log():
        assert time.monotonic() < until, limited.log()
        time.sleep(0.05)
    assert {"used": 3, "left": 0} == {
        name: left(limited, project="three-a-day")["requests/day"][name]
        for name in ("used", "left")
    }


def test_sdks_do_not_wait_for_a_window_that_ends_much_later(
    limited: Gateway, provider: FakeProvider
) -> None:
    """Told that trying again is of no use, SDKs raise at once instead of trying again."""
    key = new_key(limited, "own", "--limit", "requests/month=0")
    before = reached(limited, "key")
    with (
        openai.OpenAI(base_url=limited.openai(), api_key=key) as sdk,
        pytest.raises(openai.RateLimitError),
    ):
        sdk.chat.completions.create(model="m", messages=[])
    with (
        anthropic.Anthropic(base_url=limited.anthropic(), api_key=key) as other,
        pytest.raises(anthropic.RateLimitError),
    ):
        other.messages.create(model="m", max_tokens=9, messages=[])

    assert 2 == reached(limited, "key") - before
    assert [] == provider.received


def test_tokens_count_as_the_provider_reports_them(
    limited: Gateway, provider: FakeProvider
) -> None:
    """What was held back is replaced by what was used, streamed or not."""
    key = new_key(limited, "tokens")
    usage = ask(limited, key, max_tokens=50).usage
    with client(limited, key) as sdk:
        events = list(
            sdk.chat.completions.create(
                model="stub-large",
                max_tokens=50,
                stream=True,
                stream_options={"include_usage": True},
                messages=[{"role": "user", "content": "hi"}],
            )
        )
    streamed = events[-1].usage
    assert streamed is not None
    used = left(limited, project="tokens")["tokens/day"]["used"]

    assert usage.total_tokens + streamed.total_tokens == used
    with pytest.raises(openai.RateLimitError) as caught:
        ask(limited, key, max_tokens=1000)
    assert "ask for a shorter answer" in str(caught.value)
    assert "retry-after" not in caught.value.response.headers
    assert 2 == len(provider.received)


def test_money_counts_by_the_file_of_prices(limited: Gateway, provider: FakeProvider) -> None:
    """A cost is whole millionths of the prices per million tokens, rounded up."""
    key = new_key(limited, "money")
    usage = ask(limited, key).usage
    micros = usage.prompt_tokens + 2 * usage.completion_tokens
    row = left(limited, project="money")["money/month"]

    assert f"{micros / 1e6:.6f}" == f"{float(row['used']):.6f}"
    assert "EUR" == row["currency"]


def test_what_has_no_price_is_refused_where_money_is_limited(
    limited: Gateway, provider: FakeProvider
) -> None:
    """A model without a price is refused before the dial, with what to add to the prices."""
    key = new_key(limited, "money")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(limited, key, model="grok-9")

    assert "price.missing" == caught.value.code
    assert '{provider: openai, model: "grok-9", input: …' in str(caught.value)
    assert [] == provider.received
    assert ask(limited, new_key(limited, "unlimited"), model="grok-9")


def test_a_limit_of_each_declaration(limited: Gateway, provider: FakeProvider) -> None:
    """Each declaration that is cited has counters of its own; who cites none has none."""
    key = new_key(limited, "declaring")
    for purpose in ("evaluate", "evaluate", "evaluate.benchmark"):
        ask(limited, key, extra_headers={"x-intended-use": f"purpose={purpose}"})
    with pytest.raises(openai.RateLimitError) as caught:
        ask(limited, key, extra_headers={"x-intended-use": "purpose=evaluate"})
    ask(limited, key)

    assert "2 requests a month for declaration use-" in str(caught.value)


def test_a_key_has_limits_of_its_own(limited: Gateway, provider: FakeProvider) -> None:
    """What a key was made with binds it at once, and no other key of its project."""
    key = new_key(limited, "free", "--limit", "requests/day=1")
    other = new_key(limited, "free")
    ask(limited, key)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(limited, key)
    ask(limited, other)
    listed = limited.command("key", "list").stdout

    assert "1 requests a day for key key-" in str(caught.value)
    assert "requests/day=1" in listed


def test_an_error_of_the_provider_uses_a_request_and_nothing_else(
    limited: Gateway, provider: FakeProvider
) -> None:
    """Of an error answer no tokens are counted; nor of a provider that could not be reached."""
    key = new_key(limited, "failing", "--limit", "tokens/day=100001")
    for script in (Script(status=500), Script(status=429)):
        with pytest.raises(openai.APIStatusError):
            ask(limited, key, extra_headers=script.header())

    rows = [
        json.loads(line)
        for line in limited.command("limit", "show", "--json").stdout.splitlines()
    ]
    assert [0] == [row["used"] for row in rows if row.get("limit") == 100001]


def test_what_nobody_counted_stays_counted(limited: Gateway, provider: FakeProvider) -> None:
    """Of an answer that broke off without a count, what was held back stays."""
    key = new_key(limited, "breaking", "--limit", "tokens/day=100000")
    with pytest.raises((openai.APIConnectionError, openai.APIError)):
        ask(
            limited,
            key,
            max_tokens=700,
            extra_headers=Script(break_after=20).header(),
        )
    rows = [
        json.loads(line)
        for line in limited.command("limit", "show", "--json", "--used").stdout.splitlines()
    ]
    used = [row["used"] for row in rows if row.get("limit") == 100000]

    assert len(used) == 1
    assert 700 < used[0] < 1000


def test_many_at_once_never_pass_a_limit(limited: Gateway, provider: FakeProvider) -> None:
    """Of sixty calls at once exactly as many are asked as the lowest limit allows."""
    key = new_key(limited, "many")

    def one(_: int) -> bool:
        try:
            ask(limited, key, max_tokens=10)
        except openai.RateLimitError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        allowed = sum(pool.map(one, range(60)))

    assert 25 == allowed == len(provider.received)


def test_without_limits_there_is_no_file(gateway: Gateway, provider: FakeProvider) -> None:
    """A gateway that limits nothing makes no counters, and says so."""
    with client(gateway, "sk-1") as sdk:
        sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

    assert not (gateway.data / "counters").exists()
    assert "nothing is limited\n" == gateway.command("limit", "show").stdout
    assert not (gateway.data / "counters").exists()


@pytest.mark.crash
def test_limits_hold_across_workers_and_kill(
    provider: FakeProvider, provider_url: str, tmp_path: Path
) -> None:
    """Two doors share one counter; a kill -9 in the middle leaves what was held counted."""
    gateway = new_house(tmp_path / "house", provider_url, 2)
    gateway.settings_file.write_text(
        gateway.settings_file.read_text()
        + "limits:\n- {project: default, requests: {day: 20}}\n"
    )
    start(gateway, 2)
    try:

        def one(number: int) -> bool:
            # A connection each, so that both doors get some.
            try:
                ask(gateway, f"sk-{number}", max_tokens=10)
            except openai.RateLimitError:
                return False
            return True

        def cut_off() -> None:
            with pytest.raises(openai.APIError):
                one(1)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            allowed = sum(pool.map(one, range(16)))
        assert 16 == allowed

        provider.script = Script(slow_first_byte=True)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(cut_off) for _ in range(2)]
            until = time.monotonic() + 120
            while len(provider.received) < 18:
                assert time.monotonic() < until
                time.sleep(0.02)
            kill(gateway)
            ended(gateway)
            for future in waiting:
                future.result(120)
        provider.release()
        provider.script = Script()
        start(gateway, 2)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            after = sum(pool.map(one, range(8)))

        assert 2 == after
        assert 20 == len(provider.received)
    finally:
        kill(gateway)
