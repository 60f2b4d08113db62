"""The standard uses are data, read strictly."""

from __future__ import annotations

import pytest

from gateway.errors import MalformedPolicyError
from gateway.intent.model import IntendedUse
from gateway.policy.standard import load_standard_uses
from tests.support.rulings import ACME, STANDARD, small_library, small_uses


def test_a_use_says_what_is_common_and_what_is_its_own() -> None:
    """Common facts are every use's; a variant differs from its plain use in what it says."""
    plain, rival = small_uses().columns[1].uses

    assert (plain.name, rival.name, rival.title) == ("train", "train/rival", "a rival")
    assert plain.use == IntendedUse(
        purpose="train.sft", audience="internal", competes=False, jurisdiction="US"
    )
    assert (plain.use.competes, rival.use.competes) == (False, True)
    assert plain.facts == {"account-tier": "paid", "gateway-role": "internal"}
    assert [use.name for use in small_uses().uses()] == ["use", "train", "train/rival"]


def test_what_is_left_empty_is_undeclared() -> None:
    """A key that a variant leaves empty takes back what the plain use says."""
    uses = small_uses(STANDARD.replace("{competes: true}", "{competes: }"))

    assert uses.columns[1].uses[1].use.competes is None


def test_every_policy_has_a_row() -> None:
    """A policy that no row names gets a plain one, by the route that its kind has."""
    rows = {row.id: row for row in small_uses().rows_of(small_library())}

    assert list(rows) == ["acme", "free", "host-free", "host-other"]
    assert (rows["acme"].title, rows["acme"].facts) == (
        "Acme API",
        {"access-route": "first-party"},
    )
    assert rows["free"].facts == {"access-route": "self-hosted"}
    assert rows["host-free"].facts == {"access-route": "host"}


def test_a_row_asks_a_use_in_its_own_way() -> None:
    """The row's model and facts count, and its purpose takes the place of the use's."""
    free, other = small_uses().rows
    plain = small_uses().columns[1].uses[0]

    assert free.asks(plain)["purpose"] == "train.sft"
    assert (free.asks(plain)["model"], free.asks(plain)["provider"]) == ("free-7b", "host")
    assert free.asks(plain)["access-route"] == "host"
    asked = other.asks(plain)
    assert (asked["purpose"], asked["generated-for"]) == ("verify", "verify")
    assert other.asks(small_uses().columns[0].uses[0])["purpose"] == "inference"


def test_a_library_of_others_may_be_asked_too() -> None:
    """Without a list of policies, rows that name none of them are left alone."""
    uses = load_standard_uses(STANDARD, "s.yaml")

    assert [row.id for row in uses.rows_of(small_library(host=""))] == ["acme", "free"]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("purpose: inference", "purpose: inferrence", 7, "unknown purpose `inferrence`"),
        ("purpose: inference", "porpoise: inference", 7, "unknown key `porpoise`"),
        ("purpose: inference", "competes: false", 7, "key `purpose` is missing"),
        ("{purpose: inference}", "[inference]", 7, "`use` must be a mapping"),
        ("account-tier: paid", "account-tier: gold", 3, "`account-tier` can't be `gold`"),
        ("gateway-role: internal", "gateway-roll: internal", 11, "unknown fact `gateway-roll`"),
        ("- name: train", "- name: use", 8, "use `use` twice"),
        ("- name: train", "- name: Train!", 8, "`Train!` can't be the name of a use"),
        ("- name: rival", "- name: a/b", 13, "`a/b` can't be the name of a variant"),
        ("id: host-other", "id: host-free", 19, "row `host-free` twice"),
        ("policy: host, purposes", "policy: hots, purposes", 19, "no policy `hots`"),
        ("{train: verify}", "{train: verified}", 19, "unknown purpose `verified`"),
        ("{train: verify}", "{trane: verify}", 19, "unknown purpose `trane`"),
        ("title: Use it", "titel: Use it", 6, "unknown key `titel`"),
    ],
)
def test_whatever_is_wrong_is_one_error_with_file_and_line(
    old: str, new: str, line: int, message: str
) -> None:
    """A mistake in the file is named with its place."""
    assert old in STANDARD

    with pytest.raises(MalformedPolicyError) as caught:
        small_uses(STANDARD.replace(old, new))

    assert message in caught.value.message
    assert (caught.value.file, caught.value.line) == ("standard-uses.yaml", line)


def test_two_variants_of_one_name_are_one_too_many() -> None:
    """Each variant has a name of its own."""
    twice = STANDARD.replace("rows:", "      - {name: rival, title: again}\nrows:")

    with pytest.raises(MalformedPolicyError, match="variant `rival` twice"):
        small_uses(twice)


def test_a_file_without_uses_asks_nothing() -> None:
    """An empty list of uses is a mistake, not an empty table."""
    with pytest.raises(MalformedPolicyError, match="no use is named"):
        load_standard_uses("uses: []\n", "s.yaml")


def test_nothing_need_be_common() -> None:
    """Each use may say all of it by itself."""
    uses = load_standard_uses("uses: [{name: a, title: A, use: {purpose: verify}}]\n", "s.yaml")

    assert [(use.name, use.use) for use in uses.uses()] == [
        ("a", IntendedUse(purpose="verify"))
    ]


def test_a_row_of_another_kind_has_its_route() -> None:
    """What laws ask is asked of a provider's own API."""
    overlay = ACME.replace("policy: acme", "policy: law")
    library = small_library(**{"overlays/law": overlay})

    rows = {row.id: row for row in small_uses().rows_of(library)}

    assert rows["law"].facts == {"access-route": "first-party"}
