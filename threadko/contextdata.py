"""Dependencies that inject one entry of the context data that a call carries."""

from typing import Any

from threadko.constants import (
    AUTH_TOKEN_CONTEXT_KEY,
    LANGUAGE_CONTEXT_KEY,
    USER_AGENT_CONTEXT_KEY,
    USER_ID_CONTEXT_KEY,
)
from threadko.extensions import DependencyProvider, WorkerContext

__all__ = ["AuthToken", "ContextDataProvider", "Language", "UserAgent", "UserId"]


class ContextDataProvider(DependencyProvider):
    """Injects the value under `context_key`, None if the call carries none."""

    context_key: str | None = None

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        """Return the value for this worker."""
        return None if self.context_key is None else worker_ctx.data.get(self.context_key)


class Language(ContextDataProvider):
    """Injects the language of the caller."""

    context_key = LANGUAGE_CONTEXT_KEY


class UserId(ContextDataProvider):
    """Injects the id of the user on whose behalf the call is made."""

    context_key = USER_ID_CONTEXT_KEY


class UserAgent(ContextDataProvider):
    """Injects what the user's client calls itself."""

    context_key = USER_AGENT_CONTEXT_KEY


class AuthToken(ContextDataProvider):
    """Injects the token that the call was authorised with."""

    context_key = AUTH_TOKEN_CONTEXT_KEY
