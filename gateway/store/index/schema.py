"""The tables of the index, and how those of older releases become these."""

from __future__ import annotations

from typing import Final

from gateway.store.index.rows import Row
from gateway.store.tables import Database, Migrations

_BESIDE: Final = frozenset({"made", "stage", "members", "parents"})
"""What is kept in tables of its own."""
FIELDS: Final = tuple(name for name in Row.__struct_fields__ if name not in _BESIDE)
PLAIN: Final = ("at", "exchange", "opening", "readable", "approved")
"""What is kept as it is; everything else is a word, and kept as that word's number."""
WORDS: Final = tuple(name for name in FIELDS[1:] if name not in PLAIN)
SEARCHED: Final = tuple(
    name for name in WORDS if name not in {"model_manifest", "operation", "ended"}
)
"""Words whose places are kept."""

TABLES: Final = (
    "coded",
    "unclosed",
    "places",
    "stretch",
    "resource",
    "stage",
    "edge",
    "mention",
    "member",
    "derived",
    "answered",
)
"""What is emptied to begin anew. Words stay: other processes remember their numbers."""

_NUMBER_BITS: Final = 24
NUMBERS: Final = 1 << _NUMBER_BITS
"""Stretches that one word's places can be kept of: a hundred thousand million leaves."""

_LINEAGE: Final = (
    (
        "CREATE TABLE stage (id INTEGER PRIMARY KEY, manifest TEXT NOT NULL UNIQUE,"
        " leaf INTEGER, kind TEXT, name TEXT, project TEXT, declaration TEXT, purpose TEXT,"
        " rows INTEGER) STRICT"
    ),
    "CREATE INDEX stage_by_name ON stage (name)",
    "CREATE INDEX stage_by_leaf ON stage (leaf)",
    (
        "CREATE TABLE edge (child INTEGER, parent INTEGER, PRIMARY KEY (child, parent))"
        " STRICT, WITHOUT ROWID"
    ),
    "CREATE INDEX edge_down ON edge (parent, child)",
    (
        "CREATE TABLE mention (what TEXT, value TEXT, stage INTEGER, rows INTEGER,"
        " PRIMARY KEY (what, value, stage)) STRICT, WITHOUT ROWID"
    ),
    "CREATE INDEX mention_of ON mention (stage)",
    # Bits are long: they stand beside the keys, not in them.
    "CREATE TABLE member (chunk INTEGER, stage INTEGER, count INTEGER, bits BLOB) STRICT",
    "CREATE UNIQUE INDEX member_place ON member (chunk, stage)",
    "CREATE INDEX member_of ON member (stage, chunk)",
    (
        "CREATE TABLE derived (parent INTEGER, child INTEGER, PRIMARY KEY (parent, child))"
        " STRICT, WITHOUT ROWID"
    ),
    "CREATE TABLE answered (manifest TEXT PRIMARY KEY, count INTEGER) STRICT, WITHOUT ROWID",
)

migrations = Migrations("index")


@migrations()
def statements_and_watermark(database: Database) -> None:
    """Make the tables of the first release."""
    # An opening stands here until its closing statement comes.
    database.table("unclosed").create(
        {"opening": int, "exchange": str}, pk="opening", strict=True
    )
    database.table("watermark").create(
        {"one": int, "size": int, "last_sha256": str}, pk="one", strict=True
    )
    database.table("watermark").insert({"one": 1, "size": 0, "last_sha256": ""})


@migrations()
def obligations_with_values(database: Database) -> None:
    """Begin anew: obligations may hold blanks now, and stand divided by commas."""
    database.table("unclosed").delete_where()
    database.table("watermark").update(1, {"size": 0, "last_sha256": ""})


@migrations()
def stretches_and_words(database: Database) -> None:
    """Begin anew: what leaves share is kept once, and where it stands as bits a stretch."""
    database.table("statement").drop(ignore=True)
    obligations_with_values(database)
    database.table("word").create(
        {"id": int, "role": str, "value": str, "count": int}, pk="id", strict=True
    )
    database.table("word").create_index(["role", "value"], unique=True)
    plain = {"at": str, "exchange": str, "opening": int, "readable": int, "approved": int}
    database.table("coded").create(
        {"leaf": int, **plain, **dict.fromkeys(WORDS, int)}, pk="leaf", strict=True
    )
    database.table("coded").create_index(["exchange"])
    # The places of a word in a stretch stand under `word << 24 | stretch`.
    database.table("places").create({"id": int, "bits": bytes}, pk="id", strict=True)
    database.table("stretch").create(
        {"number": int, "at_first": str, "at_last": str, "undated": int},
        pk="number",
        strict=True,
    )
    _see_words(database)


def _see_words(database: Database) -> None:
    words = (f"(SELECT value FROM word WHERE id = coded.{name}) AS {name}" for name in WORDS)  # noqa: S608
    columns = ", ".join(("leaf", *PLAIN, *words))
    database.create_view("statement", f"SELECT {columns} FROM coded")  # noqa: S608


@migrations()
def resources(database: Database) -> None:
    """Make the table of what is kept with providers; the first that told of it had it made."""
    database.table("resource").create(
        {"provider": str, "kind": str, "id": str, "leaf": int, "role": str, "of": str},
        pk=("provider", "kind", "id"),
        strict=True,
    )


@migrations()
def resources_by_id(database: Database) -> None:
    """Find what is kept with providers by its id alone, too."""
    database.table("resource").create_index(["provider", "id"])


@migrations()
def stops(database: Database) -> None:
    """Let providers' ways of saying no be searched by; older leaves tell of none."""
    if "stop" not in database.table("coded").columns_dict:
        database.table("coded").add_column("stop", int)
        database.view("statement").drop()
        _see_words(database)


@migrations()
def tags_and_transforms(database: Database) -> None:
    """Let tags, and transforms of pipelines, be searched by; older leaves have none."""
    known = database.table("coded").columns_dict
    for name in ("transform", "tags"):
        if name not in known:
            database.table("coded").add_column(name, int)
    database.view("statement").drop()
    _see_words(database)


@migrations()
def stages(database: Database) -> None:
    """Make the tables of lineage; what is indexed already is looked through at the next use."""
    for statement in _LINEAGE:
        database.conn.execute(statement)
    # Below this leaf, stages are known; it lags behind only here.
    database.conn.execute("ALTER TABLE watermark ADD COLUMN stages INTEGER NOT NULL DEFAULT 0")


@migrations()
def lists_of_members(database: Database) -> None:
    """Keep how many leaves a dataset says that it was made from; none was built before."""
    database.conn.execute("ALTER TABLE stage ADD COLUMN members INTEGER")
    # To be added up without a look at the bits.
    database.conn.execute("DROP INDEX member_of")
    database.conn.execute("CREATE INDEX member_of ON member (stage, chunk, count)")


def places_key(word: int, stretch: int) -> int:
    """Return where the places of a word in a stretch stand: of one word, in their order."""
    return word << _NUMBER_BITS | stretch
