"""Every bound of the house, each with its unit and its reason.

Limits here protect correctness or memory, so they are not settings.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

BODY_BYTES_HELD_MAX: Final = 32 * MIB
"""A request or answer larger than this is never held to be read, only digested as it passes;
Anthropic's own limit for Messages is 32 MB and image requests reach 20 MB."""

BODY_BYTES_MAX: Final = 1024 * MIB
"""The largest request body that is passed on at all; batch files reach 1 GB."""

HEADER_BYTES_MAX: Final = 64 * KIB
"""OpenAI documents a budget of 64 KiB of request headers."""

RELAY_BYTES_AHEAD_MAX: Final = 256 * KIB
"""How far a provider may run ahead of a slow caller before we stop reading from it."""

SSE_EVENT_BYTES_MAX: Final = 32 * MIB
"""One event larger than this makes a stream opaque; image events reach megabytes."""

STATEMENTS_WAITING_MAX: Final = 4096
"""Statements waiting for the ledger; beyond it callers are refused, memory does not grow."""

STATEMENTS_PER_COMMIT_MAX: Final = 1024
"""One transaction's worth; larger ones gain little and make the first caller wait."""

LEAF_BYTES_MAX: Final = 65_535
"""C2SP tlog-tiles stores a leaf behind a 16-bit length."""

CHECKPOINT_INTERVAL_MS: Final = 200
"""A statement is integrated within this time of being sequenced."""

DECLARATION_BYTES_MAX: Final = 4 * KIB
"""An `x-intended-use` header longer than this is no declaration of a use."""

YAML_BYTES_MAX: Final = 1 * MIB
YAML_DEPTH_MAX: Final = 32
YAML_NODES_MAX: Final = 50_000
"""A policy, a case or `gateway.yaml` that is larger is not one a person wrote."""

JSON_DEPTH_MAX: Final = 200
"""Deeper nesting is refused by the parser before it can exhaust the stack."""

OUTPUTS_PER_EXCHANGE_MAX: Final = 96
"""Output units (choices, tool calls, reasoning blocks) listed one by one in a receipt; each
takes up to 440 bytes of a leaf, so these take two thirds of one."""

CONNECT_TIMEOUT_S: Final = 15.0
"""How long reaching a provider may take."""

ANSWER_TIMEOUT_S: Final = 900.0
"""Longest silence from a provider; the SDKs' own default is 600 seconds."""

DRAIN_TIMEOUT_S: Final = 20.0
"""How long a stopping gateway waits for exchanges under way; `recover` finds the rest."""

ABANDONED_BYTES_MAX: Final = 8 * MIB
"""How much is still read for a caller who has hung up, where the settings say drain."""

KEY_FILE_MODE_MAX: Final = 0o600
"""A private key that others can read is not private."""

IDLE_CONNECTIONS_MAX: Final = 256
"""Connections to one provider that are kept for the next request."""

IDLE_CONNECTION_S_MAX: Final = 15.0
"""Older idle connections may be closed by the provider just as we use them."""

NOTE_BYTES_MAX: Final = 64 * KIB
NOTE_SIGNATURES_MAX: Final = 64
"""A checkpoint with every witness we could name; post-quantum cosignatures take 3.3 KiB."""

BUNDLE_BYTES_MAX: Final = 256 * KIB
"""A leaf in base64, a proof and a checkpoint fit well; so does a manifest."""

TRUST_BYTES_MAX: Final = 64 * KIB
"""An origin and some hundred public keys."""

STORE_BUSY_MS: Final = 5_000
"""How long a writer waits for another process that is writing the same file."""

LEAVES_READ_AT_ONCE: Final = 256
"""Leaves fetched by one query, so that no reader holds a snapshot while others write."""

LEAVES_RECHECKED_AT_START_MAX: Final = 50_000
"""A ledger up to this size is recomputed whole when the sequencer starts (under a second);
of a larger one only the part after the newest full tile is, and `ledger fsck` does the rest."""

