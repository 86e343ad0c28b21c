"""What the services of the drivers' benchmark do. Standard library, and mysqlclient when called."""

import importlib
import os
from contextlib import closing
from urllib.parse import urlsplit

__all__ = ["MYSQL_URL", "WAIT_SECONDS", "wait_in_database"]

MYSQL_URL = os.environ.get("MYSQL_URL") or "mysql://root@127.0.0.1:3306/test"
WAIT_SECONDS = 0.1


def wait_in_database() -> None:
    """Connect to MariaDB, as each worker does, and wait in it."""
    driver = importlib.import_module("MySQLdb")
    parts = urlsplit(MYSQL_URL)
    with closing(
        driver.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            database=parts.path.removeprefix("/"),
        )
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("select sleep(%s)", (WAIT_SECONDS,))
        cursor.fetchall()
