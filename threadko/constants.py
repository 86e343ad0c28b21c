"""Names that travel or stand in configuration files, under the names that nameko gives them.

The defaults are threadko's where the two differ; `configuration/settings.py` says what each means.
"""

from typing import Final

__all__ = [
    "ACCEPT_CONFIG_KEY",
    "AMQP_SSL_CONFIG_KEY",
    "AMQP_URI_CONFIG_KEY",
    "AUTH_TOKEN_CONTEXT_KEY",
    "CALL_ID_STACK_CONTEXT_KEY",
    "DEFAULT_AMQP_URI",
    "DEFAULT_HEARTBEAT",
    "DEFAULT_MAX_WORKERS",
    "DEFAULT_PARENT_CALLS_TRACKED",
    "DEFAULT_PREFETCH_COUNT",
    "DEFAULT_RETRY_POLICY",
    "DEFAULT_SERIALIZER",
    "DEFAULT_TRANSPORT_OPTIONS",
    "HEADER_PREFIX",
    "HEARTBEAT_CONFIG_KEY",
    "LANGUAGE_CONTEXT_KEY",
    "LOGIN_METHOD_CONFIG_KEY",
    "MAX_WORKERS_CONFIG_KEY",
    "NON_PERSISTENT",
    "PARENT_CALLS_CONFIG_KEY",
    "PERSISTENT",
    "PREFETCH_COUNT_CONFIG_KEY",
    "RPC_EXCHANGE_CONFIG_KEY",
    "SERIALIZERS_CONFIG_KEY",
    "SERIALIZER_CONFIG_KEY",
    "TRANSPORT_OPTIONS_CONFIG_KEY",
    "USER_AGENT_CONTEXT_KEY",
    "USER_ID_CONTEXT_KEY",
    "WEB_SERVER_CONFIG_KEY",
]

ACCEPT_CONFIG_KEY: Final = "ACCEPT"
AMQP_SSL_CONFIG_KEY: Final = "AMQP_SSL"
AMQP_URI_CONFIG_KEY: Final = "AMQP_URI"
HEARTBEAT_CONFIG_KEY: Final = "HEARTBEAT"
LOGIN_METHOD_CONFIG_KEY: Final = "LOGIN_METHOD"
MAX_WORKERS_CONFIG_KEY: Final = "max_workers"
PARENT_CALLS_CONFIG_KEY: Final = "parent_calls_tracked"
PREFETCH_COUNT_CONFIG_KEY: Final = "PREFETCH_COUNT"
RPC_EXCHANGE_CONFIG_KEY: Final = "rpc_exchange"
SERIALIZERS_CONFIG_KEY: Final = "SERIALIZERS"
SERIALIZER_CONFIG_KEY: Final = "serializer"
TRANSPORT_OPTIONS_CONFIG_KEY: Final = "TRANSPORT_OPTIONS"
WEB_SERVER_CONFIG_KEY: Final = "WEB_SERVER_ADDRESS"

DEFAULT_AMQP_URI: Final = "amqp://guest:guest@localhost:5672/"
DEFAULT_HEARTBEAT: Final = 20
DEFAULT_MAX_WORKERS: Final = 10
DEFAULT_PARENT_CALLS_TRACKED: Final = 10
#: For the default number of workers; with another number it is twice that.
DEFAULT_PREFETCH_COUNT: Final = 2 * DEFAULT_MAX_WORKERS
#: How often a message is sent again, at the most, when its connection is lost.
DEFAULT_RETRY_POLICY: Final = {"max_retries": 3}
DEFAULT_SERIALIZER: Final = "json"
#: Known from nameko's configuration, and without effect.
DEFAULT_TRANSPORT_OPTIONS: Final = {
    "max_retries": 3,
    "interval_start": 2,
    "interval_step": 1,
    "interval_max": 5,
}

AUTH_TOKEN_CONTEXT_KEY: Final = "auth_token"
CALL_ID_STACK_CONTEXT_KEY: Final = "call_id_stack"
LANGUAGE_CONTEXT_KEY: Final = "language"
USER_AGENT_CONTEXT_KEY: Final = "user_agent"
USER_ID_CONTEXT_KEY: Final = "user_id"

HEADER_PREFIX: Final = "nameko"

NON_PERSISTENT: Final = 1
PERSISTENT: Final = 2
