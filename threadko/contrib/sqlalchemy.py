"""SQLAlchemy for services: a session per worker, over an engine per container and database.

* A session is made with its worker and used by that worker's thread alone. It takes a connection
  from the pool with its first statement.
* It is committed in `worker_result`, before the outcome leaves: a commit that fails is the caller's
  error, and nobody is told of work that is lost. After an error it is rolled back. It is closed in
  `worker_teardown`.
* Engines belong to their container, and end with it: in `stop()`, after the last worker, or in
  `kill()`. From then on an abandoned worker gets no connection and commits nothing. The sockets of
  connections in use are shut, so that it waits for no database and holds no lock there. (Where
  there is no socket, as with SQLite, the transaction ends when nothing refers to the worker.)
* A forked child lets go of all connections without a word to the database, for they are its
  parent's. It needs containers of its own, which make engines of their own.
"""

import contextlib
import os
import socket
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from threadko.exceptions import ConfigurationError, ContainerBeingKilled
from threadko.extensions import DependencyProvider, ExcInfo, SharedExtension, WorkerContext

try:
    import sqlalchemy
    from sqlalchemy import event, exc, orm
except ImportError as error:
    raise ImportError(
        "threadko.contrib.sqlalchemy needs SQLAlchemy: pip install 'threadko[sqlalchemy]'"
    ) from error

__all__ = ["Database", "DatabaseAccess", "Session", "SharedEngine"]

_URL_KEY = "DATABASE_URL"


class SharedEngine(SharedExtension):
    """The engine of one container for one database, whichever providers use it.

    `engine` stands from `start()` on; any thread may use it.

    Args:
        url: the database; what the configuration has under `key` if None.
        key: see there.
        options: those of `sqlalchemy.create_engine`.
    """

    engine: sqlalchemy.Engine

    def __init__(
        self, url: str | sqlalchemy.URL | None, key: str, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._url = url
        self._key = key
        self._options = dict(options)
        self._connections_per_worker = 0
        self._is_killed = False
        # Open connections over sockets, by id. Each change is one step, and who goes through it
        # copies it in one. The socket is a duplicate of our own: the driver's descriptor may be
        # another file's by the time that it is used.
        self._open: dict[int, tuple[Any, socket.socket]] = {}

    @property
    def sharing_key(self) -> object:
        """The class, and all that tells one database or pool from another."""
        # By their text, for options may hold what cannot be hashed.
        options = tuple(sorted((name, repr(value)) for name, value in self._options.items()))
        return type(self), self._url or self._key, options

    def add_provider(self, connections_per_worker: int) -> None:
        """Make room in the pool, before `start()`, for a provider of sessions."""
        self._connections_per_worker += connections_per_worker

    def start(self) -> None:
        """Make the engine. It connects when it is first used.

        Raises:
            ConfigurationError: there is no URL, or it cannot be used.
        """
        url = self._read_url()
        try:
            self.engine = sqlalchemy.create_engine(url, **self._complete_options())
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"no driver for {url.drivername!r} is installed: {error}"
            ) from error
        except (exc.ArgumentError, exc.NoSuchModuleError, TypeError) as error:
            raise ConfigurationError(
                f"the database URL of {url.drivername!r} or its options cannot be used: {error}"
            ) from error
        event.listen(self.engine, "do_connect", self._check_alive)
        event.listen(self.engine, "commit", self._on_commit)
        event.listen(self.engine, "connect", self._on_connect)
        for name in ("close", "close_detached"):
            event.listen(self.engine, name, self._on_close)
        _engines.add(self)

    def stop(self) -> None:
        """Close all connections."""
        if self.is_made:
            self.engine.dispose()

    def kill(self) -> None:
        """Close the idle connections, and end those that workers use."""
        self._is_killed = True  # first: who connects just now finds out in `_on_connect`
        self.stop()
        while self._open:
            with contextlib.suppress(KeyError, OSError):  # it was closed, or broken, meanwhile
                _, (_, sock) = self._open.popitem()
                with sock:
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def is_made(self) -> bool:
        """Whether there is an engine."""
        return "engine" in self.__dict__

    def forget(self) -> None:
        """In a forked child: let go of the connections, without a word to the database."""
        # A driver may say goodbye when its object is freed, and so end the session of the parent.
        # What it writes goes nowhere if its descriptor leads nowhere.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for connection, sock in list(self._open.values()):
            sock.close()
            with contextlib.suppress(Exception):  # closed already
                os.dup2(nowhere, connection.fileno(), inheritable=False)
        os.close(nowhere)
        self._open.clear()
        self.engine.dispose(close=False)

    def _read_url(self) -> sqlalchemy.URL:
        url = self._url or self.container.config.get(self._key)
        if not url:
            raise ConfigurationError(
                f"no database is named: set {self._key}, as in postgresql://user@host/database"
            )
        try:
            return sqlalchemy.make_url(url)
        except exc.ArgumentError as error:  # whose text has no password, as the URL may
            raise ConfigurationError(f"{self._key} is no URL of a database: {error}") from error

    def _complete_options(self) -> dict[str, Any]:
        options = dict(self._options)
        if "poolclass" in options or "pool" in options:
            return options
        url = self._read_url()
        if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
            raise ConfigurationError(
                "each connection to an SQLite database in memory has a database of its own: use a"
                " file, or give a poolclass"
            )
        # As many as are used at once stay open; a worker never waits for another one's connection.
        workers = self.container.max_workers
        options.setdefault("pool_size", workers)
        options.setdefault("max_overflow", workers * (self._connections_per_worker - 1))
        # Or the first calls after a restart of the database would fail.
        options.setdefault("pool_pre_ping", True)
        return options

    def _on_connect(self, connection: Any, _record: Any) -> None:
        fileno = getattr(connection, "fileno", None)
        if fileno is not None:
            self._open[id(connection)] = connection, socket.socket(fileno=os.dup(fileno()))
        if self._is_killed:
            self._on_close(connection)
            with contextlib.suppress(Exception):  # nobody else would close it
                connection.close()
            self._check_alive()

    def _on_commit(self, connection: sqlalchemy.Connection) -> None:
        if self._is_killed:
            connection.invalidate()  # which ends the transaction
            self._check_alive()

    def _check_alive(self, *_: Any) -> None:
        if self._is_killed:
            raise ContainerBeingKilled(
                f"the container of {self.container.service_name!r} was killed, and its workers"
                " have no database any more"
            )

    def _on_close(self, connection: Any, _record: Any = None) -> None:
        _, sock = self._open.pop(id(connection), (None, None))
        if sock is not None:
            sock.close()


