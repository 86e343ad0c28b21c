"""The Django application, with its state."""

from typing import Any

import django_client
from django.http import JsonResponse
from django.urls import path
from django_client import application, client

from tests.stories.hosts.state import describe

__all__ = ["application"]


def state(request: Any) -> Any:
    return JsonResponse(describe(client))


django_client.urlpatterns.append(path("state", state))
