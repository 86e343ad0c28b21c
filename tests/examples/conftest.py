from tests.support.managed import api_port, api_uri, node

__all__ = ["api_port", "api_uri", "node"]
