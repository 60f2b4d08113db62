"""The dialect of Azure OpenAI: OpenAI's, but for who asks and where.

A deployment in the path goes before a model in the body, and a key goes in a header of its own.
Both ways to ask are known: `/openai/deployments/{deployment}/…` and `/openai/v1/…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

from gateway.provider import dialect
from gateway.provider.model import Found
from gateway.provider.openai.dialect import OpenAIDialect
from gateway.provider.openai.routes import deployment_of

_KEY: Final = "api-key"


class AzureDialect(OpenAIDialect):
    """Reads and writes OpenAI's wire format as Azure has it."""

    name = "azure"

    def _model(self, found: Found, asked: Mapping[str, Any]) -> str | None:
        return deployment_of(found.path) or super()._model(found, asked)

    def _fallbacks(self, found: Found, asked: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Return the body's model where the path names another: which one counts is Azure's."""
        deployment, model = deployment_of(found.path), dialect.text_of(asked, "model")
        if deployment is None or model is None or model == deployment:
            return ()
        return (model,)

    def credential_of(self, headers: Mapping[str, str], query: str) -> str | None:
        """Return `api-key`, or the bearer token; a browser's session has it in the query."""
        said = headers.get(_KEY) or dialect.bearer_of(headers)
        return said or dict(parse_qsl(query)).get(_KEY) or None

    def credential_header(self, secret: str, path: str = "") -> tuple[str, str]:
        """Return a token of Entra's as a bearer token, and any other *secret* as the key."""
        if secret.startswith("eyJ") and secret.count(".") == 2:
            return "authorization", f"Bearer {secret}"
        return _KEY, secret

    def query_upstream(self, query: str) -> str:
        """Return *query* without a key, everything else as it was sent."""
        said = query.split("&")
        return "&".join(one for one in said if unquote_plus(one.partition("=")[0]) != _KEY)
