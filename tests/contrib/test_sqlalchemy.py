"""Sessions for workers, on SQLite, MariaDB and PostgreSQL."""

import gc
import os
import queue
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import ClassVar

import pytest
import sqlalchemy
from sqlalchemy import orm, pool

from tests.containers.dummies import Gate, dummy
from tests.support.servers import find_mysql, find_postgres
from tests.support.timing import TIMEOUT
from threadko.containers import ServiceContainer
from threadko.contrib.sqlalchemy import Database, Session, SharedEngine
from threadko.exceptions import ConfigurationError, ContainerBeingKilled, RemoteError
from threadko.extensions import DependencyProvider
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient

ROOT = Path(__file__).parents[2]

DRIVERS = {"mysqlclient": "mysql+mysqldb", "psycopg2": "postgresql+psycopg2"}


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("mysqlclient", marks=pytest.mark.drivers),
        pytest.param("psycopg2", marks=pytest.mark.drivers),
    ]
)
def url(request, tmp_path):
    """The URL of a database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/database"
    found = find_mysql() if request.param == "mysqlclient" else find_postgres()
    return sqlalchemy.make_url(found).set(drivername=DRIVERS[request.param])


class Books:
    """A table of unique titles, and the class of its rows."""

    def __init__(self, url):
        class Base(orm.DeclarativeBase):
            """Each test has a table of its own."""

        class Book(Base):
            __tablename__ = f"books_{uuid.uuid4().hex[:12]}"
            __table_args__: ClassVar = {"mysql_engine": "InnoDB"}
            id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
            title = sqlalchemy.Column(sqlalchemy.String(50), unique=True)

        self.Book = Book
        self.metadata = Base.metadata
        self.engine = sqlalchemy.create_engine(url, poolclass=pool.NullPool)

    @property
    def titles(self):
        """What others see."""
        with self.engine.connect() as connection:
            return sorted(connection.scalars(sqlalchemy.select(self.Book.__table__.c.title)))


@pytest.fixture
def books(url):
    """A table, gone after the test."""
    made = Books(url)
    made.metadata.create_all(made.engine)
    yield made
    made.metadata.drop_all(made.engine)


@pytest.fixture
def serve(container_factory, amqp_config):
    """Start a service, `serve(cls, **config)`; returns its container and a client."""
    clients = []

    def serve(service_cls, **config):
        container = container_factory(service_cls, config={**amqp_config, **config})
        container.start()
        client = ServiceRpcClient(service_cls.name, config=amqp_config, timeout=TIMEOUT)
        clients.append(client)
        return container, client.start()

    yield serve
    for client in clients:
        client.stop()


@pytest.fixture
def shelf(url, books, names):
    """A service that puts books on a shelf, and can be made to fail afterwards."""

    class Shelf:
        name = names.service("shelf")
        session = Session(url)

        @rpc
        def put(self, *titles):
            self.session.add_all(books.Book(title=title) for title in titles)
            return len(titles)

        @rpc(expected_exceptions=LookupError)
        def put_and_fail(self, title):
            self.session.add(books.Book(title=title))
            self.session.flush()
            raise LookupError(title)

        @rpc
        def count(self):
            return self.session.scalar(sqlalchemy.select(sqlalchemy.func.count(books.Book.id)))

    return Shelf


def wait_idle(container):
    """Wait until no worker holds a connection."""
    (engine,) = {each.engine for each in container.subextensions if isinstance(each, SharedEngine)}
    end = threading.Event()
    for _ in range(int(TIMEOUT / 0.01)):
        if engine.pool.checkedout() == 0:
            return engine
        end.wait(0.01)
    raise AssertionError(f"{engine.pool.checkedout()} connections are not given back")


def test_session_is_committed_before_the_caller_has_the_answer(serve, shelf, books):
    container, client = serve(shelf)
    assert client.put("Emma", "Ulysses") == 2
    assert books.titles == ["Emma", "Ulysses"]
    assert client.count() == 2
    wait_idle(container)


def test_session_is_rolled_back_after_an_error(serve, shelf, books):
    container, client = serve(shelf)
    with pytest.raises(RemoteError, match="LookupError Emma"):
        client.put_and_fail("Emma")
    wait_idle(container)
    assert books.titles == []
    assert client.put("Emma") == 1  # the connection is as good as new


def test_failed_commit_is_the_error_of_the_caller(serve, shelf, books):
    container, client = serve(shelf)
    client.put("Emma")
    with pytest.raises(RemoteError, match="IntegrityError"):
        client.put("Emma")
    wait_idle(container)
    assert client.put("Ulysses") == 1
    assert books.titles == ["Emma", "Ulysses"]


def test_failed_commit_leaves_nothing_of_a_worker_whose_constraint_is_deferred(serve, shelf, books):
    """The error comes with COMMIT alone where the database checks so late."""
    container, client = serve(shelf)
    engine = wait_idle(container)

    @sqlalchemy.event.listens_for(engine, "commit")
    def fail(_connection):
        raise ConnectionError("the commit is lost")

    with pytest.raises(RemoteError, match="ConnectionError the commit is lost"):
        client.put("Emma")
    sqlalchemy.event.remove(engine, "commit", fail)
    wait_idle(container)
    assert books.titles == []


def test_error_of_another_dependency_comes_too_late_for_a_rollback(serve, url, books, names):
    class Failing(DependencyProvider):
        def worker_result(self, worker_ctx, result=None, exc_info=None):
            raise LookupError("afterwards")

    class Service:
        name = names.service("shelf")
        session = Session(url)
        failing = Failing()

        @rpc
        def put(self, title):
            self.session.add(books.Book(title=title))

    _, client = serve(Service)
    with pytest.raises(RemoteError, match="afterwards"):
        client.put("Emma")
    assert books.titles == ["Emma"]


def test_transaction_is_committed_whatever_becomes_of_the_worker(serve, url, books, names):
    class Service:
        name = names.service("shelf")
        database = Database(url)

        @rpc
        def put_and_fail(self):
            # Not both at once: SQLite has one writer.
            with self.database.transaction() as session:
                session.add(books.Book(title="kept"))
            self.database.session.add(books.Book(title="lost"))
            self.database.session.flush()
            raise LookupError

        @rpc
        def fail_inside(self):
            with self.database.transaction() as session:
                session.add(books.Book(title="lost"))
                session.flush()
                raise LookupError

        @rpc
        def put(self):
            self.database.session.add(books.Book(title="put"))
            return self.database.engine.dialect.name

    container, client = serve(Service)
    for method in (client.put_and_fail, client.fail_inside):
        with pytest.raises(RemoteError, match="LookupError"):
            method()
    assert books.titles == ["kept"]
    assert client.put() == wait_idle(container).dialect.name
    assert books.titles == ["kept", "put"]


def test_each_worker_has_a_session_and_all_have_a_connection_at_once(serve, url, books, names):
    together = threading.Barrier(3)
    sessions = []

    class Service:
        name = names.service("shelf")
        session = Session(url)

        @rpc
        def meet(self):
            self.session.scalar(sqlalchemy.select(sqlalchemy.func.count(books.Book.id)))
            sessions.append(self.session)
            together.wait(TIMEOUT)
            return self.session.get_bind().pool.checkedout()

    container, client = serve(Service, max_workers=3)
    for _ in range(3):
        calls = [client.meet.call_async() for _ in range(3)]
        assert max(call.result(TIMEOUT) for call in calls) <= 3
    assert len(set(map(id, sessions))) == 9
    engine = wait_idle(container)
    assert engine.pool.size() == 3
    assert engine.pool.checkedin() == 3
    assert engine.pool._max_overflow == 0
    container.stop()
    assert engine.pool.checkedin() == 0


def test_providers_of_one_database_share_an_engine_with_room_for_all(container_factory, tmp_path):
    class Service:
        name = "service"
        session = Session(f"sqlite:///{tmp_path}/one")
        database = Database(f"sqlite:///{tmp_path}/one")
        other = Session(f"sqlite:///{tmp_path}/two", pool_size=1, max_overflow=5)
        named = Session()

        @dummy
        def method(self):
            """Do nothing."""

    config = {"max_workers": 4, "DATABASE_URL": f"sqlite:///{tmp_path}/three"}
    container = container_factory(Service, config=config)
    container.start()
    session, database, other, named = container.dependencies
    assert session.engine is database.engine
    assert session.engine.pool.size() == 4
    assert session.engine.pool._max_overflow == 8
    assert (other.engine.pool.size(), other.engine.pool._max_overflow) == (1, 5)
    assert named.engine.url.database == f"{tmp_path}/three"
    second = container_factory(Service, config=config)
    second.start()
    assert second.dependencies[0].engine is not session.engine


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (Session(), "no database is named: set DATABASE_URL"),
        (Session(key="SHELF"), "no database is named: set SHELF"),
        (Session("no-url-with-a-secret"), "DATABASE_URL is no URL of a database: Could not parse"),
        (Session("sqlite://"), "use a file, or give a poolclass"),
        (Session("sqlite:///:memory:"), "use a file, or give a poolclass"),
        (Session("ingres://host/shelf"), "'ingres' or its options cannot be used"),
        (Session("mysql+oursql://host/shelf"), "'mysql\\+oursql' or its options cannot be used"),
        (Session("mssql+pymssql://host/shelf"), "no driver for 'mssql\\+pymssql' is installed"),
        (Session("sqlite:///file", no_option=1), "'sqlite' or its options cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(session, message):
    class Service:
        name = "service"
        database = session

        @dummy
        def method(self):
            """Do nothing."""

    container = ServiceContainer(Service, config={})
    with pytest.raises(ConfigurationError, match=message) as caught:
        container.start()
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_database_in_memory_is_used_through_one_connection(serve, names):
    class Service:
        name = names.service("shelf")
        # Used by any worker's thread, and closed by yet another.
        session = Session(
            "sqlite://", poolclass=pool.StaticPool, connect_args={"check_same_thread": False}
        )

        @rpc
        def ask(self):
            return self.session.scalar(sqlalchemy.text("select 42"))

    _, client = serve(Service)
    assert client.ask() == 42


def test_abandoned_worker_commits_nothing_and_holds_no_lock(serve, url, books, names):
    gate = Gate()
    errors = queue.SimpleQueue()

    class Service:
        name = names.service("shelf")
        session = Session(url)
        database = Database(url)

        @rpc
        def put(self, title):
            self.session.add(books.Book(title=title))
            self.session.flush()
            gate.hold()
            for commit in (self.session.commit, self.commit_anew):
                try:
                    commit()
                except Exception as error:
                    errors.put(type(error).__name__)
                else:
                    errors.put("none")

        def commit_anew(self):
            with self.database.transaction() as session:
                session.add(books.Book(title="anew"))

    container, client = serve(Service)
    client.put.call_async("Emma")
    gate.wait_reached()
    provider = container.dependencies[0]
    container.kill()
    if provider.engine.dialect.name != "sqlite":
        # Waits for whoever has a lock on the table.
        books.metadata.drop_all(books.engine)
        books.metadata.create_all(books.engine)
    gate.released.set()
    assert errors.get(timeout=TIMEOUT) in ("ContainerBeingKilled", "OperationalError")
    assert errors.get(timeout=TIMEOUT) == "ContainerBeingKilled"
    assert books.titles == []
    ended = threading.Event()
    for _ in range(int(TIMEOUT / 0.01)):
        gc.collect()
        if not provider._sessions:
            break
        ended.wait(0.01)
    assert not provider._sessions
    assert not provider.shared._open


def test_connection_that_is_made_while_the_container_is_killed_is_refused(
    serve, url, names, container_factory
):
    class Service:
        name = names.service("shelf")
        database = Database(url)

        @rpc
        def method(self):
            """Do nothing."""

    container, _ = serve(Service)
    (provider,) = container.dependencies

    @sqlalchemy.event.listens_for(provider.engine, "do_connect")
    def kill(*_):
        container.kill()

    with pytest.raises(ContainerBeingKilled, match="have no database any more"):
        provider.engine.connect()


@pytest.mark.drivers
@pytest.mark.parametrize("find", [find_mysql, find_postgres])
def test_kill_wakes_a_worker_that_waits_for_its_database(find, serve, names):
    begun, woken = threading.Event(), threading.Event()
    url = sqlalchemy.make_url(find())
    url = url.set(drivername=DRIVERS["mysqlclient" if find is find_mysql else "psycopg2"])
    sleep = "select sleep(600)" if find is find_mysql else "select pg_sleep(600)"

    class Service:
        name = names.service("sleeper")
        session = Session(url)

        @rpc
        def sleep(self):
            self.session.connection()
            begun.set()
            try:
                self.session.execute(sqlalchemy.text(sleep))
            finally:
                woken.set()

    container, client = serve(Service)
    client.sleep.call_async()
    assert begun.wait(TIMEOUT)
    container.kill()
    assert woken.wait(TIMEOUT)


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)"])
def test_fork_leaves_the_connections_of_its_parent_alone(end, url, books, tmp_path):
    """In a process of its own: a driver says goodbye when the interpreter frees its objects."""
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    script = tmp_path / "host.py"
    script.write_text(FORKING.format(url=text, end=end))
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )
    lines = [line for line in ended.stdout.splitlines() if line != "child"]
    assert lines == ["busy 1", "idle 1", "same True"], (ended.stdout, ended.stderr)
    assert ended.stdout.splitlines().count("child") == 1, ended.stderr
    assert ended.returncode == 0, ended.stderr


#: One connection is in use, and one idle, when the process is forked.
FORKING = """
import gc, os, sys
import sqlalchemy
from threadko.containers import ServiceContainer
from threadko.contrib.sqlalchemy import Database
from threadko.extensions import Entrypoint

