"""Check values against the part of JSON Schema 2020-12 that our schema uses.

It knows no other keyword and says so, so that a schema can't pass by what nobody looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "null": type(None),
}
_SAYS_NOTHING: Final = {"$schema", "$defs", "title", "description", "format"}


def fits(schema: Schema, value: object, root: Schema) -> bool:
    """Tell whether *value* is valid; references are looked up in *root*."""
    return next(faults(schema, value, root), None) is None


def faults(schema: Schema, value: Any, root: Schema) -> Iterator[str]:
    """Yield each keyword that *value* does not meet."""
    for keyword, wanted in schema.items():
        if keyword not in _SAYS_NOTHING and not _meets(keyword, wanted, value, schema, root):
            yield keyword


def _meets(keyword: str, wanted: Any, value: Any, schema: Schema, root: Schema) -> bool:
    match keyword:
        case "$ref":
            return fits(root["$defs"][wanted.removeprefix("#/$defs/")], value, root)
        case "oneOf":
            return sum(fits(one, value, root) for one in wanted) == 1
        case "anyOf":
            return any(fits(one, value, root) for one in wanted)
        case "not":
            return not fits(wanted, value, root)
        case "const":
            return _same(value, wanted)
        case "enum":
            return any(_same(value, one) for one in wanted)
        case "type":
            names = [wanted] if isinstance(wanted, str) else wanted
            return any(_is(value, name) for name in names)
        case "pattern":
            return not isinstance(value, str) or re.search(wanted, value) is not None
        case "minLength":
            return not isinstance(value, str) or len(value) >= int(wanted)
        case "minimum":
            return not _is(value, "integer") or bool(value >= wanted)
        case "minItems":
            return not isinstance(value, list) or len(value) >= int(wanted)
        case "items":
            return not isinstance(value, list) or all(fits(wanted, one, root) for one in value)
        case _ if not isinstance(value, dict):
            return keyword in _OF_OBJECTS
        case _:
            return _OF_OBJECTS[keyword](wanted, value, schema, root)


def _properties(wanted: Any, value: dict[str, Any], schema: Schema, root: Schema) -> bool:
    return all(fits(wanted[key], one, root) for key, one in value.items() if key in wanted)


def _additional(wanted: Any, value: dict[str, Any], schema: Schema, root: Schema) -> bool:
    others = [one for key, one in value.items() if key not in schema.get("properties", {})]
    return not others if wanted is False else all(fits(wanted, one, root) for one in others)


def _required(wanted: Any, value: dict[str, Any], schema: Schema, root: Schema) -> bool:
    return all(key in value for key in wanted)


def _names(wanted: Any, value: dict[str, Any], schema: Schema, root: Schema) -> bool:
    return all(fits(wanted, key, root) for key in value)


def _least(wanted: Any, value: dict[str, Any], schema: Schema, root: Schema) -> bool:
    return len(value) >= int(wanted)


_OF_OBJECTS: Final = {
    "properties": _properties,
    "additionalProperties": _additional,
    "required": _required,
    "propertyNames": _names,
    "minProperties": _least,
}


def _is(value: object, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and not isinstance(value, bool)


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) is isinstance(other, bool)
