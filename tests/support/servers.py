"""The databases of the tests marked `drivers`: those that the environment names, or the local ones.

`find_mysql()`, `find_postgres()` and `find_redis()` return a URL; where nothing answers, they skip
the test and say in one line how to get a server. In CI a skip is a failure.
"""

import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

__all__ = ["Server", "find_mysql", "find_postgres", "find_redis"]

_SECONDS = 2.0


@dataclass(frozen=True)
class Server:
    """A kind of server, where it is looked for, and how to get one."""

    variable: str
    default: str
    advice: str

    def find(self) -> str:
        """Return its URL, or skip the test."""
        url = os.environ.get(self.variable) or self.default
        parts = urlsplit(url)
        try:
            socket.create_connection((parts.hostname, parts.port), _SECONDS).close()
        except OSError as error:
            pytest.skip(f"no server at {self.variable} ({error}): {self.advice}")
        return url


_MYSQL = Server(
    "MYSQL_URL",
    "mysql://root@127.0.0.1:3306/test",
    'apt-get install mariadb-server && service mariadb start && mysql -e "create database if not'
    " exists test; alter user root@localhost identified by ''\"",
)
_POSTGRES = Server(
    "POSTGRES_URL",
    "postgresql://postgres@127.0.0.1:5432/test",
    "apt-get install postgresql, `host all all 127.0.0.1/32 trust` first in its pg_hba.conf,"
    " service postgresql restart, createdb -h 127.0.0.1 -U postgres test",
)
_REDIS = Server(
    "REDIS_URL",
    "redis://127.0.0.1:6379/0",
    "apt-get install redis-server && service redis-server start",
)


def find_mysql() -> str:
    """Return the URL of a MariaDB or MySQL."""
    return _MYSQL.find()


def find_postgres() -> str:
    """Return the URL of a PostgreSQL."""
    return _POSTGRES.find()


def find_redis() -> str:
    """Return the URL of a Redis."""
    return _REDIS.find()
