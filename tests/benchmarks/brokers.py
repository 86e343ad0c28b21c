"""The development broker beside RabbitMQ, each with one plain pika client."""

import subprocess
import sys
import time

import pika

__all__ = ["describe_brokers"]

_BODY = b"x" * 100


def describe_brokers(uri: str, seconds: float) -> str:
    """Measure both brokers for so many seconds each, and return what is to be said."""
    command = [sys.executable, "-m", "threadko", "broker", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    own = process.stdout.readline().removeprefix("broker at ").strip()
    try:
        lines = [
            f"{name}: {confirmed(each, seconds / 2):,.0f} confirmed one by one,"
            f" {through(each, seconds / 2):,.0f} published and consumed, a second"
            for name, each in (("RabbitMQ", uri), ("development broker", own))
        ]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
    note = "One pika client; the development broker's figures say nothing about RabbitMQ."
    return "\n".join([*lines, note])


def confirmed(uri: str, seconds: float) -> float:
    """Return messages a second, each published when the one before is confirmed."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    count = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        channel.basic_publish("", name, _BODY)
        count += 1
    rate = count / (time.monotonic() - began)
    connection.close()
    return rate


def through(uri: str, seconds: float) -> float:
    """Return messages a second that are published without confirms, then all consumed."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    count = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds / 2:
        channel.basic_publish("", name, _BODY)
        count += 1
    for taken, _ in enumerate(channel.consume(name, auto_ack=True), start=1):
        if taken == count:
            break
    rate = count / (time.monotonic() - began)
    connection.close()
    return rate
