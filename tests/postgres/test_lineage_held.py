"""Replicas have an index each; what is withdrawn at one holds a student at all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.caller import Caller
from tests.support.postgres import Server
from tests.support.provider import fake_provider
from tests.support.replicas import new_replicas, running
from tests.support.taught import teach, with_pupil
from tests.support.workers import OPENAI, chat

pytestmark = pytest.mark.postgres

PUPIL = "/pupil/v1/chat/completions"


def test_a_withdrawn_answer_holds_its_student_at_every_replica(
    server: Server, tmp_path: Path
) -> None:
    """The answer was indexed by each replica itself; the register tells all of them."""
    with fake_provider() as (_, url):
        replicas = new_replicas(tmp_path, url, server.new_place(), 2)
        here, there = replicas
        exchange, manifest = teach(here.settings_file)
        shutil.copytree(here.folder / "student", there.folder / "student")
        for gateway in replicas:
            with_pupil(gateway.settings_file, url)
        with running(replicas), Caller(here.port) as one, Caller(there.port) as other:
            both = (one, other)
            assert [200, 200] == [
                caller.ask("POST", PUPIL, OPENAI, chat("hello")).status for caller in both
            ]

            gone = here.command(
                *("review", "withdraw", exchange, "--by", "grace", "--reason", "asked to")
            )

            assert gone.returncode == 0, gone.stderr
            for caller in both:
                answer = caller.ask("POST", PUPIL, OPENAI, chat("hello"))
                assert 403 == answer.status
                assert f"grace withdrew {exchange}" in answer.body.decode()
            for gateway in replicas:
                shown = gateway.command("lineage", "show", manifest)
                assert "HELD: grace withdrew" in shown.stdout, shown.stderr
