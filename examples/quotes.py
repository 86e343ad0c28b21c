"""A service that others ask for prices."""

from threadko.rpc import rpc


class Quotes:
    name = "quotes"

    @rpc
    def price(self, number):
        return 3 * number
