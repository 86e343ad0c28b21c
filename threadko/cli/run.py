"""`threadko run`."""

import logging
import os
import re
import signal
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType

import click

from threadko import logs
from threadko.cli.backdoor import Backdoor, read_address
from threadko.cli.child import Child
from threadko.cli.dev import DevProcess, advising
from threadko.cli.inbox import handling_signals
from threadko.cli.options import (
    ExitCode,
    configuration_options,
    debug_option,
    load_config,
    own_command,
)
from threadko.cli.process import Shell
from threadko.cli.services import (
    complete_services,
    find_source_folders,
    import_services,
    put_first_on_path,
)
from threadko.cli.stacks import dumping_early, format_stacks
from threadko.cli.supervisor import Supervisor
from threadko.configuration import config
from threadko.configuration.keys import warn_near_misses
from threadko.configuration.settings import BrokerSettings, HealthSettings, ProcessSettings
from threadko.configuration.sources import ENVIRONMENT_PREFIX
from threadko.containers import ServiceContainer
from threadko.health import HealthServer, find_hangs, find_troubles
from threadko.runners import ServiceRunner
from threadko.timer import Timer
from threadko.utils.redaction import sanitize_url
from threadko.web.addresses import BindAddress, open_doors_by

__all__ = ["run"]

_log = logging.getLogger(__name__)

_HANDLER = "_request_handler"
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


class _LeftEarly(BaseException):
    """A signal came before anything ran. No Exception, so that no module swallows it."""


class _LeaveEarly:
    """Handles signals by leaving, and remembers that: a bare ``except:`` swallows even this."""

    def __init__(self) -> None:
        self.heard = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        raise _LeftEarly(signal.Signals(number).name)

    def check(self) -> None:
        if self.heard:
            raise _LeftEarly


@click.command()
@click.argument(
    "services",
    metavar="MODULE[:CLASS]...",
    nargs=-1,
    required=True,
    shell_complete=complete_services,
)
@configuration_options
@click.option(
    "--dev",
    is_flag=True,
    help="Start a development broker where AMQP_URI says, if none is there; implies --reload.",
)
@click.option("--reload", is_flag=True, help="Start again when source files change.")
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Run so many processes; one that fails is started again.",
)
@click.option(
    "--backdoor-port",
    "--backdoor",  # nameko 2 took beginnings of names, and this one is in many a script
    "backdoor",
    metavar="[HOST:]PORT",
    callback=read_address,
    help="Open a Python prompt into the process there, for this machine alone; process N of"
    " several has it N ports further on.",
)
@click.option("--as-child", type=int, hidden=True)
@debug_option
def run(
    services: tuple[str, ...],
    path: str | None,
    defines: tuple[str, ...],
    broker: str | None,
    dev: bool,
    reload: bool,
    processes: int | None,
    backdoor: BindAddress | None,
    as_child: int | None,
) -> int:
    """Run the services in MODULE, or the one in CLASS, until a signal stops them.

    The current folder comes first where modules are looked for. SIGTERM and SIGINT let running
    calls finish, a second one does not; SIGHUP, when the terminal is closed, does as the first.
    SIGUSR1 logs what every thread is doing. Each key of the configuration can also be given as
    THREADKO_<KEY> in the environment.

    \b
    Examples:
      threadko run --dev helloworld
      threadko run -c config.yaml shop.orders shop.prices:PriceService
      threadko run -d AMQP_URI=amqp://user:password@host/vhost --processes 4 shop.orders

    \b
    Exit codes:
      0    stopped, as asked
      1    a service failed
      2    the command or the configuration is wrong
      3    the broker refused us, or did not come in time
      4    not all had ended within SHUTDOWN_TIMEOUT, and was killed
      130  killed by a second or third signal
    """
    code: int = ExitCode.STOPPED
    leave_early = _LeaveEarly()
    try:
        with handling_signals(leave_early), dumping_early():
            child = None if as_child is None else Child(as_child)
            if child is not None:
                child.start()
            config.setup(load_config(path, defines, broker).values)
            settings = ProcessSettings.from_config(config)
            logs.configure(settings.logging, settings.log_format, shows_process=child is not None)
            if child is None:
                warn_near_misses(config)
                warn_near_misses(os.environ, ENVIRONMENT_PREFIX)
            leave_early.check()
            if child is None and (dev or reload or processes is not None):
                options = [f"-d{define}" for define in defines]
                options += [] if path is None else [f"-c{path}"]
                options += [] if broker is None else [f"--broker={broker}"]
                options += ["--debug"] if click.get_current_context().params.get("debug") else []
                count = processes or 1
                supervisor = Supervisor(
                    [*own_command(), "run", *options, *services],
                    count,
                    shutdown_timeout=settings.shutdown_timeout,
                    reload=dev or reload,
                    files=[] if path is None else [path],
                    adapt=partial(_make_own_options, backdoor, count),
                )
                code = _supervise(supervisor, dev, leave_early)
            else:
                code = _serve(services, settings, backdoor, child, leave_early)
    except _LeftEarly:
        _log.info("stopped before anything ran")
    return code


