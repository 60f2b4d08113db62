"""From an API to a last model in four stages, and a withdrawal that reaches them all. Offline.

The question was asked of real models: an API cleans a first batch of pages, those train a small
model that cleans pages, that one makes a large library, and the library trains a model from
scratch. Is the last one distilled from the API's? May we go on using it?

    1. an API answers about pages, for a declared use            → dataset `pages`
    2. `pages` trains the small model `page-reader`
    3. `page-reader` reads many pages; a filter keeps what has the right form, and people add
       pages of their own                                        → dataset `library`
    4. `library` trains the last model, `library-reader`

Then the lineage of the last model is shown and asked about, its evidence is packed for somebody
outside, and one answer of stage 1 is withdrawn.

    python examples/multi_stage/multi_stage.py [FOLDER]

Everything is real but the API, for which a stub on this machine answers. FOLDER keeps it all.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import openai

from gateway.app.pipeline import open_pipeline
from gateway.demo.provider import EXTRACT, invoice_answer, invoice_text

SETTINGS = """\
listen: 127.0.0.1:{door}
providers:
  deepseek: {{base_url: "{stub}"}}
"""
LOCAL = """\
  local: {{base_url: "http://127.0.0.1:{student}", student: gateway-data/students/page-reader}}
"""
USE = "purpose=train.sft student={} student-kind=extractor audience=internal competes=no"
FIRST, SECOND = 120, 48
"""How many pages each stage reads."""


def main() -> None:
    """Tell it."""
    began = time.monotonic()
    with ExitStack() as stack:
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1])
            folder.mkdir(parents=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = start(stack, folder, "-m", "gateway.demo.provider")
        assert stub.stdout is not None
        door, student = free_port(), free_port()
        settings = SETTINGS.format(door=door, stub=stub.stdout.readline().decode().strip())
        (folder / "gateway.yaml").write_text(settings)
        gateway(folder, "init", "--origin", "receipts.example.com/pages", quiet=True)

        say("Stage 1: an API reads pages; every answer has a receipt, and a declared use")
        first_use = declare(folder, "page-reader")
        with ExitStack() as open_door:
            serve(open_door, folder, door)
            first = ask(door, "deepseek", "deepseek-chat", first_use, range(FIRST))
        words = ("--for", first_use, "--held-out", "0.1", "--dedupe", "near")
        gateway(folder, "dataset", "build", "pages", *words)

        say("Stage 2: a small model learns to read pages")
        train(folder, "pages", "page-reader", steps=40)

        say("Stage 3: it reads many pages; a filter and people make a library of it")
        (folder / "gateway.yaml").write_text(settings + LOCAL.format(student=student))
        second_use = declare(folder, "library-reader")
        with ExitStack() as open_door:
            model = "gateway-data/students/page-reader"
            listen = ("--listen", f"127.0.0.1:{student}")
            start(open_door, folder, "-m", "gateway", "student", "serve", model, *listen)
            wait_for(f"http://127.0.0.1:{student}/v1/models")
            serve(open_door, folder, door)
            pages = range(1000, 1000 + SECOND)
            read = ask(door, "local", "page-reader", second_use, pages, at_once=2)
        kept = make_library(folder, second_use, read)
        print(f"   {kept} of {len(read)} answers had the right form; people wrote 8 more")
        gateway(
            folder, "dataset", "build", "library", "--for", second_use, "--transform", "curate"
        )

        say("Stage 4: the last model is trained on the library, from scratch")
        train(folder, "library", "library-reader", steps=16)

        say("Where does the last model come from?")
        last = "gateway-data/students/library-reader"
        gateway(folder, "lineage", "show", last)
        gateway(folder, "lineage", "ask", "distilled-from:deepseek", last)
        gateway(folder, "lineage", "ask", "distilled-from:openai", last)

        say("The evidence, in one file for somebody outside, who verifies it without us")
        gateway(folder, "lineage", "pack", last, "--out", "library-reader.zip")
        trust = ("--trust", "gateway-data/trust.json")
        gateway(folder, "verify", "library-reader.zip", *trust)

        withdrawn = first[0][0]
        say("One answer of stage 1 is withdrawn. What does that reach?")
        gateway(folder, "lineage", "impact", "--exchange", withdrawn)
        why = ("--by", "Ada Legal", "--reason", "the page belonged to somebody else")
        gateway(folder, "review", "withdraw", withdrawn, *why)

        say("Nothing more is learned from what stands below it, nor asked of it")
        refused = gateway(
            folder, "student", "train", "gateway-data/datasets/library",
            "--name", "library-reader-2", "--steps", "8", expect=1,
        )  # fmt: skip
        assert "withdrawn" in refused, refused
        with ExitStack() as open_door:
            serve(open_door, folder, door)
            try:
                ask(door, "local", "page-reader", second_use, range(1), at_once=1)
            except openai.PermissionDeniedError as error:
                print("   page-reader:", error.body["message"])
            else:
                raise SystemExit("a student that is held answered")
        print(f"\ndone in {time.monotonic() - began:.0f} s")


def make_library(folder: Path, use: str, read: Sequence[tuple[str, str]]) -> int:
    """Keep what has the right form, add rows of people; return how many were kept."""
    config = folder / "gateway.yaml"
    with open_pipeline(config, declaration=use, by="Grace Research") as pipeline:
        with pipeline.transform("form", version="1", kind="filter", code=has_form) as step:
            kept = [step.keep(exchange) for exchange, text in read if has_form(text)]
        with pipeline.written(licence="cc-by-4.0", source="our own clerks") as step:
            written = [
                step.row(
                    {
                        "messages": [
                            {"role": "user", "content": f"{EXTRACT} {invoice_text(number)}"},
                            {
                                "role": "assistant",
                                "content": invoice_answer(invoice_text(number)),
                            },
                        ]
                    }
                )
                for number in range(2000, 2008)
            ]
        # Both kinds of row go into the library through one last step.
        with pipeline.transform("curate", version="1", kind="filter") as step:
            for row in [*kept, *written]:
                step.keep(row)
    return len(kept)


def has_form(text: str) -> bool:
    """Tell whether an answer looks like a record."""
    return text.lstrip().startswith("{") and '"' in text


def declare(folder: Path, student: str) -> str:
    """Register what the answers are for; return the declaration's id."""
    who = ("--project", "default", "--owner", "Grace Research")
    words = USE.format(student).split()
    return gateway(folder, "use", "declare", *who, *words, quiet=True).split()[0]