SUBTREES_REMEMBERED_MAX: Final = 65_536
"""Subtree roots a reader keeps between two proofs; 32 bytes each, and their places."""

CONTENT_BYTES_WAITING_MAX: Final = 256 * MIB
"""Contents waiting to be stored; beyond it callers are refused, memory does not grow."""

FINDINGS_LISTED_MAX: Final = 1_000
"""Findings that `ledger fsck` lists one by one; the others are counted."""

OPENINGS_OPEN_MAX: Final = 100_000
"""Openings without an end that `ledger fsck` keeps in mind; more is a finding by itself."""

RULINGS_REMEMBERED_MAX: Final = 4096
"""Distinct (declaration, model, …) whose ruling is kept; then the memory starts anew."""

OUTCOMES_REMEMBERED_MAX: Final = 128
"""What followed, under one policy for one purpose, from the clauses that spoke or were
undecided; callers who declare a little of everything come to some dozens."""

ANSWERS_REMEMBERED_MAX: Final = 65_536
"""While rulings are made again: which policies bind what, and what followed from which of their
clauses speak; some tens of megabytes."""

VALUES_REMEMBERED_MAX: Final = 256
"""Values of one fact whose bearing on some clauses is remembered: every word that it can be,
every set of features, and the first names of models and students."""

BODY_SILENCE_S_MAX: Final = 60.0
"""How long a caller may pause while it sends a request body."""

STUDENT_CALLERS_WAITING_MAX: Final = 16
"""Callers that a served student holds at once; it answers one at a time, in seconds each."""

FOREIGN_TEXT_CHARS_MAX: Final = 512
"""A model's name, an error's, a path: the part of a stranger's text that a statement holds."""

GATHER_S: Final = 0.004
"""How long a commit waits for more while callers come in groups; some syncs of a disk.

Measured with sixteen callers: each doubling up to here takes a twentieth to a tenth off the CPU
of a request; where callers keep the disk busy nobody waits."""

LOG_BYTES_WAITING_MAX: Final = 32 * KIB
LOG_WAIT_S: Final = 0.25
"""How much of the log, and how long, may wait to be written; a crash loses that much of it."""

FINISH_REASON_CHARS_MAX: Final = 32
"""Why a choice ended, in the provider's word; one is listed for each choice."""

SNAPSHOT_BYTES_MAX: Final = 4 * MIB
"""A document of terms that is larger is some other file; long ones take 300 KiB."""

FALLBACKS_MAX: Final = 16
"""Models that one request may name to fall back to; of a longer list, any model may answer."""

LIBRARY_BYTES_MAX: Final = 64 * MIB
"""All files of a policy library together; the one that ships has two."""

EVIDENCE_BYTES_MAX: Final = 64 * MIB
"""A signed document that shows an agreement; only its digest is kept."""

AGREEMENTS_PER_CREDENTIAL_MAX: Final = 32
"""Agreements that hold for one key of a provider at a time; each receipt names them all, and
they take up to three kilobytes of a leaf."""

CHECKERS_MAX: Final = 16
"""Processes that check one dataset or ledger; each takes some sixty megabytes."""

PARTS_AHEAD_PER_CHECKER: Final = 2
"""Parts handed out beyond those whose answers were heard; memory does not grow with them."""

ROWS_CHECKED_ALONE_MAX: Final = 20_000
"""Up to here (half a second) starting further processes costs more than it saves."""

ROW_BYTES_MAX: Final = BODY_BYTES_HELD_MAX
"""One line of a dataset: a row is made of an answer that was held to be read."""

ROWS_PER_SPAN: Final = 1_024
"""After so many rows a dataset notes where the next begin, so that several check at once."""

SPANS_AT_ONCE: Final = 4
"""Spans that a process checks before it answers; a tenth of a second."""

MEMBERS_PER_LEAF: Final = 65_536
"""Leaves whose place in a dataset one statement tells, in eight kilobytes at most."""

