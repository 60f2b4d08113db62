"""The main job, told step by step: calls, rulings, a dataset, students, lineage, tampering.

Everything is real but the provider: the door is a process of its own, the callers are the
official SDKs, the commands are those that people type.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from gateway.demo.provider import EXTRACT, invoice_answer, invoice_text
from gateway.errors import GateRefusedError, MissingPieceError, OperatorError
from gateway.proxy.auth import DEFAULT_PROJECT
from gateway.receipt.bundle import Bundle, format_bundle, parse_bundle
from gateway.receipt.envelope import open_envelope

Command = Callable[[Sequence[str]], int]
"""Runs one `gateway …` command and returns its exit code."""

FOLDER: Final = Path("gateway-demo")
CALLS: Final = 300
SECOND_CALLS: Final = 60
READY_S_MAX: Final = 90.0

_SETTINGS: Final = """\
# Written by `gateway demo`. The three providers stand for the real ones: here they lead to a
# stub on this machine, so nothing leaves it.
listen: 127.0.0.1:{door}
providers:
  openai: {{base_url: "{stub}"}}
  anthropic: {{base_url: "{stub}"}}
  deepseek: {{base_url: "{stub}"}}
"""
_LOCAL: Final = """\
  local: # our own student; its receipts name its training manifest
    base_url: http://127.0.0.1:{student}
    student: gateway-data/students/invoice-parser
