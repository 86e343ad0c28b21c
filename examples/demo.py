"""What `make demo` shows: services on a development broker, called from another process.

The broker is its own, on a free port, whatever else there is.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

from threadko.exceptions import ThreadkoError
from threadko.standalone.rpc import ClusterRpcClient

FOLDER = Path(__file__).parent

SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


def main():
    uri = f"amqp://guest:guest@127.0.0.1:{find_port()}/"
    command = ["threadko", "run", "--dev", "-d", f"AMQP_URI={uri}"]
    address = f"127.0.0.1:{find_port()}"
    command += ["-d", f"WEB_SERVER_ADDRESS={address}", "helloworld", "rpc", "events", "web"]
    print("$ threadko run --dev helloworld rpc events web")
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=FOLDER,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # Whatever goes wrong, a demonstration ends.
        watchdog = threading.Timer(SECONDS_TO_START, process.kill)
        watchdog.start()
        is_ready = wait_ready(process.stderr)
        watchdog.cancel()
        if not is_ready:
            return process.wait() or 1
        rest = threading.Thread(target=show, args=(process.stderr,))
        rest.start()
        watchdog = threading.Timer(SECONDS_TO_START, process.kill)
        watchdog.start()
        call_services(uri)
        sell_something(uri, process.stdout)
        browse(f"http://{address}")
        watchdog.cancel()
        print("\n$ kill -TERM")
        process.send_signal(signal.SIGTERM)
        code = process.wait(SECONDS_TO_STOP)
        rest.join()
    finally:
        process.kill()
        process.wait()
    print(f"exit code {code}")
    return code


def find_port():
    """Return a port that nobody listens on; a broker that runs here is left alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(log):
    """Show the log of the services until they say that they are ready."""
    for line in log:
        print(f"  {line}", end="", flush=True)
        if "services ready" in line:
            return True
    return False


def show(log):
    for line in log:
        print(f"  {line}", end="", flush=True)


def call_services(uri):
    print()
    with ClusterRpcClient(uri=uri, timeout=10) as client:
        ask(client, "greeting_service", "hello", "Ada")
        ask(client, "service_x", "remote_method", "value")
        ask(client, "greeting_service", "goodbye")
        ask(client, "greeting_service", "hello", "one", "too many")

        count = 100
        calls = [client.greeting_service.hello.call_async(str(n)) for n in range(count)]
        answers = [call.result() for call in calls]
        right = sum(answer == f"Hello, {n}!" for n, answer in enumerate(answers))
        print(f"{count} calls at once: {right} right answers")


def sell_something(uri, output):
    """Have a service dispatch an event, and show what those who handle it print."""
    print()
    with ClusterRpcClient(uri=uri, timeout=10) as client:
        ask(client, "shop", "sell", "piano")
    handled = set()
    while not {"packed piano", "counted piano", "shown piano"} <= handled:
        line = output.readline()
        if not line:
            raise SystemExit("the services have ended")
        print(f"  {line}", end="")
        handled.add(line.strip())


def browse(address):
    """Send two requests over HTTP."""
    print()
    with urllib.request.urlopen(f"{address}/get/42", timeout=10) as answer:
        print(f"GET /get/42 -> {answer.status} {answer.read().decode()}")
    with urllib.request.urlopen(f"{address}/post", data=b"a letter", timeout=10) as answer:
        print(f"POST /post -> {answer.status} {answer.read().decode()}")


def ask(client, service, method, *args):
    asked = f"{service}.{method}({', '.join(map(repr, args))})"
    try:
        print(f"{asked} -> {client[service][method](*args)!r}")
    except ThreadkoError as error:
        print(f"{asked} raises {type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
