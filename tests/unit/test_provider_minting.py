"""The twin of `gateway.provider.minting`."""

from __future__ import annotations

import pytest

from gateway.provider.minting import leads_past

PAST = [
    "/v1/realtime/client_secrets",
    "/v1/realtime/sessions",
    "/v1/realtime/transcription_sessions",
    "/v1/realtime/translations/client_secrets",
    "/v1/realtime/calls",
    "/v1/realtime/calls/rtc_1/accept",
    "/v1/realtime/calls/rtc_1/refer",
    "/v1/live/sessions",
    "/v1/chatkit/sessions",
    "/openai/realtimeapi/sessions",
    "/openai/v1/realtime/client_secrets",
    "/v1beta/auth_tokens",
    "/v1alpha/auth_tokens:create",
]
ODD = [
    "/v1/realtime/client_secrets/",
    "/v1//realtime/client_secrets",
    "/v1/./realtime/x/../client_secrets",
    "/v1/realtime/client%5Fsecrets",
    "/v1/%72ealtime/client_secrets",
    "/v1/realtime%2Fclient_secrets",
    "/v1/Realtime/Client_Secrets",
    "/v1/realtime/client_secrets;a=b",
    "/v1/realtime/client_secrets?x=/chat",
    "/v1/realtime/client_secrets%20",
]


@pytest.mark.parametrize("path", PAST + ODD)
def test_ways_past_the_gateway_are_known(path: str) -> None:
    """Keys for browsers and calls over WebRTC, however their path is spelled."""
    assert leads_past("POST", path)
    assert leads_past("PUT", path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/realtime",
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/realtime/calls/rtc_1/hangup",
        "/v1/sessions",
        "/v1/uploads/auth_tokens/parts",
        "/v1/files/realtime",
    ],
)
def test_nothing_else_is_taken_for_one(path: str) -> None:
    """What is talked over this connection stays on record."""
    assert not leads_past("POST", path)


def test_being_told_leads_nowhere() -> None:
    """A list gives no key away."""
    assert not leads_past("GET", "/v1/realtime/client_secrets")
