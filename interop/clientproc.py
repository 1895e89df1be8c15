"""Starts the client programs of clients/ and reads the events that they print."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from broker import CACHE, JARS, JARS_OF_2_8

CLIENTS = pathlib.Path(__file__).resolve().parent / "clients"
ENVIRONMENT = {**os.environ, "NODE_PATH": str(CACHE / "kafkajs" / "node_modules")}
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# The clients of the whole matrix: each reads what each writes. They have all codecs.
NAMES = ["java", "librdkafka", "kafka-python"]
# The other clients with their codecs. kafkajs has no lz4 and zstd that are written in JavaScript.
OTHERS = {"java-2.8": CODECS, "aiokafka": CODECS, "kafkajs": CODECS[:3], "franz-go": CODECS, "sarama": CODECS}


def program(client):
    """The command that starts a client program."""
    match client:
        case "java" | "java-2.8":
            jars = JARS if client == "java" else JARS_OF_2_8
            return ["java", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", jars, "Client"]
        case "aiokafka":
            # Not aiokafka.py, which the program itself would import instead of the library.
            return [sys.executable, str(CLIENTS / "aiokafka_client.py")]
        case "kafkajs":
            return ["node", str(CLIENTS / "kafkajs" / "client.js")]
        case "franz-go" | "sarama":
            return [str(CACHE / "go" / "bin" / client)]
    return [sys.executable, str(CLIENTS / f"{client.replace('-', '_')}.py")]


def command(client, action, broker, topic, **flags):
    """The command line of one client program."""
    line = program(client) + [action, "--bootstrap", broker.bootstrap, "--topic", topic]
    for name, value in flags.items():
        line += [f"--{name}", str(value)]
    return line


def start(client, action, broker, topic, **flags):
    """Starts a client program; `finish` waits for it."""
    return subprocess.Popen(command(client, action, broker, topic, **flags), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def finish(process):
    """Waits for the end of a client program and returns its events."""
    try:
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{err[-2000:]}")
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def run(client, action, broker, topic, **flags):
    """Runs a client to its end and returns its events."""
    return finish(start(client, action, broker, topic, **flags))


def end_offset(broker, topic):
    """The end offset of partition 0."""
    shown = subprocess.run(["kcat", "-Q", "-b", broker.bootstrap, "-t", f"{topic}:0:-1"], capture_output=True,
                           text=True, check=True, timeout=30).stdout
    return int(shown.split()[-1])


class Member:
    """A group member that runs until it is stopped or killed. Its events are collected as they come: the assigned
    partitions, and the records that it read and committed, each as (partition, offset)."""

    def __init__(self, client, broker, topic, group, **flags):
        self.client, self.assigned, self.records, self.committed = client, None, [], []
        self.process = subprocess.Popen(command(client, "member", broker, topic, group=group, **flags),
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            if event["event"] == "assigned":
                self.assigned = event["partitions"]
            elif event["event"] == "committed":
                self.committed.extend((partition, offset) for partition, offset in event["records"])
            else:
                self.records.append((event["partition"], event["offset"]))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)


def until(what, condition, seconds=40):
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")
