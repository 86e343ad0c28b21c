"""A Django application, all in one file, with a service inside that uses its database.

python django_host.py FOLDER [PORT]
"""

import os
import sys

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connection
from django.http import JsonResponse
from django.urls import path
from werkzeug.serving import make_server

from threadko.containers import ServiceContainer
from threadko.extensions import DependencyProvider
from threadko.rpc import rpc

CONFIG = {"AMQP_URI": os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")}


class DjangoConnections(DependencyProvider):
    """Does for workers what Django does for requests: closes connections that are old or broken.

    Django has a connection for each thread, and workers' threads live as long as their container.
    Declare it first: its teardown comes last.
    """

    def worker_setup(self, worker_ctx):
        close_old_connections()

    def worker_teardown(self, worker_ctx):
        close_old_connections()


class Visits:
    name = "visits"

    connections = DjangoConnections()

    @rpc
    def add(self, visitor):
        with connection.cursor() as cursor:
            cursor.execute("insert into visits values (%s)", [visitor])

    @rpc
    def count(self):
        return count_visits()


def count_visits():
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from visits")
        return cursor.fetchone()[0]


def show(request):
    return JsonResponse({"visits": count_visits()})


urlpatterns = [path("visits", show)]


def configure(folder):
    """Configure Django, and make the table."""
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/visits"}
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], DATABASES={"default": database}
    )
    application = get_wsgi_application()
    with connection.cursor() as cursor:
        cursor.execute("create table if not exists visits (visitor text)")
    connection.close()
    return application


def main(folder, port=8000):
    application = configure(folder)
    container = ServiceContainer(Visits, config=CONFIG)
    server = make_server("127.0.0.1", int(port), application, threaded=True)
    container.start()
    print(f"serving on port {server.port}", flush=True)
    try:
        server.serve_forever()
    finally:
        container.stop()
        server.server_close()


if __name__ == "__main__":
    main(*sys.argv[1:])
