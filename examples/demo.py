"""What `make demo` shows: two services in one process, called from another, then stopped."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from threadko.exceptions import ThreadkoError
from threadko.standalone.rpc import ClusterRpcClient

FOLDER = Path(__file__).parent
URI = os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")
SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


def main():
    command = ["threadko", "run", "-d", f"AMQP_URI={URI}", "helloworld", "rpc"]
    print("$ threadko run helloworld rpc")
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=FOLDER,
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
        call_services()
        print("\n$ kill -TERM")
        process.send_signal(signal.SIGTERM)
        code = process.wait(SECONDS_TO_STOP)
        rest.join()
    finally:
        process.kill()
        process.wait()
    print(f"exit code {code}")
    return code


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


def call_services():
    print()
    with ClusterRpcClient(uri=URI, timeout=10) as client:
        ask(client, "greeting_service", "hello", "Ada")
        ask(client, "service_x", "remote_method", "value")
        ask(client, "greeting_service", "goodbye")
        ask(client, "greeting_service", "hello", "one", "too many")

        count = 100
        calls = [client.greeting_service.hello.call_async(str(n)) for n in range(count)]
        answers = [call.result() for call in calls]
        right = sum(answer == f"Hello, {n}!" for n, answer in enumerate(answers))
        print(f"{count} calls at once: {right} right answers")


def ask(client, service, method, *args):
    asked = f"{service}.{method}({', '.join(map(repr, args))})"
    try:
        print(f"{asked} -> {client[service][method](*args)!r}")
    except ThreadkoError as error:
        print(f"{asked} raises {type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
