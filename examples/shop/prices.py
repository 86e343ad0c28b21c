from threadko.rpc import rpc

PRICES = {"piano": 4800, "flute": 650}


class PriceService:
    name = "prices"

    @rpc(expected_exceptions=KeyError)
    def get(self, item):
        return PRICES[item]
