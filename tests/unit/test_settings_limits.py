"""Limits and prices as operators write them: exact, or an error that says what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.budget.model import Limit, Rule
from gateway.errors import SettingError
from gateway.settings import load

ROOT = Path(__file__).resolve().parents[2]
PRICES = "currency: EUR\nas_of: 2026-11-22\nmodels:\n"


def written(folder: Path, text: str, prices: str | None = None) -> Path:
    """Write settings, and prices beside them."""
    file = folder / "gateway.yaml"
    file.write_text(text)
    if prices is not None:
        (folder / "prices.yaml").write_text(prices)
    return file


def test_limits_become_rules(tmp_path: Path) -> None:
    """Each entry is a rule for one kind of name, with every amount exactly as written."""
    file = written(
        tmp_path,
        "prices: prices.yaml\n"
        "limits:\n"
        '- {project: "*", requests: {minute: 60, day: 1000}}\n'
        "- {key: key-1, tokens: {hour: 5}, money: {month: 12.50}}\n"
        "- {declaration: use-*, money: {day: 3}}\n",
        PRICES + "- {model: m, input: 0.075}\n",
    )
    sourced = load(file, {})

    assert (
        Rule(
            scope="project",
            names="*",
            limits=(Limit("requests", "minute", 60), Limit("requests", "day", 1000)),
        ),
        Rule(
            scope="key",
            names="key-1",
            limits=(Limit("tokens", "hour", 5), Limit("money", "month", 12_500_000)),
        ),
        Rule(scope="declaration", names="use-*", limits=(Limit("money", "day", 3_000_000),)),
    ) == sourced.rules()
    prices = sourced.prices()
    assert prices is not None
    price = prices.of("any", "m")
    assert price is not None
    assert (75_000, 0, None) == (price.input, price.output, price.cached_input)
    assert "EUR" == prices.currency


def test_nothing_said_limits_nothing(tmp_path: Path) -> None:
    """An empty file has no rules and no prices."""
    sourced = load(written(tmp_path, ""), {})

    assert () == sourced.rules()
    assert sourced.prices() is None


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{requests: {day: 1}}", "names 0 of `key`, `project` and `declaration`"),
        ("{key: a, project: b, requests: {day: 1}}", "names 2 of"),
        ("{project: a}", "`limits[0]` limits nothing"),
        ("{project: a, requests: {day: -1}}", "`limits[0].requests.day` is no amount: `-1`"),
        ("{project: a, requests: {week: 1}}", "unknown key `week`"),
        ("{project: a, words: {day: 1}}", "unknown key `words`"),
        ("{project: a, money: {day: 1.1234567}}", "is no amount: `1.1234567`"),
        ("{project: a, tokens: {day: 1.5}}", "`day` must be a whole number"),
        ("{project: a, money: {day: 1}}", "nothing says what models cost"),
    ],
    ids=["nobody", "two", "nothing", "below", "week", "words", "fine", "half", "unpriced"],
)
def test_a_limit_that_cannot_be_is_an_error(entry: str, told: str, tmp_path: Path) -> None:
    """No limit is ever guessed, or left out."""
    prices = "" if "unpriced" in told or "cost" in told else "prices: prices.yaml\n"
    with pytest.raises(SettingError) as caught:
        load(written(tmp_path, f"{prices}limits:\n- {entry}\n"), {})

    assert told in caught.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("currency: EUR\nmodels: []\n", "`as_of` is missing"),
        ("currency: EUR\nas_of: soon\nmodels: []\n", ":2: `as_of` is not a day: `soon`"),
        (PRICES + "- {model: m, input: -1}\n", ":4: `input` is no amount of money: `-1`"),
        (PRICES + "- {model: m, output: 1e3}\n", "`output` is no amount of money: `1e3`"),
        (PRICES + "- {model: m, ouput: 1}\n", "unknown key `ouput`"),
        (PRICES + "- {input: 1}\n", "`model` is missing"),
        ("nonsense: [", "prices.yaml:"),
    ],
    ids=["undated", "soon", "below", "float", "misspelt", "nameless", "broken"],
)
def test_prices_that_cannot_be_read_are_an_error(text: str, told: str, tmp_path: Path) -> None:
    """File and line are named, and no price is guessed."""
    sourced = load(written(tmp_path, "prices: prices.yaml\n", text), {})
    with pytest.raises(SettingError) as caught:
        sourced.prices()

    assert told in caught.value.message


def test_prices_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    """A file that is named must be there."""
    with pytest.raises(SettingError, match="can't read the prices"):
        load(written(tmp_path, "prices: prices.yaml\n"), {}).prices()


def test_the_example_is_read(tmp_path: Path) -> None:
    """The file of prices that we show is one, and says so on every line."""
    text = (ROOT / "examples" / "prices.yaml").read_text("utf-8")
    prices = load(written(tmp_path, "prices: prices.yaml\n", text), {}).prices()

    assert prices is not None
    large = prices.of("openai", "stub-large-1")
    assert large is not None
    assert (2_000_000, 500_000, 8_000_000) == (large.input, large.cached_input, large.output)
    own = prices.of("vllm", None)
    assert own is not None
    assert not own.by_token
