"""A service that keeps its orders in a database: one transaction for each call."""

import sqlalchemy
from sqlalchemy import orm

from threadko.contrib.sqlalchemy import Session
from threadko.rpc import rpc


class Base(orm.DeclarativeBase):
    """The tables of this service."""


class Order(Base):
    __tablename__ = "orders"

    number: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    item: orm.Mapped[str] = orm.mapped_column(sqlalchemy.String(100))
    amount: orm.Mapped[int]


class TooLittleError(ValueError):
    """An order over nothing."""


class OrderBook:
    name = "order_book"

    session = Session()  # of the database that DATABASE_URL names

    @rpc(expected_exceptions=TooLittleError)
    def order(self, item, amounts):
        """Order one item several times, or not at all."""
        for amount in amounts:
            if amount < 1:
                raise TooLittleError(amount)  # undoes those before
            self.session.add(Order(item=item, amount=amount))
        self.session.flush()
        return len(amounts)

    @rpc
    def total(self, item):
        amounts = sqlalchemy.select(sqlalchemy.func.sum(Order.amount)).where(Order.item == item)
        return self.session.scalar(amounts) or 0
