"""The tables of an installation in PostgreSQL; described in `docs/formats/ledger.md`."""

from __future__ import annotations

from typing import Final

from gateway.store.postgres.connection import Session

FORMAT_VERSION: Final = 1

ADVISORY_LOCK: Final = 0x746F7367
"""Held while the tables are made (`tosg`)."""

# Leaves stay in their rows, as they are: looking for something to compress in base 64 costs
# more than it saves, and a row in two places is read twice. Only what does not fit in a page
# goes elsewhere.
_LEAF: Final = """
ALTER TABLE {table} ALTER COLUMN leaf SET STORAGE EXTERNAL;
ALTER TABLE {table} SET (toast_tuple_target = 8160);
"""

LATER: Final = """
ALTER TABLE access_key
  ADD COLUMN IF NOT EXISTS providers text NOT NULL DEFAULT '',
  ADD COLUMN IF NOT EXISTS models text NOT NULL DEFAULT '',
  ADD COLUMN IF NOT EXISTS limits text NOT NULL DEFAULT '';
CREATE TABLE IF NOT EXISTS counter (
  name text PRIMARY KEY, start bigint NOT NULL, ends bigint NOT NULL, used bigint NOT NULL
) WITH (fillfactor = 50);
"""
"""What tables of the first release lack; run again it changes nothing."""

LINES: Final = """
ALTER TABLE content ADD COLUMN IF NOT EXISTS of text;
CREATE INDEX IF NOT EXISTS content_of ON content (of) WHERE of IS NOT NULL;
CREATE TABLE IF NOT EXISTS handed (
  exchange text PRIMARY KEY, at text NOT NULL, until text, key bytea, about bytea
);
CREATE TABLE IF NOT EXISTS line (
  exchange text NOT NULL, number bigint NOT NULL, name bytea, found bytea NOT NULL,
  kind integer, body bytea, PRIMARY KEY (exchange, number)
);
ALTER TABLE line ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS line_named ON line (exchange, name) WHERE name IS NOT NULL;
CREATE TABLE IF NOT EXISTS asking (
  exchange text PRIMARY KEY, input text NOT NULL, about bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS asking_of ON asking (input);
"""
"""What batches need; made in an older database when it is first opened for contents."""

SCHEMA: Final = (
    """
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);
CREATE TABLE head (
  one boolean PRIMARY KEY CHECK (one), size bigint NOT NULL, frontier bytea NOT NULL
);
CREATE TABLE entry (
  seq bigint PRIMARY KEY, intake uuid UNIQUE, relevant boolean NOT NULL, leaf bytea NOT NULL,
  frontier bytea
);
CREATE INDEX entry_relevant ON entry (seq) WHERE relevant;
CREATE TABLE intake (
  id uuid PRIMARY KEY, turn bigint NOT NULL, relevant boolean NOT NULL, writer text NOT NULL,
  leaf bytea NOT NULL
);
CREATE INDEX intake_turn ON intake (turn);
CREATE TABLE lease (
  one boolean PRIMARY KEY CHECK (one), epoch bigint NOT NULL, holder text NOT NULL,
  until timestamptz NOT NULL
);
CREATE TABLE writer (instance text PRIMARY KEY, seen timestamptz NOT NULL);
CREATE TABLE checkpoint (
  one boolean PRIMARY KEY CHECK (one), size bigint NOT NULL, note text NOT NULL
);
CREATE TABLE tile (
  level integer NOT NULL, number bigint NOT NULL, root bytea NOT NULL, hashes bytea NOT NULL,
  PRIMARY KEY (level, number)
);
ALTER TABLE tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE TABLE content (
  exchange text PRIMARY KEY, key bytea, body bytea, of text,
  CHECK ((key IS NULL) = (body IS NULL))
);
ALTER TABLE content ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE applied (
  one boolean PRIMARY KEY CHECK (one), leaf bigint NOT NULL, sha256 text NOT NULL
);
CREATE TABLE access_key (
  id text PRIMARY KEY, sha256 text NOT NULL UNIQUE, principal text NOT NULL,
  project text NOT NULL, roles text NOT NULL, declaration text, created text NOT NULL,
  expires text, revoked text
);
ALTER TABLE intake SET (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, fillfactor = 100
);
INSERT INTO head VALUES (true, 0, '');
INSERT INTO lease VALUES (true, 0, '', '-infinity');
"""
    + _LEAF.format(table="entry")
    + _LEAF.format(table="intake")
    + LINES
    + LATER
)


def bring_up_to_date(session: Session) -> None:
    """Add to an older release's tables what was added since; a newer one's stay as they are.

    Raises:
        LedgerUnwellError: the gateway's account may not, or the database can't be asked.
    """
    if session.rows("SELECT to_regclass('counter') IS NOT NULL")[0][0]:
        return

    with session.committing() as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        connection.execute(LATER.encode())
