"""Laws of text with holes: what stays is what was there, byte for byte."""

from __future__ import annotations

import json

import pytest

from gateway.provider.spans import NoJsonError, arrays_of, replaced, without

LIST = (
    '{ "object":"list",\n "data" : [ {"id":"a"} , {"id":"b"},\t{"id":"c"} ] , "more":false }\n'
)


def kept(text: str, gone: str) -> str:
    """Return *text* without the elements whose id is in *gone*."""
    return without(text, arrays_of(text), lambda value: value["id"] in gone)


@pytest.mark.parametrize("gone", ["", "a", "b", "c", "ab", "ac", "bc", "abc"])
def test_what_stays_is_what_was_there(gone: str) -> None:
    """Elements go with a comma each, and the rest keeps its blanks, order and spelling."""
    left = kept(LIST, gone)

    assert [one for one in "abc" if one not in gone] == [
        one["id"] for one in json.loads(left)["data"]
    ]
    for one in "abc":
        assert (f'{{"id":"{one}"}}' in left) == (one not in gone)
    assert left.startswith('{ "object":"list",\n "data" : [ ')
    assert left.endswith(' ] , "more":false }\n')
    assert gone or left == LIST


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('[{"id":"a"},{"id":"b"}]', '[{"id":"b"}]'),
        ('{"data":[]}', '{"data":[]}'),
        ("{}", "{}"),
        ('{"x":[{"id":"a"}],"y":[{"id":"b"},{"id":"a"}]}', '{"x":[],"y":[{"id":"b"}]}'),
        ('{"n":1e400,"b":1.0,"data":[{"id":"a","n":1.50}]}', '{"n":1e400,"b":1.0,"data":[]}'),
        ('{"data":[{"id":"b","in":[{"id":"a"}]}]}', '{"data":[{"id":"b","in":[{"id":"a"}]}]}'),
        ('{"d\\u0061ta":[{"id":"\\u0061"},{"id":"ü"}]}', '{"d\\u0061ta":[{"id":"ü"}]}'),
    ],
)
def test_arrays_at_the_top_are_looked_through(text: str, left: str) -> None:
    """Every array that stands at the top, and none below; numbers and escapes stay as sent."""
    assert left == kept(text, "a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        '"text"',
        "1",
        "null",
        '{"data":[',
        '{"data":[{"id":"a"}',
        '{"data":[{"id":"a"},]}',
        '{"data":[,{"id":"a"}]}',
        '{"data":[{"id":"a"} {"id":"b"}]}',
        '{"data":[]} {}',
        '{"data" []}',
        "{1:[]}",
        "[" * 100_000,
    ],
)
def test_what_is_no_json_has_no_arrays(text: str) -> None:
    """Nothing is guessed: text that ends early, or has too much, is refused whole."""
    with pytest.raises(NoJsonError):
        arrays_of(text)


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ('{"url":"http://a/x"}', '{"url":"http://b/x"}'),
        ('{"a":[{ "url" :\n "http:\\/\\/a/x" }]}', '{"a":[{ "url" :\n "http://b/x" }]}'),
        ('{"url":null,"other":"http://a/x"}', '{"url":null,"other":"http://a/x"}'),
        ('{"t":"\\"url\\":\\"http://a/x\\""}', '{"t":"\\"url\\":\\"http://a/x\\""}'),
        ('{"url":"elsewhere","n":1.0}', '{"url":"elsewhere","n":1.0}'),
        ('{"my_url":"http://a/x"}', '{"my_url":"http://a/x"}'),
    ],
)
def test_strings_under_a_key_are_replaced(text: str, now: str) -> None:
    """At any depth, under exactly that key, and nowhere inside other strings."""
    assert now == replaced(text, "url", lambda said: said.replace("http://a/", "http://b/"))
