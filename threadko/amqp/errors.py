"""The driver's errors, translated in one place, and the question whether waiting would help.

A refusal is permanent if the operator must change something first: login, vhost, a permission, a
declaration that contradicts what exists. All else is awaited: a broker that is not there yet, a
limit reached, a queue in exclusive use, a node that is down. Pure functions, any thread.
"""

import re
import ssl
from typing import NamedTuple

import pika.exceptions

from threadko.amqp.parameters import BrokerParameters
from threadko.exceptions import BrokerBlocked, BrokerError, BrokerRefused, ThreadkoError

__all__ = ["is_permanent", "translate"]

#: What to change, by kind of refusal.
_ADVICE = {
    "login": (
        "the broker at {address} refused the login of user {user!r}: "
        "correct user and password in AMQP_URI"
    ),
    "login method": (
        "the broker at {address} does not offer the LOGIN_METHOD {method}: "
        "set one that it has, or enable it there"
    ),
    "certificate": (
        "the certificate of the broker at {address} cannot be trusted: "
        "set ca_certs and server_hostname in AMQP_SSL, or renew the certificate"
    ),
    "tls": (
        "the broker at {address} refused the TLS connection: "
        "correct port, certfile and keyfile in AMQP_URI and AMQP_SSL"
    ),
    "vhost missing": (
        "the broker at {address} has no vhost {vhost!r}: "
        "create it (rabbitmqctl add_vhost), or correct AMQP_URI"
    ),
    "vhost forbidden": (
        "user {user!r} may not use the vhost {vhost!r} of the broker at {address}: "
        "grant it permissions there (rabbitmqctl set_permissions), or correct AMQP_URI"
    ),
    "permission": (
        "user {user!r} lacks a permission in the vhost {vhost!r} of the broker at {address}: "
        "grant it configure, write and read there (rabbitmqctl set_permissions)"
    ),
    "reserved name": "names that begin with 'amq.' belong to the broker: choose another",
    "other arguments": (
        "{entity} exists in the vhost {vhost!r}, declared with other arguments: "
        "delete it, or declare it as it is (for RPC queues: set RPC_QUEUE_ARGUMENTS)"
    ),
    "declaration": "the broker at {address} refused a declaration: correct it",
}

# pika hands a broker's refusal to open a connection on as text: the repr of the first error.
_REPLY_TEXT = re.compile(r"^ConnectionClosedByBroker: \((\d{3})\) (['\"])(.*)\2$", re.DOTALL)

_ENTITY = re.compile(r"for ((?:queue|exchange) '.*?') in vhost")

# A 406 that answers an ack or a message, and no declaration: the next channel is a good one.
_PASSING_406 = ("unknown delivery tag", "timed out", "message size", "larger than")

# What the far side says of our certificate comes with the first bytes; pika makes text of it.
_TLS_ALERT = re.compile(r"SSLError.*_ALERT_")

_LIMIT_REACHED = re.compile(r"limit \(.*\) is reached")


class _Reply(NamedTuple):
    """What the broker said when it closed a channel or the connection."""

    code: int
    text: str


def translate(exc: BaseException, parameters: BrokerParameters) -> ThreadkoError:
    """Return the error of ours for one of the driver's or the system's, which becomes its cause.

    `BrokerRefused` if waiting would not help, its text saying what to change; else a plain
    `BrokerError`. Our own errors are returned as they are.
    """
    if isinstance(exc, ThreadkoError):
        return exc
    origin = _find_origin(exc)
    reply = _find_reply(origin)
    kind = _find_refusal(origin, reply)
    error: BrokerError
    if kind is not None:
        error = BrokerRefused(_advise(kind, reply, parameters, origin))
    elif isinstance(origin, pika.exceptions.ConnectionBlockedTimeout):
        error = BrokerBlocked("the broker is short of memory or disk and accepts no messages")
    else:
        error = BrokerError(_describe(origin, reply))
    error.__cause__ = exc
    return error


def is_permanent(exc: BaseException) -> bool:
    """Tell whether trying again is useless until the operator changes something."""
    if isinstance(exc, ThreadkoError):
        return isinstance(exc, BrokerRefused)
    origin = _find_origin(exc)
    return _find_refusal(origin, _find_reply(origin)) is not None


def _find_origin(exc: BaseException) -> BaseException:
    """Take off the errors that pika's connection workflow wraps around the one that counts."""
    for _ in range(8):  # they are three deep; a circle must not hold the connection thread
        inner = getattr(exc, "exception", None)
        if inner is None:
            inner = (getattr(exc, "exceptions", None) or exc.args or (None,))[-1]
        if not isinstance(inner, BaseException):
            break
        exc = inner
    return exc


def _find_reply(exc: BaseException) -> _Reply | None:
    if isinstance(exc, (pika.exceptions.ConnectionClosed, pika.exceptions.ChannelClosed)):
        return _Reply(exc.reply_code, exc.reply_text)
    if exc.args and isinstance(exc, pika.exceptions.AMQPConnectionError):
        match = _REPLY_TEXT.match(str(exc.args[0]))
        if match is not None:
            return _Reply(int(match[1]), match[3].replace("\\'", "'"))
    return None


def _find_refusal(exc: BaseException, reply: _Reply | None) -> str | None:
    """Name the kind of a permanent refusal; None for everything that may pass."""
    if reply is None:
        # A ProbableAuthenticationError without a reply means only that the connection was lost
        # at that point of the handshake, and the broker may just be restarting.
        if isinstance(exc, pika.exceptions.AuthenticationError):
            return "login method"
        return _find_tls_refusal(exc)
    if isinstance(exc, pika.exceptions.ChannelClosed):
        return _find_channel_refusal(*reply)
    if reply.code == 403:
        return "login"
    if reply.code == 530 and "vhost" in reply.text and not _LIMIT_REACHED.search(reply.text):
        return "vhost missing" if reply.text.endswith("not found") else "vhost forbidden"
    if reply.code == 503 and "unknown exchange type" in reply.text:
        return "declaration"
    return None


def _find_tls_refusal(exc: BaseException) -> str | None:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "certificate"
    # An end in the middle of the handshake may be a broker that is just stopping.
    is_refusal = isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError)
    if is_refusal or _TLS_ALERT.search(" ".join(str(arg) for arg in exc.args)):
        return "tls"
    return None


def _find_channel_refusal(code: int, text: str) -> str | None:
    if code == 403 and not text.endswith("in exclusive use"):
        return "reserved name" if "reserved prefix" in text else "permission"
    if code == 406 and "inequivalent arg" in text:
        return "other arguments"
    if code == 406 and not any(words in text for words in _PASSING_406):
        return "declaration"
    return None


def _advise(
    kind: str, reply: _Reply | None, parameters: BrokerParameters, origin: BaseException
) -> str:
    entity = _ENTITY.search(reply.text) if reply is not None else None
    advice = _ADVICE[kind].format(
        address=f"{parameters.host}:{parameters.port}",
        user=parameters.user,
        vhost=parameters.virtual_host,
        method=parameters.login_method,
        entity=entity[1] if entity else "something",
    )
    if reply is not None:
        return f"{advice} (the broker says: {reply.text})"
    return f"{advice} ({_describe(origin, None)})" if kind in ("certificate", "tls") else advice


def _describe(exc: BaseException, reply: _Reply | None) -> str:
    if reply is not None:
        return f"({reply.code}) {reply.text}"
    # not str(exc): some of pika's classes fail to print without the arguments that they expect
    detail = getattr(exc, "strerror", None) or " ".join(str(arg) for arg in exc.args)
    name = type(exc).__name__
    return f"{name}: {detail}" if detail else name
