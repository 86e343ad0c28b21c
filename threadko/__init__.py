"""Microservices on standard CPython threads, in the shape of nameko and on its wire."""

from threadko.configuration import config

__all__ = ["config"]

__version__ = "0.1.0"
