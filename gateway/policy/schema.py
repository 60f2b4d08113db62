"""One JSON Schema for every file of a policy library, so that editors complete and check.

It is made from the files' structs, the vocabulary, the purposes and the obligations; a test
keeps `policies/schema.json` fresh. Which sort of file it is shows in its required keys. It is
for editors: the strict reader and the loader remain the judges, and know more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.intent.country import COUNTRIES
from gateway.intent.model import IntendedUse
from gateway.intent.purpose import PURPOSES
from gateway.policy.cases import WrittenCase
from gateway.policy.model import WrittenModels, WrittenPolicy, WrittenTerms
from gateway.policy.obligation import OBLIGATIONS, Obligation
from gateway.policy.standard import WrittenStandardUses
from gateway.policy.vocabulary import ANY, FACTS, NONE, REGIONS, Fact

Schema = dict[str, Any]

_FILES: Final = (WrittenPolicy, WrittenTerms, WrittenModels, WrittenStandardUses, WrittenCase)

_YES_NO: Final[Schema] = {"enum": [True, False, "true", "false"]}
_DAY: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "format": "date",
    "description": "a day, YYYY-MM-DD",
}
_MONTH: Final = "^[0-9]{4}-(0[1-9]|1[0-2])$"
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TEXT: Final[Schema] = {"type": ["string", "integer"]}

_KEYS: Final[Mapping[str, Mapping[str, str | Schema]]] = {
    "Policy": {
        "policy": "the policy's id: the name of its folder",
        "version": {
            "type": "integer",
            "minimum": 1,
            "description": "raised with every change that legal signs",
        },
        "title": "what people call it",
        "in_force_from": "the first day on which it binds",
        "in_force_until": "the last day; left out while no end is known",
        "review_by": "after this day permits for training hold until the terms are read again",
        "terms": "ids of the documents that were read, all listed in terms.yaml",
        "clauses": "the rules; their order means nothing",
        "with_model_terms": "the terms of the model that is asked bind as well",
    },
    "Clause": {
        "id": {
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9.-]{0,63}$",
            "description": "its name; it stands in receipts for ever",
        },
        "effect": "what it does to a use that it speaks to; the strictest clause counts",
        "citation": "where in the terms it stands",
        "because": "why, in a sentence of our own; it goes to the refused caller",
        "change": "what would change it; it goes to the refused caller",
        "when": {"$ref": "#/$defs/Condition"},
        "unless": {
            "description": "an exception, or a list of them; one that fits silences the clause",
            "anyOf": [
                {"$ref": "#/$defs/Exception"},
                {"type": "array", "items": {"$ref": "#/$defs/Exception"}},
            ],
        },
        "obligations": {
            "description": "what must be done if the use is permitted",
            "type": "array",
            "items": {"$ref": "#/$defs/Obligation"},
        },
        "binds": "whom the clause binds",
        "survives": "it binds after the agreement has ended",
    },
    "Citation": {
        "document": "an id from terms.yaml",
        "words": "at most ten words of the text, to find the place by",
    },
    "Document": {
        "id": "what clauses cite it by",
        "version": "as the document names its version",
        "effective": "the first day of that version",
        "confidence": "primary: its own text was read; only such can permit",
        "read": "where and when it was read, so that somebody else finds the same text",
        "note": "a sentence of the reader's, such as what of the document was read",
        "snapshot": "the text it was read from; `gateway policy watch --record` fills it in",
    },
    "Model": {
        "id": "the exact id of the model; a family is no model",
        "names": "other exact ids under which hosts serve it",
        "terms": "the policies that bind whoever uses it",
        "source": "where its licence was read",
        "confidence": "secondary: known from others only, so that every use holds",
    },
    "StandardUses": {
        "common": "what every use says unless it says otherwise",
        "uses": "the columns of the table",
        "rows": "ways of coming under a policy; a policy that has none gets a plain row",
    },
    "StandardUse": {
        "name": "its name in the table and in differences",
        "title": "its heading, for people",
        "use": {"$ref": "#/$defs/PartOfUse"},
        "facts": {"$ref": "#/$defs/Facts"},
        "variants": "uses that share the column; each says only what is otherwise",
    },
    "Variant": {
        "use": {"$ref": "#/$defs/PartOfUse"},
        "facts": {"$ref": "#/$defs/Facts"},
    },
    "Common": {
        "use": {"$ref": "#/$defs/PartOfUse"},
        "facts": {"$ref": "#/$defs/Facts"},
    },
    "Row": {
        "policy": "the policy's id",
        "model": "the exact model id that is asked",
        "facts": {"$ref": "#/$defs/Facts"},
        "purposes": {
            "description": "purposes of the uses, and what takes their place in this row",
            "type": "object",
            "propertyNames": {"$ref": "#/$defs/Purpose"},
            "additionalProperties": {"$ref": "#/$defs/Purpose"},
        },
    },
    "Case": {
        "use": {"$ref": "#/$defs/Use"},
        "call": "the request",
        "facts": {"$ref": "#/$defs/Facts"},
        "lifted": "clauses that are ruled on as if a registered agreement lifted them",
        "on": "the day",
        "expect": "the ruling that legal signed",
        "note": "why the case is there",
    },
    "Expect": {
        "reasons": "ids of the clauses that lead to the effect, all of them",
        "missing": {"type": "array", "items": {"$ref": "#/$defs/FactName"}},
    },
    "Call": {
        "features": {"type": "array", "items": {"$ref": "#/$defs/features"}},
        "modality": {"type": "array", "items": {"$ref": "#/$defs/modality"}},
    },
}
"""What a key is for, or what is more to be said of its value than its struct says."""


def schema_json() -> str:
    """Return the schema as the text of `policies/schema.json`."""
    return json.dumps(library_schema(), indent=1, ensure_ascii=False) + "\n"


def library_schema() -> Schema:
    """Return the schema that every file of a library fits."""
    files, components = msgspec.json.schema_components(
        [*_FILES, IntendedUse], ref_template="#/$defs/{name}"
    )
    structs = {_short(name): _tidied(part) for name, part in components.items()}
    for name, keys in _KEYS.items():
        properties = structs[name]["properties"]
        for key, said in keys.items():
            properties[key] = (
                {**properties[key], "description": said} if isinstance(said, str) else said
            )
    use = structs["Use"]
    for key in use["properties"]:
        # `agreement` is no fact: nothing is ruled on a caller's word for it.
        if key in FACTS:
            use["properties"][key] = _declared(FACTS[key], use["properties"][key])
    structs["PartOfUse"] = {**use, "required": []}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A file of a policy library",
        "description": "Generated by `gateway policy schema`; a test keeps it fresh.",
        "oneOf": [_tidied(one) for one in files[: len(_FILES)]],
        "$defs": {**structs, **_definitions()},
    }


def _definitions() -> dict[str, Schema]:
    """Return what conditions, facts and obligations are made of."""
    words = {name: _words(fact.words) for name, fact in FACTS.items() if fact.kind == "words"}
    return {
        "Purpose": _words(PURPOSES),
        "FactName": _words({name: fact.meaning for name, fact in FACTS.items()}),
        "Country": {"enum": sorted(COUNTRIES)},
        **words,
        "Condition": {
            "description": "the facts that make the clause speak; all of them must fit",
            **_object({name: _asked(fact) for name, fact in FACTS.items()}),
        },
        "Exception": {
            "$ref": "#/$defs/Condition",
            "minProperties": 1,
        },
        "Facts": {
            "description": "facts as the request, the gateway and the organisation state them",
            **_object(
                {
                    name: {"description": fact.meaning, **_stated(fact)}
                    for name, fact in FACTS.items()
                    if fact.origin != "derived"
                }
            ),
        },
        "Obligation": {
            "anyOf": [
                *(_plain(one) for one in OBLIGATIONS.values() if one.takes == "nothing"),
                *(_valued(one) for one in OBLIGATIONS.values() if one.takes != "nothing"),
            ]
        },
    }


def _asked(fact: Fact) -> Schema:
    """Return what a condition may ask of *fact*."""
    return {"description": fact.meaning, "anyOf": list(_questions(fact))}


def _questions(fact: Fact) -> Iterable[Schema]:
    match fact.kind:
        case "number":
            bounds = ("over", "at-least", "under", "at-most")
            keys: dict[str, Schema] = dict.fromkeys(bounds, _COUNT)
            at = {
                "type": "string",
                "pattern": _MONTH,
                "description": "as measured in that month; left out, the newest measurement",
            }
            return [
                _COUNT,
                {**_object({**keys, "at": at}), "anyOf": [{"required": [b]} for b in bounds]},
            ]
        case "date":
            return [_DAY, {**_object({"from": _DAY, "until": _DAY}), "minProperties": 1}]
        case "text":
            some = {**_TEXT, "not": {"const": ANY}}
            return [
                _one_or_more(some),
                {"const": ANY, "description": "something is named"},
                {"const": NONE, "description": "nothing is named"},
                _only("not", _one_or_more(some)),
                _only("starts", {**_TEXT, "minLength": 1}),
            ]
        case "yes-no":
            return [_one_or_more(_YES_NO)]
        case "words":
            word: Schema = {"$ref": f"#/$defs/{fact.name}"}
            words = _one_or_more(word)
            return [words, _only("not", words), _only("all", words)]
        case "purpose":
            return _some_or_not({"$ref": "#/$defs/Purpose"})
        case "country":
            regions = {"enum": sorted(REGIONS)}
            return _some_or_not({"anyOf": [{"$ref": "#/$defs/Country"}, regions]})
        case _:
            return _some_or_not(_words(fact.words))


def _stated(fact: Fact) -> Schema:
    """Return what a case may state of *fact*."""
    match fact.kind:
        case "number":
            months = {
                "type": "object",
                "propertyNames": {"pattern": _MONTH},
                "additionalProperties": _COUNT,
            }
            return {"anyOf": [_COUNT, months]}
        case "date":
            return _DAY
        case "text":
            return _TEXT
        case "yes-no":
            return _YES_NO
        case "words":
            word: Schema = {"$ref": f"#/$defs/{fact.name}"}
            return {"anyOf": [word, {"type": "array", "items": word}]}
        case "purpose":
            return {"$ref": "#/$defs/Purpose"}
        case "country":
            return {"$ref": "#/$defs/Country"}
        case _:
            return _words(fact.words)


def _declared(fact: Fact, struct: Schema) -> Schema:
    """Return what a declaration may say of *fact*: what its struct takes, with meanings."""
    if fact.kind in ("text", "yes-no", "words"):
        return {**struct, "description": fact.meaning}
    said = _stated(fact)
    optional = "default" not in struct and fact.name == "purpose"
    return {
        "description": fact.meaning,
        **(said if optional else {"anyOf": [said, {"type": "null"}]}),
    }


def _plain(obligation: Obligation) -> Schema:
    return {"const": obligation.name, "description": obligation.sentence}


def _valued(obligation: Obligation) -> Schema:
    value: Schema = (
        {"type": "integer", "minimum": 1}
        if obligation.takes == "days"
        else {"type": ["string", "integer"], "minLength": 1, "pattern": "^[^,]*$"}
    )
    return _only(obligation.name, {**value, "description": obligation.sentence})


def _words(words: Mapping[str, str]) -> Schema:
    """Return one of *words*, each with its meaning."""
    return {"oneOf": [{"const": word, "description": said} for word, said in words.items()]}


def _one_or_more(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]}


def _some_or_not(item: Schema) -> list[Schema]:
    return [_one_or_more(item), _only("not", _one_or_more(item))]


def _only(key: str, value: Schema) -> Schema:
    return {**_object({key: value}), "required": [key]}


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }


def _short(name: str) -> str:
    return name.removeprefix("Written").replace("IntendedUse", "Use")


def _tidied(part: Any) -> Any:
    """Return a part of msgspec's schema in our names, days and yes-no as files have them."""
    if isinstance(part, list):
        return [_tidied(one) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("format") == "date":
        return dict(_DAY)
    if part.get("type") == "boolean":
        return dict(_YES_NO)
    tidy = {key: _tidied(one) for key, one in part.items() if key not in ("default", "title")}
    if isinstance(part.get("properties"), dict):
        # A key of a file may be called `title` too.
        tidy["properties"] = {key: _tidied(one) for key, one in part["properties"].items()}
    if "$ref" in part:
        folder, _, name = part["$ref"].rpartition("/")
        tidy["$ref"] = f"{folder}/{_short(name)}"
    if "description" in part and isinstance(part["description"], str):
        tidy["description"] = " ".join(part["description"].split())
    return tidy
