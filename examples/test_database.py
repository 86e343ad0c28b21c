"""Tests of database.py: its rules alone, then the service with its broker and its database."""

import os

import pytest
import sqlalchemy
from database import Base, Order, OrderBook, TooLittleError
from sqlalchemy import orm

from threadko.exceptions import RemoteError
from threadko.standalone.rpc import ServiceRpcClient


@pytest.fixture
def url(tmp_path):
    """A database with the tables of the service."""
    url = f"sqlite:///{tmp_path}/orders"
    engine = sqlalchemy.create_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()
    return url


# Without a container: the test puts in what would be injected.


@pytest.fixture
def book(url):
    service = OrderBook()
    engine = sqlalchemy.create_engine(url)
    with orm.Session(engine) as service.session:
        yield service
    engine.dispose()


def test_orders_are_counted(book):
    assert book.order("tea", [1, 2]) == 2
    assert book.total("tea") == 3
    assert book.total("rum") == 0
    assert [order.amount for order in book.session.query(Order)] == [1, 2]


def test_order_over_nothing_is_refused(book):
    with pytest.raises(TooLittleError):
        book.order("tea", [1, 0])


# In a container.


@pytest.fixture
def client(url, container_factory):
    config = {"AMQP_URI": os.environ["AMQP_URI"], "DATABASE_URL": url}
    container_factory(OrderBook, config=config).start()
    with ServiceRpcClient("order_book", config=config, timeout=10) as client:
        yield client


def test_calls_are_committed_or_undone(client):
    assert client.order("tea", [1, 2]) == 2
    with pytest.raises(RemoteError, match="TooLittleError"):
        client.order("tea", [5, 0])
    assert client.total("tea") == 3
