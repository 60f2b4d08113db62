"""A process that cosigns what it is handed, a line each, and says so: for tests that break it.

    python -m tests.support.cosigning KEY STATE VKEY

Each line of standard input is the body of an `add-checkpoint` in hex; each is answered by one
line: the status and the text, or `unwell`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.clock import SystemClock
from gateway.errors import OperatorError
from gateway.ledger.publishing.cosigner import Cosigner, open_witness
from gateway.tlog.note import parse_vkey


def main() -> None:
    """Answer until there is nothing more to answer."""
    key, state, vkey = sys.argv[1:]
    signer = open_witness(Path(key), Path(state), None)
    cosigner = Cosigner(Path(state), signer, [parse_vkey(vkey)], SystemClock())
    for line in sys.stdin:
        try:
            reply = cosigner.answer(bytes.fromhex(line))
        except OperatorError:
            sys.stdout.write("unwell\n")
            sys.stdout.flush()
            continue
        sys.stdout.write(f"{reply.status} {reply.text.strip()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