"""
_CONFIDENTIAL: Final = "sk-demo-not-a-real-key"


class Demo:
    """One telling of the story, in one folder."""

    def __init__(self, command: Command, console: Console) -> None:
        self._command = command
        self._console = console
        self._door = _free_port()
        self._student = _free_port()
        self._stub = f"http://127.0.0.1:{_free_port()}"
        self._step = 0
        self._started = time.monotonic()

    def tell(self) -> int:
        """Tell the whole story in `./gateway-demo/`; return the exit code.

        Raises:
            MissingPieceError: the SDKs or the student extra are not installed.
        """
        openai, anthropic = _sdks()
        _clear(FOLDER)
        os.chdir(FOLDER)
        with _process([sys.executable, "-m", "gateway.demo.provider", "--port", self._port()]):
            self._begin()
            with self._gateway():
                self._plain_call(openai)
                self._streamed_call(anthropic)
                self._forbidden_call(openai)
                self._held_call(anthropic)
                declaration = self._bulk(openai)
            self._dataset("invoices", declaration)
            self._train("invoices", "invoice-parser")
            second = self._second_stage(openai)
            self._dataset("invoices-2", second, "--provider", "local")
            self._train("invoices-2", "invoice-mini", "--steps", "30")
            self._lineage()
            self._tamper()
        self._end()
        return 0

    # -- the steps ------------------------------------------------------------------------

    def _begin(self) -> None:
        self._heading("A gateway, its ledger and its keys")
        Path("gateway.yaml").write_text(
            _SETTINGS.format(door=self._door, stub=self._stub), encoding="utf-8"
        )
        self._run("init", "--origin", "receipts.example.com/demo")

    def _plain_call(self, openai: Any) -> None:
        self._heading("A plain call: change the base URL, and nothing else")
        self._say(f'client = openai.OpenAI(base_url="http://127.0.0.1:{self._door}/openai/v1")')
        client = self._openai(openai, "openai")
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-5", messages=[{"role": "user", "content": "What is a usage receipt?"}]
        )
        exchange = raw.headers["x-gateway-exchange"]
        self._say(f"answer:  {raw.parse().choices[0].message.content}", "cyan")
        self._say(
            f"receipt: {exchange}, signed and in the ledger before the answer's last byte left"
        )
        bundle = Path("receipt.json")
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._door}/-/receipts/{exchange}/bundle"
        ) as answer:
            bundle.write_bytes(answer.read())
        self._say("Anybody can check it offline, with the public keys and nothing else:")
        self._run("verify", "receipt.json", "--trust", "gateway-data/trust.json")

    def _streamed_call(self, anthropic: Any) -> None:
        self._heading("A streamed call, with another provider's SDK")
        client = anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{self._door}/anthropic", api_key=_CONFIDENTIAL
        )
        pieces = 0
        self._console.print("  answer:  ", end="")
        with client.messages.stream(
            model="claude-opus-5",
            max_tokens=200,
            messages=[{"role": "user", "content": "Why keep receipts?"}],
        ) as stream:
            for text in stream.text_stream:
                pieces += 1
                self._console.print(text, end="", style="cyan", highlight=False)
        self._console.print()
        self._say(f"{pieces} pieces, passed on as they came; the last waited for its receipt.")

    def _forbidden_call(self, openai: Any) -> None:
        self._heading("A use that the terms forbid")
        use = "purpose=train.sft, student=our-chat, student-kind=chat, competes=?1"
        self._say(f"x-intended-use: {use}")
        client = self._openai(openai, "openai", use)
        try:
            client.chat.completions.create(
                model="gpt-5", messages=[{"role": "user", "content": "Teach me"}]
            )
        except openai.PermissionDeniedError as refused:
            self._refused(refused)
        else:
            raise GateRefusedError("the forbidden call passed; that must not happen")

    def _held_call(self, anthropic: Any) -> None:
        self._heading("A use that a person must rule on once")
        words = [
            "purpose=train.sft",
            "student=ticket-sorter",
            "student-kind=classifier",
            "audience=internal",
            "competes=no",
            "competes-basis=sorts our own tickets",
            "competes-assessed-by=Ada Legal",
        ]
        declaration = self._declare(words)
        client = anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{self._door}/anthropic",
            api_key=_CONFIDENTIAL,
            default_headers={"x-intended-use": declaration},
        )
        ask = {
            "model": "claude-opus-5",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "Sort: the printer is on fire"}],
        }
        try:
            client.messages.create(**ask)
        except anthropic.PermissionDeniedError as refused:
            self._refused(refused)
        else:
            raise GateRefusedError("the held call passed; that must not happen")
        self._run("review", "list")
        self._run(
            *("review", "approve", declaration, "--by", "Ada Legal"),
            *("--reason", "a narrow internal classifier; the help article allows these"),
        )
        passed = client.messages.with_raw_response.create(**ask)
        self._say(
            "The same request now passes, and its receipt names the verdict: "
            + passed.headers["x-gateway-exchange"]
        )

    def _bulk(self, openai: Any) -> str:
        self._heading(f"{CALLS} calls for training, under terms that allow it")
        declaration = self._declare(
            [
                "purpose=train.sft",
                "student=invoice-parser",
                "student-kind=extractor",
                "audience=internal",
                "competes=no",
            ]
        )
        client = self._openai(openai, "deepseek", declaration)
        seconds = self._ask_many(client, "deepseek-chat", range(CALLS))
        self._say(
            f"{CALLS} answers in {seconds:.1f} s, each with its signed receipt;"
            " the texts are kept encrypted, apart from the evidence."
        )
        return declaration

    def _dataset(self, name: str, declaration: str, *more: str) -> None:
        self._heading(f"The dataset `{name}`: every output is ruled on again")
        self._run("dataset", "build", name, "--for", declaration, *more)
        self._run("dataset", "verify", f"gateway-data/datasets/{name}")

    def _train(self, dataset: str, student: str, *more: str) -> None:
        self._heading(f"The student `{student}`: trained on nothing that does not verify")
        self._run(
            "student", "train", f"gateway-data/datasets/{dataset}", "--name", student, *more
        )

    def _second_stage(self, openai: Any) -> str:
        self._heading("The student becomes a provider, and makes the next dataset")
        with Path("gateway.yaml").open("a", encoding="utf-8") as settings:
            settings.write(_LOCAL.format(student=self._student))
        listen = f"127.0.0.1:{self._student}"
        model = "gateway-data/students/invoice-parser"
        self._typed("student", "serve", model, "--listen", listen)
        serve = [sys.executable, "-m", "gateway", "student", "serve", model, "--listen", listen]
        with _process(serve):
            self._wait_for(f"http://{listen}/v1/models", "the student to load")
            with self._gateway():
                declaration = self._declare(
                    [
                        "purpose=train.sft",
                        "student=invoice-mini",
                        "student-kind=extractor",
                        "audience=internal",
                        "competes=no",
                    ]
                )
                client = self._openai(openai, "local", declaration)
                numbers = range(1000, 1000 + SECOND_CALLS)
                self._ask_many(client, "invoice-parser", numbers, at_once=2)
                answer = client.chat.completions.create(
                    model="invoice-parser",
                    max_tokens=80,
                    messages=[{"role": "user", "content": f"{EXTRACT} {invoice_text(7)}"}],
                )
        self._say(f"asked:    {invoice_text(7)}")
        self._say(f"student:  {answer.choices[0].message.content}", "cyan")
        self._say(f"teacher:  {invoice_answer(invoice_text(7))}", "cyan")
        self._say(
            "(Half a million weights, 57 steps on a CPU: it has the form, not the facts.)"
        )
        self._say("Each of these receipts names the training manifest of `invoice-parser`.")
        return declaration

    def _lineage(self) -> None:
        self._heading("The question: is `invoice-mini` distilled from DeepSeek? From GPT?")
        model = "gateway-data/students/invoice-mini"
        self._run("lineage", "show", model)
        self._run("lineage", "show", model, "--from", "openai")

    def _tamper(self) -> None:
        self._heading("Somebody edits one byte")
        trust = ("--trust", "gateway-data/trust.json")
        spoiled = Path("tampered")
        spoiled.mkdir()
        receipt = spoiled / "receipt.json"
        receipt.write_bytes(_receipt_off(Path("receipt.json").read_bytes()))
        dataset = spoiled / "invoices"
        shutil.copytree("gateway-data/datasets/invoices", dataset)
        rows = dataset / "rows.jsonl"
        rows.write_bytes(_one_letter_off(rows.read_bytes()))
        model = spoiled / "invoice-parser"
        shutil.copytree("gateway-data/students/invoice-parser", model)
        weights = model / "model.safetensors"
        weights.write_bytes(_one_byte_off(weights.read_bytes(), 0.5))
        for what, path in (
            ("of a receipt", receipt),
            ("of a dataset row", dataset),
            ("of the weights", model),
        ):
            self._say(f"one byte {what}:", "yellow")
            if self._run("verify", str(path), *trust, expect=1) != 1:
                raise GateRefusedError(f"an edited byte {what} went unnoticed")
        self._say("And the ledger itself, recomputed from its leaves:")
        self._run("ledger", "fsck")

    def _end(self) -> None:
        seconds = time.monotonic() - self._started
        self._console.rule(f"[bold]done in {seconds:.0f} s[/]", style="green")
        self._say("Everything is in ./gateway-demo/ to look at. Try next:")
        self._say("")
        self._say("  cd gateway-demo", "bold")
        command = "gateway" if shutil.which("gateway") else os.path.relpath(sys.argv[0])
        for words in (
            "receipt list",
            "policy explain anthropic --use 'purpose=train.sft'",
            "lineage show gateway-data/students/invoice-mini",
        ):
            self._say(f"  {command} {words}", "bold")

    # -- how it is told -------------------------------------------------------------------

    def _heading(self, title: str) -> None:
        self._step += 1
        self._console.print()
        self._console.rule(f"[bold]{self._step}. {title}[/]", align="left", style="dim")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _typed(self, *words: str) -> None:
        line = " ".join(f"'{w}'" if " " in w else w for w in ("gateway", *words))
        self._say(f"$ {line}", "green")

    def _run(self, *words: str, expect: int = 0) -> int:
        """Run a command as a person would type it, after showing it."""
        self._typed(*words)
        sys.stdout.flush()
        code = self._command(words)
        if code not in {0, expect}:
            raise OperatorError(
                f"the demo's command failed: gateway {' '.join(words)} (exit {code})",
                hint="the lines above say why; run the demo again once it is mended",
            )
        return code

    def _declare(self, words: Sequence[str]) -> str:
        printed = io.StringIO()
        who = ("--project", DEFAULT_PROJECT, "--owner", "Grace Research")
        self._typed("use", "declare", *who, *words)
        with contextlib.redirect_stdout(printed):
            code = self._command(("use", "declare", *who, *words))
        if code:
            raise OperatorError("the demo could not declare its use")
        self._say(printed.getvalue().rstrip())
        return printed.getvalue().split()[0]

    def _refused(self, refused: Any) -> None:
        body = refused.body if isinstance(refused.body, dict) else {}
        error = body.get("error", body)
        self._say(f"{type(refused).__name__} ({error.get('code')}):", "red")
        for reason in error.get("reasons") or ():
            self._say(f"  because  {reason['because']}")
            self._say(f"  clause   {reason['policy']}/{reason['clause']}")
            self._say(f"  source   {reason['citation']}")
        self._say(f"  next     {error.get('next_step')}")

    def _ask_many(
        self, client: Any, model: str, numbers: Sequence[int], at_once: int = 8
    ) -> float:
        def ask(number: int) -> None:
            client.chat.completions.create(
                model=model,
                max_tokens=80,
                messages=[{"role": "user", "content": f"{EXTRACT} {invoice_text(number)}"}],
            )

        begun = time.monotonic()
        with (
            Progress(
                TextColumn("asking {task.fields[model]}"),
                BarColumn(),
                MofNCompleteColumn(),
                console=self._console,
                transient=not self._console.is_terminal,
            ) as progress,
            ThreadPoolExecutor(at_once) as callers,
        ):
            bar = progress.add_task("", total=len(numbers), model=model)
            for _ in callers.map(ask, numbers):
                progress.advance(bar)
        return time.monotonic() - begun

    # -- processes ------------------------------------------------------------------------

    @contextmanager
    def _gateway(self) -> Iterator[None]:
        self._typed("serve")
        with _process([sys.executable, "-m", "gateway", "serve"], Path("gateway.log")):
            self._wait_for(f"http://127.0.0.1:{self._door}/-/health", "the gateway to open")
            self._say(f"(it answers at http://127.0.0.1:{self._door}; its log: gateway.log)")
            yield

    def _wait_for(self, url: str, what: str) -> None:
        deadline = time.monotonic() + READY_S_MAX
        with self._console.status(f"waiting for {what} …"):
            while time.monotonic() < deadline:
                if _fetch(url) is not None:
                    return
                time.sleep(0.1)
        raise OperatorError(
            f"waited {READY_S_MAX:.0f} s for {what}", hint="see the logs in ./gateway-demo/"
        )

    def _port(self) -> str:
        return self._stub.rpartition(":")[2]

    def _openai(self, openai: Any, provider: str, use: str | None = None) -> Any:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self._door}/{provider}/v1",
            api_key=_CONFIDENTIAL,
            default_headers={"x-intended-use": use} if use else {},
        )


def _clear(folder: Path) -> None:
    """Make *folder* anew; only one that an earlier telling left is removed.

    Raises:
        OperatorError: something else stands there.
    """
    settings = folder / "gateway.yaml"
    told = _SETTINGS.partition("\n")[0]
    if folder.exists():
        if not settings.is_file() or not settings.read_text("utf-8").startswith(told):
            raise OperatorError(
                f"./{folder} is there, and no earlier demo made it",
                hint="run the demo in another folder, or move that one away",
            )
        shutil.rmtree(folder)
    folder.mkdir()


def _sdks() -> tuple[Any, Any]:
    try:
        import anthropic  # noqa: PLC0415  only the demo needs them
        import openai  # noqa: PLC0415
    except ImportError as exc:
        raise MissingPieceError(
            f"the demo drives the official SDKs, and {exc.name} is not installed",
            hint="pip install 'tos-gateway[demo,student]', or run `make demo`",
        ) from exc
    return openai, anthropic


@contextmanager
def _process(words: Sequence[str], log: Path | None = None) -> Iterator[None]:
    """Run a process while the block lasts, its words in *log*."""
    path = log or Path(f"{words[2].rpartition('.')[2]}.log")
    with path.open("ab") as out:
        running = subprocess.Popen(  # noqa: S603  our own modules
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            running.terminate()
            try:
                running.wait(timeout=30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _fetch(url: str) -> Any:
    """Return the JSON at *url*, or `None` while nobody answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  loopback
            return json.loads(answer.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def _one_byte_off(content: bytes, place: float) -> bytes:
    """Return *content* with one letter or byte changed near that share of its length."""
    at = int(len(content) * place)
    while content[at : at + 1] in {b'"', b"\\", b"\n"}:
        at += 1
    other = b"A" if content[at : at + 1] != b"A" else b"B"
    return content[:at] + other + content[at + 1 :]


def _receipt_off(encoded: bytes) -> bytes:
    """Return a receipt's bundle in which one letter of what it states was changed."""
    bundle = parse_bundle(encoded)
    stated = open_envelope(bundle.leaf).payload
    edited = stated.replace(b"gpt-5", b"gpt-6", 1)
    leaf = bundle.leaf.replace(base64.b64encode(stated), base64.b64encode(edited))
    return format_bundle(Bundle(leaf=leaf, proof=bundle.proof))


def _one_letter_off(content: bytes) -> bytes:
    """Return rows whose first total has one digit changed."""
    at = content.index(b'total\\":') if b'total\\":' in content else content.index(b"total")
    while not content[at : at + 1].isdigit():
        at += 1
    digit = b"7" if content[at : at + 1] != b"7" else b"1"
    return content[:at] + digit + content[at + 1 :]
