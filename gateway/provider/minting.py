"""Operations that let somebody talk to a provider past the gateway.

They mint keys for browsers, or arrange a call whose sound goes another way. Paths are compared
as a server might understand them, not as they were sent.
"""

from __future__ import annotations

import functools
import re
from typing import Final
from urllib.parse import unquote

_MINTING: Final = re.compile(
    r".*/(?:"
    r"(?:realtime|realtimeapi|live)(?:/translations)?"
    r"/(?:client_secrets|sessions|transcription_sessions)"
    r"|realtime/calls(?:/[^/]+/(?:accept|refer))?"
    r"|chatkit/sessions"
    r"|auth_tokens(?::[a-z]+)?"
    r")"
)
_DOT: Final = frozenset({"", "."})
_ONLY_TELLING: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


@functools.lru_cache(maxsize=1024)
def leads_past(method: str, path: str) -> bool:
    """Tell whether a request has the provider open a way past the gateway."""
    if method in _ONLY_TELLING:
        return False
    segments: list[str] = []
    for segment in unquote(path.partition("?")[0]).lower().split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in _DOT:
            segments.append(segment.partition(";")[0].strip())
    return _MINTING.fullmatch("/" + "/".join(segments)) is not None
