"""All that one test has of the kit, whichever runner runs it: pytest's fixtures and the methods of
`ServiceTestCase` are thin shells around this.

A scope belongs to the thread of its test. Order of ending: what the test made is killed, last made
first; the connections end on which programs without services have published, which nobody has to
close; what is left beside that is reported; then the brokers go, when nothing is there any more
that would try to find them again.
"""

from collections.abc import Callable
from contextlib import ExitStack

from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.shared import end_links
from threadko.testing.brokers import BrokerSource, FreshBroker
from threadko.testing.factories import ContainerFactory, RunnerFactory
from threadko.testing.leftovers import Leftovers

__all__ = ["Scope"]


class Scope:
    """The life of one test.

    Args:
        get_source: returns the source of brokers; called when the test asks for one.
        amqp_uri: the broker of containers that are configured with none; none by itself if None.
    """

    def __init__(self, get_source: Callable[[], BrokerSource], amqp_uri: str | None = None) -> None:
        self._get_source = get_source
        self._amqp_uri = amqp_uri
        self._leftovers = Leftovers()
        self._brokers = ExitStack()
        self._fresh: list[FreshBroker] = []
        self._lives = ExitStack()

    def get_broker(self) -> FreshBroker:
        """Return the broker of this test, which is as good as new when it is first asked for."""
        if not self._fresh:
            self._fresh.append(self._brokers.enter_context(self._get_source().fresh()))
        return self._fresh[0]

    def make_container_factory(self) -> ContainerFactory:
        """Return a factory of containers, which are killed at the end."""
        return self._lives.enter_context(ContainerFactory(self._amqp_uri))

    def make_runner_factory(self) -> RunnerFactory:
        """Return a factory of runners, which are killed at the end."""
        return self._lives.enter_context(RunnerFactory(self._amqp_uri))

    def close(self) -> None:
        """End all of it.

        Warns:
            LeftoverWarning: something was left running beside what the scope has made.
        """
        with self._brokers:
            try:
                self._lives.close()
            finally:
                killed = self._leftovers.end_containers()
                self._end_links()
                connections = self._fresh[0].list_connections if self._fresh else None
                self._leftovers.report(killed, connections)

    def _end_links(self) -> None:
        """End the connections of publishers, which may live on: in a fixture's value, say."""
        for broker in self._fresh:
            parameters = BrokerParameters.from_uri(broker.uri)
            end_links(parameters.host, parameters.virtual_host)
