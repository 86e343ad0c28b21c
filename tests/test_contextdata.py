"""What is injected of the context data."""

from types import SimpleNamespace

import pytest

from threadko.contextdata import AuthToken, ContextDataProvider, Language, UserAgent, UserId

CLASSES = [
    (Language, "language"),
    (UserId, "user_id"),
    (UserAgent, "user_agent"),
    (AuthToken, "auth_token"),
]


@pytest.mark.parametrize(("provider", "key"), CLASSES)
@pytest.mark.parametrize("value", ["x", 1.5, None])
def test_value_of_the_call_is_injected(provider, key, value):
    assert provider().get_dependency(SimpleNamespace(data={key: value})) == value


@pytest.mark.parametrize(("provider", "key"), CLASSES)
def test_call_without_it_injects_none(provider, key):
    assert provider().get_dependency(SimpleNamespace(data={})) is None


def test_key_of_ones_own():
    class Tenant(ContextDataProvider):
        context_key = "tenant"

    assert Tenant().get_dependency(SimpleNamespace(data={"tenant": "a"})) == "a"


def test_provider_without_a_key_injects_none():
    ctx = SimpleNamespace(data={None: 1})
    assert ContextDataProvider().get_dependency(ctx) is None