CONTENTS_AT_ONCE: Final = 256
CONTENT_BYTES_AT_ONCE: Final = 8 * MIB
"""Texts that a build reads together, unless a single one is larger."""

ANCESTORS_PER_ROW_MAX: Final = 16_384
"""Leaves above one row of a dataset: a derivation has some hundreds, and rows stand some steps
below the first answers. A row made of more is not looked through."""

ROWS_PER_DERIVATION_MAX: Final = 128
DERIVATION_BYTES_MAX: Final = 40 * KIB
"""Rows that a pipeline made, stated by one leaf: in base64, signed, it stays below 60 KiB."""

DERIVATIONS_READ_AT_ONCE: Final = 64
"""While an erasure looks for rows that were made of erased text; some megabytes."""

DERIVED_TEXT_BYTES_MAX: Final = 16 * MIB
"""Text that is kept for one such leaf; erasing one row's text writes the others anew."""

PARENTS_PER_ROW_MAX: Final = 64
"""What one row is made from directly; more is gathered in steps."""

TAGS_MAX: Final = 16
"""Names that a caller gives an exchange, or a pipeline its rows."""

KINDS_REMEMBERED_MAX: Final = 4_096
"""Kinds of receipts, by what many share word for word, that a verifier need not read again."""

WITNESS_TIMEOUT_S: Final = 5.0
"""How long a witness may take to answer; one that needs longer is asked again later."""

WITNESS_GRACE_S: Final = 0.25
"""How long the other witnesses are waited for once enough have cosigned."""

WITNESS_ANSWER_BYTES_MAX: Final = 16 * KIB
"""Some signature lines, or a size."""

WITNESSES_MAX: Final = 32
"""Witnesses of one log; each is asked by a thread of its own, and a note holds 64 lines."""

WITNESSED_INTERVAL_MS: Final = 1_000
"""A log with witnesses publishes this often: each of them syncs its disk for a cosignature."""

CHECKPOINT_RETRY_S: Final = 5.0
"""How long until what could not be published, or copied, is tried again without growth."""

PUBLISHING_WAIT_S: Final = 30.0
"""How long a process waits for another one that is publishing a checkpoint of the same ledger;
asking witnesses takes up to three times their timeout."""

COPY_TIMEOUT_S: Final = 2.0
"""How long a copy of the checkpoint may take; another medium may hang for good."""

COPIES_MAX: Final = 8
"""Copies of the checkpoint; each is written by a thread of its own."""

COSIGNING_LOGS_MAX: Final = 256
"""Logs that one `gateway ledger witness` watches; all are rewritten at each cosignature."""

COSIGNING_REQUESTS_MAX: Final = 64
"""Requests that a witness holds at once; beyond it the others are told to come again."""

COSIGNING_BODY_TIMEOUT_S: Final = 10.0
"""How long a log may take to send its checkpoint to a witness."""

STATEMENT_MS_MAX: Final = 10_000
"""How long one statement on PostgreSQL may take, the wait for a standby included."""

TRANSACTION_IDLE_MS_MAX: Final = 5_000
"""How long a transaction on PostgreSQL may wait for its process; one that was stopped in the
middle holds up the others so long."""

DOUBT_MS_MAX: Final = 30_000
"""How long the effect of a commit may stay unknown; then the process ends, and reads the truth
at its next start. A server that was stopped is back, or replaced by its standby, by then."""

WORKERS_MAX: Final = 64
"""Door processes of one gateway; one sequencer keeps up with a handful of them."""

FRAME_BYTES_MAX: Final = 1 * MIB
"""What workers and sequencer say at once: a leaf, a checkpoint, what a worker has counted."""

HUB_BYTES_UNREAD_MAX: Final = 32 * MIB
"""What waits for a worker that does not read; then it is cut off, and learns all of it anew."""

HUB_BEAT_S: Final = 1.0
"""How often workers and sequencer let each other know that they are well."""

HUB_SILENCE_S_MAX: Final = 5.0
"""After so long without a beat the other side is not well; a busy disk takes less."""

