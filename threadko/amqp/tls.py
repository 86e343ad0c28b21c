"""TLS towards the broker, from the options that nameko's ``AMQP_SSL`` takes.

Certificates and the broker's name are verified unless an option says otherwise in as many words.
Pure functions, any thread.
"""

import logging
import os
import ssl
from collections.abc import Mapping
from typing import Any

from threadko.exceptions import ConfigurationError

__all__ = ["TlsOptions", "make_context", "read_tls"]

_log = logging.getLogger(__name__)

#: What may be given, beside ``True`` and an ``ssl.SSLContext``.
_FILES = ("ca_certs", "certfile", "keyfile")
_TEXTS = ("ciphers", "keyfile_password", "server_hostname")
_OTHERS = ("cert_reqs", "check_hostname")
#: Taken so that a nameko file may stay as it is: how to handle the socket is pika's affair, and the
#: version is agreed on, 1.2 at the least.
_IGNORED = ("do_handshake_on_connect", "ssl_version", "suppress_ragged_eofs")

TlsOptions = tuple[tuple[str, Any], ...]
"""Checked options, as pairs: comparable, so that equal ones share a connection."""


def read_tls(option: Any) -> TlsOptions | None:
    """Return checked options; None for no TLS.

    Args:
        option: True, a mapping, an ``ssl.SSLContext``, or None or False.

    Raises:
        ConfigurationError: an option is unknown, of the wrong type, or cannot be used; no secret
            is in the text.
    """
    if option is None or option is False:
        return None
    if option is True:
        return ()
    if isinstance(option, ssl.SSLContext):
        return (("context", option),)
    if not isinstance(option, Mapping):
        raise _refuse(f"it must be true, or a mapping of options, not {type(option).__name__}")
    known = (*_FILES, *_TEXTS, *_OTHERS, *_IGNORED)
    unknown = sorted(str(key) for key in option if key not in known)
    if unknown:
        raise _refuse(f"unknown option {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    values = {key: value for key, value in option.items() if value is not None}
    for key in _IGNORED:
        values.pop(key, None)
    for key in (*_FILES, *_TEXTS):
        if key in values:
            values[key] = _read_text(key, values[key])
    if "cert_reqs" in values:
        values["cert_reqs"] = _read_cert_reqs(values["cert_reqs"])
    if "keyfile" in values and "certfile" not in values:
        raise _refuse("keyfile needs a certfile")
    options = tuple(sorted(values.items()))
    make_context(options)  # so that a mistake in it is found at once
    if values.get("cert_reqs") == ssl.CERT_NONE:
        _log.warning("AMQP_SSL: cert_reqs is CERT_NONE, so anybody may pose as the broker")
    return options


def make_context(options: TlsOptions) -> ssl.SSLContext:
    """Return a context; its files are read now, so that renewed certificates are taken up.

    Raises:
        ConfigurationError: a file is missing or is not what it should be.
    """
    values = dict(options)
    if "context" in values:
        context: ssl.SSLContext = values["context"]
        return context
    try:
        return _make_context(values)
    except OSError as error:  # an ssl.SSLError is one too
        names = [f"{key} {values[key]!r}" for key in _FILES if key in values]
        what = error.strerror or type(error).__name__
        raise _refuse(f"{' or '.join(names) or 'ciphers'} cannot be used: {what}") from error


def _make_context(values: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=values.get("ca_certs"))
    if values.get("cert_reqs", ssl.CERT_REQUIRED) != ssl.CERT_REQUIRED:
        context.check_hostname = False
        context.verify_mode = values["cert_reqs"]
    elif "check_hostname" in values:
        context.check_hostname = bool(values["check_hostname"])
    if "certfile" in values:
        context.load_cert_chain(
            values["certfile"], values.get("keyfile"), values.get("keyfile_password")
        )
    if "ciphers" in values:
        context.set_ciphers(values["ciphers"])
    return context


def _read_text(key: str, value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise _refuse(f"{key} must be text, not {type(value).__name__}")


def _read_cert_reqs(value: Any) -> ssl.VerifyMode:
    try:
        if isinstance(value, str):
            return ssl.VerifyMode[value.rpartition(".")[2]]
        if not isinstance(value, bool):
            return ssl.VerifyMode(value)
    except (KeyError, ValueError):
        pass
    raise _refuse("cert_reqs must be CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE")


def _refuse(reason: str) -> ConfigurationError:
    return ConfigurationError(f"AMQP_SSL cannot be used: {reason}")