def _make_own_options(backdoor: BindAddress | None, count: int, number: int) -> list[str]:
    """Return the options that one child of so many has alone."""
    if backdoor is None:
        return []
    port = backdoor.port + (number if count > 1 else 0)
    return [f"--backdoor-port={BindAddress(backdoor.address, port)}"]


def _supervise(supervisor: Supervisor, dev: bool, leave_early: _LeaveEarly) -> int:
    with ExitStack() as stack:
        if dev:
            stack.enter_context(DevProcess(BrokerSettings.from_config(config).uri))
        health = HealthSettings.from_config(config)
        if health.address is not None:
            server = HealthServer(
                health.address, live=supervisor.find_hangs, ready=supervisor.find_troubles
            )
            _serve_health(server, stack)
        leave_early.check()
        return supervisor.run_with_signals()


def _serve(
    services: tuple[str, ...],
    settings: ProcessSettings,
    backdoor: BindAddress | None,
    child: Child | None,
    leave_early: _LeaveEarly,
) -> int:
    runner = _make_runner(services, child)
    health = HealthSettings.from_config(config)
    live = partial(find_hangs, runner.containers, hung_timeout=health.hung_timeout)
    ready = partial(find_troubles, runner.containers)
    shell = Shell(
        runner,
        on_ready=(lambda: None) if child is None else child.tell_ready,
        dump=lambda: _log.warning(
            "stacks of all threads, for SIGUSR1:\n%s", format_stacks(runner.containers)
        ),
    )
    sys.setswitchinterval(settings.switch_interval)
    with ExitStack() as stack:
        if child is not None:
            child.answer_with({"live": live, "ready": ready})
            open_doors_by(child.open_door)
        elif health.address is not None:
            _serve_health(HealthServer(health.address, live=live, ready=ready), stack)
        if backdoor is not None:
            stack.enter_context(Backdoor(backdoor, {"runner": runner}))
        stack.enter_context(advising(BrokerSettings.from_config(config).uri))
        leave_early.check()
        if child is not None:
            child.hear_with(shell.signal)
        return shell.run_with_signals()


def _serve_health(server: HealthServer, stack: ExitStack) -> None:
    server.start()
    stack.callback(server.close)
    _log.info("health: /live and /ready at %s", server.address)


def _make_runner(services: tuple[str, ...], child: Child | None) -> ServiceRunner:
    put_first_on_path(str(Path.cwd()))
    succeeded = False
    try:
        classes = import_services(services)
        runner = ServiceRunner()
        for cls in classes:
            runner.add_service(cls)
        succeeded = True
    finally:
        if child is not None:
            child.tell_imported(find_source_folders(sys.exc_info()[1]), succeeded=succeeded)
    if child is None or child.number == 1:
        _summarise(runner, 1 if child is None else child.count)
    return runner


def _summarise(runner: ServiceRunner, processes: int) -> None:
    """Log what is started, for a person to read."""
    uri = sanitize_url(BrokerSettings.from_config(config).uri)
    times = "" if processes == 1 else f", {processes} processes"
    _log.info("starting services: %s (broker %s%s)", ", ".join(runner.service_names), uri, times)
    for container in runner.containers:
        name = container.service_name
        entrypoints = _describe_entrypoints(container)
        _log.info("service %s: %d workers; %s", name, container.max_workers, entrypoints)
        multiplied = _find_multiplied(container) if processes > 1 else []
        if multiplied:
            what = "service %s: each of the %d processes has its own %s"
            _log.warning(what, name, processes, " and ".join(multiplied))


def _describe_entrypoints(container: ServiceContainer) -> str:
    """Return kinds of entrypoints and their methods: `rpc: hello, bye; timer: tick`."""
    methods: dict[str, list[str]] = {}
    for entrypoint in container.entrypoints:
        kind = _CAPITAL.sub("_", type(entrypoint).__name__).lower().removesuffix(_HANDLER)
        methods.setdefault(kind, []).append(entrypoint.method_name)
    parts = (f"{kind}: {', '.join(dict.fromkeys(names))}" for kind, names in methods.items())
    return "; ".join(parts) or "no entrypoints"


def _find_multiplied(container: ServiceContainer) -> list[str]:
    """Return what exists once in each process, though it may be meant to exist once in all."""
    timers = [each.method_name for each in container.entrypoints if isinstance(each, Timer)]
    found = [f"timers ({', '.join(timers)})"] if timers else []
    # Looked up: whoever has none need not load what it stands on.
    websocket = sys.modules.get("threadko.web.websocket")
    if websocket and any(
        isinstance(each, websocket.WebSocketServer) for each in container.extensions
    ):
        found.append("websockets, whose hub reaches those of its process alone")
    return found