class Service:
    name = "service"
    database = Database({url!r}, pool_pre_ping=False)

    @Entrypoint.decorator
    def method(self):
        pass

container = ServiceContainer(Service, config={{}})
container.start()
engine = container.dependencies[0].engine
one = sqlalchemy.text("select 1")
idle = engine.connect()
idle.scalar(one)
busy = engine.connect()
busy.scalar(one)
known = idle.connection.dbapi_connection
idle.close()
child = os.fork()
if child == 0:
    with engine.connect() as connection:  # a new one
        assert connection.connection.dbapi_connection is not known
        print("child" if connection.scalar(one) == 1 else "wrong", flush=True)
    del connection, busy, idle, known, engine, container, Service
    gc.collect()
    {end}
os.waitpid(child, 0)
print("busy", busy.scalar(one))
with engine.connect() as connection:
    print("idle", connection.scalar(one))
    print("same", connection.connection.dbapi_connection is known)
"""


def test_missing_library_is_said_in_one_line(tmp_path):
    (tmp_path / "sqlalchemy.py").write_text("raise ImportError('none')")
    ended = subprocess.run(
        [sys.executable, "-c", "import threadko.contrib.sqlalchemy"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: threadko.contrib.sqlalchemy needs SQLAlchemy: pip install"
        " 'threadko[sqlalchemy]'"
    )
