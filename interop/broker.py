"""The broker under test: Floe, or Apache Kafka to check that the cases themselves are right."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

CACHE = pathlib.Path(os.environ["FLOE_INTEROP_CACHE"])
JARS = f"{CACHE}/java/*:{CACHE}/classes"
JARS_OF_2_8 = f"{CACHE}/java-2.8/*:{CACHE}/classes-2.8"
# The version of Apache Kafka: of its clients, its tools, and the peer.
KAFKA = re.search(r"<artifactId>kafka_2.13</artifactId><version>([0-9.]+)<",
                  (pathlib.Path(__file__).resolve().parent / "pom.xml").read_text())[1]


# The records of the cases are old.
FOR_EVER = str(2**63 - 1)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Floe:
    """`floe serve` in a temporary directory, on ports that stay the same over restarts."""

    name = "Floe"

    def __init__(self, *flags):
        self.flags = flags
        self.dir = tempfile.mkdtemp(prefix="floe-interop-")
        self.bootstrap = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.log = open(f"{self.dir}/server.log", "ab")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [os.environ["FLOE_BIN"], "serve", "--data", f"{self.dir}/data", "--kafka", self.bootstrap,
             "--http", self.http, "--retention-ms", FOR_EVER, *self.flags],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("floe is ready"):
            raise RuntimeError(f"floe did not start: {line!r}; see {self.dir}/server.log\n{self.tail()}")

    def tail(self):
        return "\n".join(pathlib.Path(f"{self.dir}/server.log").read_text().splitlines()[-20:])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self, seconds):
        """Stops the process for a while; its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def close(self):
        self.stop()
        self.log.close()
        shutil.rmtree(self.dir)

    def create(self, topic, partitions=1, **configs):
        command = [os.environ["FLOE_BIN"], "topic", "--bootstrap", self.bootstrap, "create", topic,
                   "--partitions", str(partitions)]
        if "floe_table" in configs:
            configs.setdefault("floe_table_freshness_ms", 500)
        for key, value in configs.items():
            command += ["--config", f"{key.replace('_', '.')}={value}"]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def sql(self, statement):
        """The rows of a statement, as dictionaries."""
        request = urllib.request.Request(
            f"http://{self.http}/api/v1/sql", json.dumps({"query": statement}).encode(),
            {"content-type": "application/json", "accept": "application/json"})
        with urllib.request.urlopen(request, timeout=90) as answer:
            body = answer.read().decode()
        rows = json.loads(body) if body.lstrip().startswith("[") else [json.loads(line) for line in body.splitlines()]
        return rows


class ApacheKafka:
    """A single KRaft node from Maven Central with default settings, but for the retention: the records of the cases are old."""

    name = "Apache Kafka"

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="kafka-interop-")
        self.bootstrap = f"127.0.0.1:{free_port()}"
        controller = f"127.0.0.1:{free_port()}"
        pathlib.Path(f"{self.dir}/server.properties").write_text(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}
controller.listener.names=CONTROLLER
log.dirs={self.dir}/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=500
log.retention.ms=-1
""")
        subprocess.run(["java", "-cp", JARS, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c",
                        f"{self.dir}/server.properties"], check=True, capture_output=True)
        self.start()

    def start(self):
        with open(f"{self.dir}/server.log", "ab") as log:
            self.process = subprocess.Popen(["java", "-Xmx1g", "-cp", JARS, "kafka.Kafka", f"{self.dir}/server.properties"],
                                            stdout=log, stderr=log)
        host, port = self.bootstrap.split(":")
        for _ in range(300):
            time.sleep(0.2)
            try:
                socket.create_connection((host, int(port)), 1).close()
                if "Kafka Server started" in pathlib.Path(f"{self.dir}/server.log").read_text():
                    return
            except OSError:
                continue
        raise RuntimeError("Apache Kafka did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self, seconds):
        """Stops the process for a while; its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def close(self):
        self.stop()
        shutil.rmtree(self.dir)

    def create(self, topic, partitions=1, **_):
        subprocess.run(tool("TopicCommand") + ["--bootstrap-server", self.bootstrap, "--create", "--topic", topic,
                                               "--partitions", str(partitions)], check=True, capture_output=True)


def tool(name):
    """The command line of one of Kafka's own console tools."""
    classes = {
        "TopicCommand": "org.apache.kafka.tools.TopicCommand",
        "ConsoleProducer": "org.apache.kafka.tools.ConsoleProducer",
        "ConsoleConsumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "ConsumerGroupCommand": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "GetOffsetShell": "org.apache.kafka.tools.GetOffsetShell",
        "ConfigCommand": "org.apache.kafka.tools.ConfigCommand",
        "ProducerPerformance": "org.apache.kafka.tools.ProducerPerformance",
        "ConsumerPerformance": "org.apache.kafka.tools.ConsumerPerformance",
        "BrokerApiVersions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
        "DeleteRecordsCommand": "org.apache.kafka.tools.DeleteRecordsCommand",
    }
    return ["java", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", JARS,
            "-Dlog4j2.level=error", classes[name]]