def train(folder: Path, dataset: str, student: str, steps: int) -> None:
    """Train a student on a dataset."""
    gateway(
        folder, "student", "train", f"gateway-data/datasets/{dataset}",
        "--name", student, "--steps", str(steps),
    )  # fmt: skip


def ask(
    door: int, provider: str, model: str, use: str, pages: range, at_once: int = 8
) -> list[tuple[str, str]]:
    """Have every page read; return the exchange and the text of each answer."""
    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{door}/{provider}/v1",
        api_key="sk-not-a-real-key",
        default_headers={"x-intended-use": use},
    )

    def one(page: int) -> tuple[str, str]:
        question = f"{EXTRACT} {invoice_text(page)}"
        answer = client.chat.completions.with_raw_response.create(
            model=model, max_tokens=80, messages=[{"role": "user", "content": question}]
        )
        return answer.headers["x-gateway-exchange"], answer.parse().choices[0].message.content

    with client, ThreadPoolExecutor(at_once) as callers:
        return list(callers.map(one, pages))


def gateway(folder: Path, *words: str, quiet: bool = False, expect: int = 0) -> str:
    """Run a command as a person would, show it, and return what it printed."""
    if not quiet:
        print(
            "\n$ gateway", " ".join(word if " " not in word else f"'{word}'" for word in words)
        )
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    if not quiet:
        print("".join(f"   {line}\n" for line in told.splitlines()), end="")
    if done.returncode != expect:
        raise SystemExit(f"gateway {' '.join(words)} ended with {done.returncode}:\n{told}")
    return told


def serve(stack: ExitStack, folder: Path, door: int) -> None:
    """Open the gateway's door until the block is over."""
    start(stack, folder, "-m", "gateway", "serve")
    wait_for(f"http://127.0.0.1:{door}/-/health")


def start(stack: ExitStack, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Run a process in *folder* until the block is over."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(url: str) -> None:
    """Return once *url* answers."""
    for _ in range(6_000):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} never answered")


def say(line: str) -> None:
    """Begin a part."""
    print(f"\n== {line}", flush=True)


if __name__ == "__main__":
    main()