HUB_QUESTION_S_MAX: Final = 60.0
"""How long a worker's thread waits for a checkpoint; witnesses take up to half of it."""

RECONNECT_S: Final = 0.05
RECONNECT_S_MAX: Final = 1.0
"""How soon a worker looks for its sequencer again; doubled at each try."""

RESTART_S: Final = 0.05
RESTART_S_MAX: Final = 3.0
RESTART_CALM_S: Final = 30.0
"""How soon a process that ended is started again; doubled at each end that comes sooner than
the last of these."""

EXCHANGES_ERASED_AT_ONCE: Final = 500
"""Texts that one transaction destroys, so that others may write in between."""

LEAVES_CHECKED_ALONE_MAX: Final = 10_000
"""Up to here (two seconds) `ledger fsck` starts no further processes."""

PART_LEAVES_MAX: Final = 1_024
PART_BYTES_MAX: Final = 4 * MIB
"""Leaves handed to another process at once; their signatures take a tenth of a second."""

LEASE_MS: Final = 5_000
"""How long a replica may sequence without saying so again; another takes over that late."""

TAKEOVER_MS_MAX: Final = 30_000
"""How long who takes over may take to compare the ledger with what was published."""

PLACING_MS_MAX: Final = 20_000
"""How long a statement may wait for a replica that sequences; then it is taken back."""

HEARTBEAT_MS: Final = 2_000
WRITER_SILENT_MS_MAX: Final = 30_000
"""How often a replica says that it lives, and after what silence what it opened is closed."""

ORDERS_BYTES_MAX: Final = 4 * MIB
"""The settings of a gateway, as its supervisor hands them to a process."""

PIPE_BYTES_AT_ONCE: Final = 4 * KIB
"""So much of a pipe's bytes stay together while other processes write too (PIPE_BUF)."""

RECEIPT_KEY_LIFE_MS: Final = 24 * 60 * 60 * 1000
"""How long a process may sign with one receipt key: what a stolen one is good for at most."""

RECEIPT_KEY_RENEWED_AFTER_MS: Final = 23 * 60 * 60 * 1000
"""When a running gateway takes another one, an hour before it must."""

TIMESTAMP_TIMEOUT_S: Final = 15.0
TIMESTAMP_ANSWER_BYTES_MAX: Final = 64 * KIB
"""An RFC 3161 token takes one to eight KiB, with the certificates that its authority sends."""

TIMESTAMP_RETRY_S: Final = 60.0
"""How long until a timestamp that could not be had is asked for again."""

CLAIM_S_MAX: Final = 1.0
"""How long a starting gateway waits for one that just ends to let go of the data folder."""

WORKER_ENDS_S_MAX: Final = 10.0
"""How long after its connection a worker's process may last until it is really gone."""

RECEIPT_KEY_ROTATION_S_MAX: Final = 30.0
"""How long `gateway key rotate` waits for running processes to take another key; they look for
it every few seconds."""

DUPLEX_CLOSE_S_MAX: Final = 5.0
"""How long the last bytes over an upgraded connection may take to be taken; then it is cut."""

MADE_PER_EXCHANGE_MAX: Final = 32
"""Resources at a provider that one receipt names; each takes up to a kilobyte of a leaf."""

TARGET_BYTES_MAX: Final = 32 * KIB
"""Path and query of a request; some clients page with long queries."""

HEADERS_MAX: Final = 256
"""Header lines of one request, and trailer lines of one body; SDKs send about twenty."""

CHUNK_LINE_BYTES_MAX: Final = 4 * KIB
CHUNK_OVERHEAD_BYTES_MAX: Final = 16 * KIB
"""The line before a chunk, and how many bytes of such lines one body may have beyond 32 for
each chunk and one for each byte of content; extensions are allowed, but no body of them."""

HEAD_S_MAX: Final = 30.0
"""How long a request's head may take from its first byte to its last."""

