"""A Django application, all in one file, that calls services: its requests share one client.

gunicorn --threads 16 django_client:application
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from threadko.standalone.rpc import ClusterRpcClient

CONFIG = {"AMQP_URI": os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")}

client = ClusterRpcClient(config=CONFIG, timeout=30)
cluster = client.start()


def price(request, number):
    return JsonResponse({"price": cluster.quotes.price(number)})


urlpatterns = [path("prices/<int:number>", price)]

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost", "127.0.0.1"])
application = get_wsgi_application()
