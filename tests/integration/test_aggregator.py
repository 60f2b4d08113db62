"""Behind an aggregator, who answered and which model count, not only who was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from gateway import settings
from gateway.app.installation import init
from tests.support.dataset import TERMS, a_policy, left_out
from tests.support.evidence import ORIGIN
from tests.support.house import RawProvider, completion, sized
from tests.support.texts import USE, Kept

MODELS: Final = """\
models:
  - {id: maker/open-1, terms: [open], source: its card, confidence: primary}
  - {id: maker/closed-1, terms: [closed], source: its card, confidence: primary}
"""
HELD: Final = a_policy("unlisted-model", "hold")


def installation(folder: Path, url: str) -> Kept:
    """Make a house whose only provider is an aggregator at *url*; nothing is code in it."""
    policies = {
        "open": a_policy("open", "permit"),
        "closed": a_policy("closed", "forbid"),
        "together": a_policy("together", "permit"),
        "openai": a_policy("openai", "forbid"),
        "unlisted-model": HELD,
        "openrouter": a_policy("openrouter", "permit").replace(
            "terms: [words]", "terms: [words]\nwith_model_terms: true"
        ),
    }
    for name, text in policies.items():
        place = folder / "policies" / name
        place.mkdir(parents=True)
        (place / "policy.yaml").write_text(text)
        (place / "terms.yaml").write_text(TERMS)
    (folder / "policies" / "models.yaml").write_text(MODELS)
    file = folder / "gateway.yaml"
    file.write_text(
        "listen: 127.0.0.1:0\npolicies: ./policies\n"
        f"providers:\n  openrouter: {{base_url: {url}/api}}\n"
    )
    init(settings.load(file, environment={}), ORIGIN)
    return Kept(folder, file)


async def ask(kept: Kept, **asked: Any) -> Any:
    """Ask the aggregator for something to learn from; return its answer."""
    body = {"messages": [{"role": "user", "content": "say it"}], **asked}
    return await kept.say("/openrouter/v1/chat/completions", body)


async def test_who_answered_is_ruled_on_before_anybody_learns(tmp_path: Path) -> None:
    """A row is taken only if the terms of host and model that answered allow it as well."""
    async with RawProvider().listening() as upstream:
        kept = installation(tmp_path, upstream.url)
        answers: list[dict[str, Any]] = [
            {"provider": "Together", "model": "maker/open-1"},
            {"provider": "OpenAI", "model": "maker/open-1"},
            {"provider": "Nobody's Cloud", "model": "maker/open-1"},
            {"provider": "Together", "model": "maker/closed-1"},
            {"provider": "Together", "model": "maker/unheard-of"},
            {"model": "maker/open-1"},
        ]
        async with kept.serving():
            for number, told in enumerate(answers):
                upstream.steps = [sized(completion(f"answer {number}", **told))]
                answer = await ask(kept, model="maker/open-1")
                assert answer.status == 200, answer.body
        assert all(b"POST /api/v1/chat/completions " in one for one in upstream.received)

    _, declared, _ = kept.command(
        "use", "declare", "--project", "default", "--owner", "ada", *USE.split(", ")
    )
    code, out, err = kept.command("dataset", "build", "one", "--for", declared.split()[0])

    assert code == 0, out + err
    (folder,) = (kept.data / "datasets").iterdir()
    assert sorted(left_out(folder)) == [
        "terms-forbid-use",
        "terms-forbid-use",
        "terms-hold-use",
        "terms-hold-use",
    ]
    rows = (folder / "rows.jsonl").read_text().splitlines()
    said = [json.loads(row)["messages"][-1]["content"] for row in rows]
    assert sorted(said) == ["answer 0", "answer 5"]
    code, out, err = kept.command("dataset", "verify", str(folder))
    assert code == 0, out + err


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "maker/closed-1"},
        {"model": "maker/unheard-of"},
        {"model": "maker/open-1", "models": ["maker/open-1", "maker/closed-1"]},
    ],
    ids=["closed", "unheard-of", "fallback"],
)
async def test_whoever_may_answer_is_ruled_on_at_the_door(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    """Nothing is asked where one of the models that may answer is not to be learned from."""
    async with RawProvider().listening() as upstream:
        kept = installation(tmp_path, upstream.url)
        async with kept.serving():
            answer = await ask(kept, **asked)

    assert answer.status == 403
    assert upstream.dialled == 0