IDLE_CALLER_S_MAX: Final = 75.0
"""How long a connection may stand idle between two requests."""

BODY_GRACE_S: Final = 60.0
BODY_BYTES_PER_S_MIN: Final = 512
"""A caller that is waited for longer than the grace, all waits added up, must have sent so many
bytes for each second beyond it; one that drips holds memory and a provider's connection."""

UNREAD_S_MAX: Final = 300.0
"""How long a caller may take not one byte of what waits for it; then it is cut off."""

LINGER_S_MAX: Final = 10.0
DISCARDED_BYTES_MAX: Final = 64 * MIB
"""For how long, and how much, a door still reads and drops of a request that was answered
before all of it came: a reset would destroy the answer before its sender could read it."""

SKIPPED_BYTES_MAX: Final = 64 * KIB
"""The rest of such a body up to this size is dropped and the connection kept."""

PIPELINED_BYTES_MAX: Final = 64 * KIB
"""What a caller may send ahead of the answer to its last request before it is read no more."""

UNSENT_BYTES_MAX: Final = 64 * KIB
"""Bytes of an answer that wait for the caller's socket before its provider is slowed down."""

DOOR_BYTES_HELD_MAX: Final = 1024 * MIB
"""Bodies that all requests under way at one door hold together; more are told to come again."""

CONNECTIONS_MAX: Final = 16_384
"""Connections of callers at one door; more are turned away: heads take up to 96 KiB each."""

TURN_S_MAX: Final = 30.0
"""How long a replica waits for its turn at what one at a time may do; a turn takes a commit."""

ITEMS_SEALED_AT_ONCE: Final = 256
"""Receipts of items written under one turn, in one or two commits."""

AMOUNT_MAX: Final = 10**15
"""The largest amount that a limit, a price or a charge may have; money in millionths, so a
thousand million. A counter of 64 bits holds thousands of such charges."""

MATCHED_CHARS_MAX: Final = 256
"""A name longer than this fits no glob; trying one on a long name takes time."""

OUTPUT_TOKENS_ASSUMED: Final = 16_384
"""What an answer may come to where neither the request nor the prices say."""

REFERENCED_TOKENS_ASSUMED: Final = 32_768
"""What a request may come to beyond its own bytes where it refers to others: files kept with
the provider, earlier answers, pictures at an address."""

AUDIO_BYTES_PER_TOKEN_MIN: Final = 64
AUDIO_BYTES_PER_S_MIN: Final = 500
"""No codec in use makes speech smaller than 4 kbit/s, and no model makes more than some ten
tokens of a second."""

COUNTED_BYTES_MAX: Final = 64 * KIB
"""Up to this size a request's tokens are counted before it is asked; it takes milliseconds.
Of a larger one each byte counts as a token."""

COUNTERS_MAX: Final = 16_384
"""Counters that may be under way at once in one data folder: a file of three megabytes."""

COUNTER_WAIT_S_MAX: Final = 2.0
"""How long a request waits for a counter that another process holds; it is held for
microseconds, unless that process was stopped in the middle."""

BOUNDS_REMEMBERED_MAX: Final = 4096
"""Callers whose limits are remembered; looking them up takes microseconds."""

RETRY_AFTER_S_MAX: Final = 60
"""The longest `retry-after` of our own: some SDKs sleep for whatever they are told, others take
no notice of more than this."""

ATTEMPT_MAX: Final = 1000
"""The largest retry count that is believed; SDKs try a handful of times."""

MESSAGE_BYTES_MAX: Final = 32 * MIB
"""A message of a live session that is larger is not read, and nor is what follows it."""

TURNS_UNDER_WAY_MAX: Final = 64
"""Answers that one session may have under way at once; of more, nothing is read."""

PARTS_PER_TURN_MAX: Final = 4_096
"""Pieces of text, sound and calls that one answer in a session may have."""

SESSION_ENDS_S_MAX: Final = 15.0
"""How long after one side of a session has ended the receipts of what came before may take."""

