"""A response that may be learned from becomes a row, as a chat completion does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.support.dataset import left_out
from tests.support.house import STREAM_END as END
from tests.support.house import STREAM_HEAD as HEAD
from tests.support.house import RawProvider, framed, sized, write_installation
from tests.support.recordings_openai import MESSAGE, STREAMS, whole_response
from tests.support.texts import USE, Kept

ASKED: Final[dict[str, Any]] = {
    "model": "open-1",
    "input": "hello",
    "instructions": "Be brief.",
}


async def test_responses_are_learned_from(tmp_path: Path) -> None:
    """Whole and streamed, what is all here becomes a row; what begins elsewhere does not."""
    async with RawProvider().listening() as upstream:
        kept = Kept(tmp_path, write_installation(tmp_path, upstream.url))
        said = MESSAGE | {"content": [{"type": "output_text", "text": "first"}]}
        stream = next(one for one in STREAMS if one.name == "response-reasoning-and-text")
        async with kept.serving():
            upstream.steps = [sized(json.dumps(whole_response(said)).encode())]
            for body in (ASKED, ASKED | {"previous_response_id": "resp_0"}):
                assert (await kept.say("/open/v1/responses", body)).status == 200
            upstream.steps = [HEAD, *(framed(piece) for piece, _ in stream.pieces), END]
            answer = await kept.say("/open/v1/responses", ASKED | {"stream": True})
            assert answer.body == stream.bytes

    _, declared, _ = kept.command(
        "use", "declare", "--project", "default", "--owner", "ada", *USE.split(", ")
    )
    code, out, err = kept.command("dataset", "build", "one", "--for", declared.split()[0])

    assert code == 0, out + err
    (folder,) = (kept.data / "datasets").iterdir()
    assert left_out(folder) == ["row.not-text"]
    rows = [json.loads(row) for row in (folder / "rows.jsonl").read_text().splitlines()]
    assert sorted(row["messages"][-1]["content"] for row in rows) == ["Grüße, 世界", "first"]
    assert all(
        row["messages"][:-1]
        == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
        for row in rows
    )
