"""A service that uses an extension written for nameko, unchanged."""

from threadko.compat import nameko
from threadko.rpc import rpc

nameko.install()  # from here on `import nameko` finds threadko

from nameko_extension import Stopwatch  # noqa: E402 (it imports nameko)


class Runner:
    name = "runner"

    stopwatch = Stopwatch()

    @rpc
    def run(self):
        return self.stopwatch()