BATCH_FORM_PARTS_MAX: Final = 64
BATCH_FORM_HEAD_BYTES_MAX: Final = 16 * KIB
BATCH_FORM_FIELD_BYTES_MAX: Final = 4 * KIB
"""A form that hands in a batch has a handful of parts, one of them large."""

LINES_MAX: Final = 1_000_000
"""Lines of one batch; providers take fifty to a hundred thousand."""

LINE_BYTES_MAX: Final = 32 * MIB
"""One line of a batch or of its results, as one request or answer that is held."""

LINE_KINDS_MAX: Final = 4096
"""Different things that the lines of one batch may ask for (model, features); each is ruled on
again when the batch begins."""

LINES_AT_ONCE: Final = 64
"""Lines that are ruled on, or read, before others have their turn: a few milliseconds."""

LINES_TOLD_MAX: Final = 3
"""Lines that a refusal names; the report names all."""

LINES_KEPT_DAYS: Final = 60
"""How long requests wait for their answers; providers keep those for thirty days."""

ENVELOPE_BYTES_MAX: Final = 1 * MIB
"""What may stand around the requests of a batch that is one JSON document."""

SPOOLS_AT_ONCE: Final = 8
"""Bodies put aside at once by one process: eight gigabytes of its disk at most."""

FORM_PARTS_MAX: Final = 256
"""Parts of one form; sixteen images and a handful of fields are what APIs take."""

FORM_HEAD_BYTES_MAX: Final = 8 * KIB
FORM_FIELD_BYTES_MAX: Final = 256 * KIB
"""The head of one part of a form, and a part that is no file; prompts reach 32,000 letters."""

UPLOAD_S_MAX: Final = 172_800
"""For how long an upload that was begun with a key may go on without one: two days, for which a
provider keeps what was uploaded."""

FRAMES_LOGGED_MAX: Final = 12
"""How many places in the code are logged of a bug."""

SESSION_ADMITTED_S_MAX: Final = 1.0
"""How long after its key was revoked a session may still ask for something."""

UNDER_WAY_S_MAX: Final = 2.0
"""How long a request that names what is not known waits for exchanges of the same caller that
may be about to tell of it, as where a stream was just left; sealing takes milliseconds."""

UPLOADS_KEPT_MAX: Final = 4
"""Uploads of batches whose pieces wait for the last one, in one process."""

RESULTS_HELD_BYTES_MAX: Final = 128 * MIB
"""Results of a batch that stand in one document, which can only be read as a whole."""

REQUEST_BYTES_AT_ONCE: Final = 1 * MIB
"""Requests of one batch that are in memory together, unless a single one is larger."""

PACK_FILES_MAX: Final = 10_000
PACK_BYTES_MAX: Final = 2 * 1024 * MIB
"""An evidence pack, unpacked; more than that is asked of the ledger itself."""

PACK_RECEIPTS_MAX: Final = 20_000
"""Receipts that a pack holds all of; where there are more, it holds a sample and says so."""

PACK_SAMPLE: Final = 1_000
"""Receipts of such a sample, spread evenly over all."""

ACCOUNTS_ASKED_MAX: Final = 10_000
"""Accounts that one pattern may stand for: each is looked up in the index by itself."""

PACK_FILE_BYTES_MAX: Final = 16 * MIB
"""A file of a pack that is read whole: a card, a policy, an answer."""

EXPORT_GROUP_ROWS: Final = 1_024
EXPORT_GROUP_BYTES_MAX: Final = 16 * MIB
"""Rows of an export in memory together before they are written as columns."""

EXPORT_SHARD_ROWS: Final = 100_000
"""Rows of one Parquet file, where nothing else is asked for."""

EXPORT_FILES_MAX: Final = 256
"""Data files of one export; each takes some hundred bytes of its manifest, which is a leaf."""

LOST_ROWS_LISTED_MAX: Final = 20
"""Rows that an export lists for each kind of loss; `receipts.jsonl` says it of every row."""
