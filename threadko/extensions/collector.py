"""Collecting providers: an extension that serves others, and outlives the last of them.

All methods may be called by any thread.
"""

import threading
from typing import Any

from threadko.concurrency.deadline import Deadline

__all__ = ["ProviderCollector"]


class ProviderCollector:
    """A mixin for extensions with which others register.

    Name it before the extension class, as in `class Server(ProviderCollector, SharedExtension)`:
    its `stop()` waits until all have unregistered, its `kill()` ends such a wait.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._changed = threading.Condition()  # guards _providers and _waiting_is_over
        # Not a set, since the order of registration is the order of asking them.
        self._providers: dict[Any, None] = {}
        self._waiting_is_over = False
        super().__init__(*args, **kwargs)

    @property
    def providers(self) -> tuple[Any, ...]:
        """Those that are registered, in the order in which they did."""
        return tuple(self._providers)

    def register_provider(self, provider: Any) -> None:
        """Add a provider, which keeps this extension from ending."""
        with self._changed:
            self._providers = {**self._providers, provider: None}

    def unregister_provider(self, provider: Any) -> None:
        """Remove a provider; nothing happens if it is not registered."""
        with self._changed:
            # Copied, so that whoever goes through the providers meanwhile needs no lock.
            self._providers = {key: None for key in self._providers if key != provider}
            self._changed.notify_all()

    def wait_for_providers(self, timeout: float | None = None) -> None:
        """Wait until no provider is registered, which at first is so.

        Raises:
            TimeoutError: there still are some after `timeout` seconds.
        """
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._waiting_is_over or not self._providers, Deadline(timeout).remaining()
            )
        if not done:
            raise TimeoutError(f"{len(self._providers)} providers still registered with {self!r}")

    def stop(self) -> None:
        """Wait until no provider is registered."""
        self.wait_for_providers()

    def kill(self) -> None:
        """Let everyone who waits for providers go on."""
        with self._changed:
            self._waiting_is_over = True
            self._changed.notify_all()