class _SessionProvider(DependencyProvider):
    """Makes a session for each worker, and ends it."""

    #: How many connections a worker may hold at once through this provider.
    connections_per_worker = 1

    def __init__(
        self,
        url: str | sqlalchemy.URL | None = None,
        *,
        key: str = _URL_KEY,
        **engine_options: Any,
    ) -> None:
        super().__init__()
        self.shared = SharedEngine(url, key, engine_options)
        # Weak, for a worker that was abandoned is never torn down. Each worker's thread touches
        # its own entry alone, in single steps.
        self._sessions: weakref.WeakKeyDictionary[WorkerContext, orm.Session] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def engine(self) -> sqlalchemy.Engine:
        """The engine, once the container has started."""
        return self.shared.engine

    def make_session(self) -> orm.Session:
        """Return a new session; for subclasses that want other options."""
        return orm.Session(self.engine)

    def setup(self) -> None:
        """Make room in the pool."""
        self.shared.add_provider(self.connections_per_worker)

    def worker_result(
        self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        """Commit, or roll back after an error."""
        session = self._sessions[worker_ctx]
        if exc_info is not None:
            session.rollback()
            return
        try:
            session.commit()
        except BaseException:
            session.rollback()
            raise

    def worker_teardown(self, worker_ctx: WorkerContext) -> None:
        """Close the session, and with it whatever a later hook began."""
        self._sessions.pop(worker_ctx).close()

    def _start_session(self, worker_ctx: WorkerContext) -> orm.Session:
        session = self._sessions[worker_ctx] = self.make_session()
        return session


class Session(_SessionProvider):
    """Injects a session: one transaction for the worker, committed if it succeeds.

    Args:
        url: the database; what the configuration has under `key` if None.
        key: the key of the configuration, `DATABASE_URL` if not given.
        engine_options: those of `sqlalchemy.create_engine`.
    """

    def get_dependency(self, worker_ctx: WorkerContext) -> orm.Session:
        """Return the worker's session."""
        return self._start_session(worker_ctx)


class Database(_SessionProvider):
    """Injects a `DatabaseAccess`: a session as `Session` does, and transactions beside it.

    The arguments are those of `Session`.
    """

    connections_per_worker = 2

    def get_dependency(self, worker_ctx: WorkerContext) -> "DatabaseAccess":
        """Return the worker's access."""
        return DatabaseAccess(self, self._start_session(worker_ctx))


class DatabaseAccess:
    """What `Database` injects; for the thread of its worker.

    `session` is committed if the worker succeeds. `engine` is that of the container.
    """

    def __init__(self, provider: Database, session: orm.Session) -> None:
        self._provider = provider
        self.session = session

    @property
    def engine(self) -> sqlalchemy.Engine:
        """The engine."""
        return self._provider.engine

    @contextmanager
    def transaction(self) -> Iterator[orm.Session]:
        """Give a `with` block a session of its own, committed when it ends, whatever follows.

        There is a connection in the pool for one such block in each worker; those of blocks inside
        of blocks may have to be waited for.
        """
        with self._provider.make_session() as session, session.begin():
            yield session


#: All there are, for a forked child.
_engines: "weakref.WeakSet[SharedEngine]" = weakref.WeakSet()


def _forget_all() -> None:
    for shared in list(_engines):
        shared.forget()


os.register_at_fork(after_in_child=_forget_all)
