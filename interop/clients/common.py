"""Shared by the Python clients: the records, their digest, and the command line."""

import argparse
import hashlib
import json
import signal
import sys
import time

# In Apache Kafka the name of a deleted topic becomes free only after a moment.
FREE_S = 20
# kafka-python and kafkajs cannot write a header with a null value, kafka-python and aiokafka cannot write a record whose key
# and value are both null.
FEWER_NULLS = {"kafka-python", "aiokafka", "kafkajs"}


def record(i, count, all_nulls=True):
    """Record `i` of `count` as (key, value, headers, timestamp in ms). Every client makes the same records, but for
    FEWER_NULLS."""
    key = None if i % 5 == 0 else f"key-{i}".encode()
    value = None if i % 7 == 3 and (all_nulls or key) else (f"value-{i}-" * (1 + i % 50)).encode()
    if i == count - 1:
        value = bytes(b * 31 % 251 for b in range(1_000_000))
    headers = [("h1", b"a"), ("h1", b"b"), ("empty", b""), ("nul", None if all_nulls else b"")] if i % 3 == 0 else []
    return key, value, headers, 1_700_000_000_000 + i * 1000


def digest(data):
    """The first 16 hexadecimal digits of SHA-256, or None for null."""
    return None if data is None else hashlib.sha256(data).hexdigest()[:16]


def normal(offset, timestamp, key, value, headers):
    """A record in the form that all clients print."""
    return {
        "event": "record",
        "offset": offset,
        "timestamp": timestamp,
        "key": digest(key),
        "value": digest(value),
        "headers": [[name, digest(data)] for name, data in headers],
    }


def expected(count, writer):
    """What a consumer must print after `produce --count count` by `writer` into an empty topic."""
    out = []
    for i in range(count):
        key, value, headers, timestamp = record(i, count, all_nulls=writer not in FEWER_NULLS)
        out.append(normal(i, timestamp, key, value, headers))
    return out


def say(event):
    """Prints one event as a line of JSON."""
    print(json.dumps(event), flush=True)


def arguments():
    """The command line of every client."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["produce", "consume", "member", "recreate"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--codec", default="none")
    parser.add_argument("--mode", choices=["plain", "idempotent", "unacknowledged"], default="idempotent")
    parser.add_argument("--delay", type=int, default=0, help="milliseconds before each record")
    parser.add_argument("--patience", type=int, default=30_000, help="milliseconds until a request counts as lost")
    parser.add_argument("--group")
    parser.add_argument("--session", type=int, default=6000, help="session time-out in milliseconds")
    return parser.parse_args()


def on_terminate(stop):
    """Calls `stop` when the process is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: stop())


def insist(create, taken):
    """Calls `create` until it no longer raises `taken`: the name of a topic becomes free."""
    end = time.monotonic() + FREE_S
    while True:
        try:
            return create()
        except taken:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def main(produce, consume, member, recreate):
    """Runs the action of the command line."""
    args = arguments()
    {"produce": produce, "consume": consume, "member": member, "recreate": recreate}[args.action](args)
    sys.stdout.flush()
