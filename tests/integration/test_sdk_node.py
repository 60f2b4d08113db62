"""The official SDKs for Node see through the gateway what they see without it."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Final

import pytest

from tests.support.node import installed_scenes
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer
from tests.support.surface import Played, Seen, same
from tests.support.tools import needed

pytestmark = pytest.mark.crash

KEY: Final = "sk-of-the-caller"
PATHS: Final = {"openai": "/openai/v1", "anthropic": "", "gemini": ""}
"""Where each is asked directly; the gateway has its name in front."""
ADDRESSES: Final = {
    "openai": None,
    "anthropic": rb"127\.0\.0\.1:\d+(/anthropic)?",
    "gemini": rb"127\.0\.0\.1:\d+(/gemini)?",
}
"""What differs where an answer holds an address: it leads to whoever was asked."""


def played(scene: str, address: str, server: StubServer) -> Played:
    """Play a scene of Node's at *address*."""
    server.begin(f"node-{scene}")
    done = subprocess.run(
        [needed("node"), installed_scenes() / "scenes.mjs", scene, address, KEY],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert 0 == done.returncode, done.stderr[-3000:]
    said = json.loads(done.stdout)
    return Played(
        told=said["told"],
        seen=[
            Seen(
                method=one["method"],
                target=one["target"],
                status=one["status"],
                headers=[(name, value) for name, value in one["headers"]],
                body=bytearray(base64.b64decode(one["body"] or "")),
                whole=one["body"] is not None,
            )
            for one in said["seen"]
        ],
        received=list(server.received),
        made=server.made_by(),
    )


@pytest.mark.parametrize("scene", PATHS)
def test_a_scene_is_the_same(
    scene: str, stub: tuple[StubServer, str], surface: Gateway
) -> None:
    """What the SDK has, what came over the wire and what the provider saw are the same."""
    server, url = stub
    direct = played(scene, url + PATHS[scene], server)
    where = surface.openai() if scene == "openai" else f"{surface.url}/{scene}"
    through = played(scene, where, server)

    assert len(direct.told) > 10
    same(direct, through, rewritten=ADDRESSES[scene])
