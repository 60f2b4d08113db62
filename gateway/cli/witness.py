"""`gateway ledger witness`: watch over logs of others, and cosign that they only grew.

It needs no installation and reads no gateway's data: a key, a file in which it keeps what it
has cosigned, and the public keys of the logs.

Exit codes: 0 told to stop; 3 the operator must act.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys
from pathlib import Path

from gateway import settings as settings_module
from gateway.clock import SystemClock
from gateway.errors import BadProofError, SettingError
from gateway.limits import COSIGNING_LOGS_MAX
from gateway.log import build_logger
from gateway.settings import is_loopback
from gateway.tlog.note import NoteVerifier, parse_vkey


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `witness` to the commands of `gateway ledger`."""
    witness = actions.add_parser("witness", help="cosign checkpoints of others' logs")
    witness.set_defaults(run=run)
    witness.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="where it answers"
    )
    witness.add_argument(
        "--key", required=True, metavar="FILE", help="its private key; made at the first start"
    )
    witness.add_argument(
        "--state",
        required=True,
        metavar="FILE",
        help="what it has cosigned; made with the key, and never to be lost or restored",
    )
    witness.add_argument("--name", help="what it is called; needed at the first start")
    witness.add_argument(
        "--log",
        action="append",
        required=True,
        metavar="VKEY",
        help="the line `log` of a gateway's trust.json (may be repeated)",
    )
    witness.add_argument("--cert", metavar="FILE", help="its certificate chain for TLS, PEM")
    witness.add_argument("--cert-key", metavar="FILE", help="the key of --cert, PEM")
    witness.add_argument(
        "--behind-tls-proxy", action="store_true", help="says that TLS ends before it"
    )


def run(args: argparse.Namespace) -> int:
    """Answer logs until told to stop; return the exit code."""
    # The server is loaded where there is something to serve, not for `ledger --help`.
    from gateway.cli.cosigning import serve  # noqa: PLC0415
    from gateway.ledger.publishing.cosigner import Cosigner, open_witness  # noqa: PLC0415

    host, port = settings_module.address(args.listen, "--listen")
    tls = _tls(args, host)
    logs = _logs(args.log)
    key, state = Path(args.key), Path(args.state)
    signer = open_witness(key, state, args.name)
    cosigner = Cosigner(state, signer, logs, SystemClock())
    with contextlib.closing(cosigner):
        # The one line that the logs' operators must be given.
        print(signer.vkey, flush=True)
        log = build_logger("info", sys.stderr)
        asyncio.run(serve(cosigner, host, port, tls, log))
    return 0


def _logs(vkeys: list[str]) -> list[NoteVerifier]:
    if len(vkeys) > COSIGNING_LOGS_MAX:
        raise SettingError(f"a witness watches at most {COSIGNING_LOGS_MAX} logs")
    try:
        return [parse_vkey(vkey) for vkey in vkeys]
    except BadProofError as bad:
        raise SettingError(
            f"--log: {bad.message}", hint="it is the line `log` of the gateway's trust.json"
        ) from bad


def _tls(args: argparse.Namespace, host: str) -> ssl.SSLContext | None:
    if args.cert is not None and args.cert_key is not None:
        from gateway.proxy.server import tls_context  # noqa: PLC0415  as above

        return tls_context(args.cert, args.cert_key)
    if args.cert is not None or args.cert_key is not None:
        raise SettingError("--cert and --cert-key go together")
    if not is_loopback(host) and not args.behind_tls_proxy:
        raise SettingError(
            f"listening on {host} needs --cert and --cert-key",
            hint="or --behind-tls-proxy where TLS ends before the witness",
        )
    return None
