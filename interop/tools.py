"""Kafka's own console tools and kcat, with the commands that people type."""

import re
import subprocess

import clientproc
from broker import tool


def cases():
    yield "Tools", "kafka-topics creates, describes, lists and deletes", topics
    yield "Tools", "kafka-configs describes a topic", configs
    yield "Tools", "kafka-console-producer and kafka-console-consumer", console
    yield "Tools", "kafka-consumer-groups lists and describes with lag", groups
    yield "Tools", "kafka-get-offsets: earliest, latest, max timestamp, by time", offsets
    yield "Tools", "kafka-broker-api-versions", versions
    yield "Tools", "kafka-producer-perf-test and kafka-consumer-perf-test", perf
    yield "Tools", "kcat lists, produces and consumes", kcat


def run(*words, text=None, timeout=60):
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{words[-6:]} ended with {done.returncode}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
    return done.stdout


def kafka(name, broker, *words, **more):
    return run(*tool(name), "--bootstrap-server", broker.bootstrap, *words, **more)


def topics(broker):
    kafka("TopicCommand", broker, "--create", "--topic", "tools-topics", "--partitions", "3",
          "--config", "retention.ms=3600000")
    shown = kafka("TopicCommand", broker, "--describe", "--topic", "tools-topics")
    assert "PartitionCount: 3" in shown and "retention.ms=3600000" in shown, shown
    assert "tools-topics" in kafka("TopicCommand", broker, "--list")
    again = subprocess.run(tool("TopicCommand") + ["--bootstrap-server", broker.bootstrap, "--create", "--topic",
                                                   "tools-topics"], capture_output=True, text=True, timeout=60)
    assert "already exists" in again.stdout + again.stderr, again
    kafka("TopicCommand", broker, "--delete", "--topic", "tools-topics")
    assert "tools-topics" not in kafka("TopicCommand", broker, "--list")


def configs(broker):
    broker.create("tools-configs")
    shown = kafka("ConfigCommand", broker, "--describe", "--entity-type", "topics", "--entity-name", "tools-configs", "--all")
    assert "retention.ms=" in shown and "max.message.bytes=1048588" in shown, shown


def console(broker):
    broker.create("tools-console")
    kafka("ConsoleProducer", broker, "--topic", "tools-console", text="one\ntwo\nthree\n")
    read = kafka("ConsoleConsumer", broker, "--topic", "tools-console", "--from-beginning", "--max-messages", "3",
                 "--timeout-ms", "20000")
    assert read.split() == ["one", "two", "three"], read


def groups(broker):
    broker.create("tools-groups", 2)
    run("kcat", "-P", "-b", broker.bootstrap, "-t", "tools-groups", "-p", "0", text="a\nb\nc\n")
    kafka("ConsoleConsumer", broker, "--topic", "tools-groups", "--from-beginning", "--max-messages", "3",
          "--group", "tools-group", "--timeout-ms", "20000")
    run("kcat", "-P", "-b", broker.bootstrap, "-t", "tools-groups", "-p", "0", text="d\ne\n")
    assert "tools-group" in kafka("ConsumerGroupCommand", broker, "--list")
    shown = kafka("ConsumerGroupCommand", broker, "--describe", "--group", "tools-group")
    row = next(line.split() for line in shown.splitlines() if re.match(r"tools-group\s+tools-groups\s+0\b", line))
    assert row[3:6] == ["3", "5", "2"], shown


def offsets(broker):
    broker.create("tools-offsets")
    # One record per second, from 1,700,000,000 s on.
    clientproc.run("librdkafka", "produce", broker, "tools-offsets", count=60, codec="none")
    wanted = {"-2": 0, "-1": 60, "-3": 59, "1000": 0, "1700000005000": 5, "1700000005001": 6, "1700000059000": 59}
    for time, offset in wanted.items():
        shown = kafka("GetOffsetShell", broker, "--topic", "tools-offsets", "--time", time).strip()
        assert shown == f"tools-offsets:0:{offset}", (time, shown)


def versions(broker):
    shown = kafka("BrokerApiVersions", broker)
    assert "Produce(0)" in shown and "ERROR" not in shown, shown


def perf(broker):
    broker.create("tools-perf", 4)
    shown = run(*tool("ProducerPerformance"), "--topic", "tools-perf", "--num-records", "20000", "--record-size", "1024",
                "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.bootstrap}", timeout=120)
    assert "20000 records sent" in shown, shown
    shown = run(*tool("ConsumerPerformance"), "--bootstrap-server", broker.bootstrap, "--topic", "tools-perf",
                "--num-records", "20000", timeout=120)
    assert "20000" in shown, shown


def kcat(broker):
    broker.create("tools-kcat", 2)
    assert 'topic "tools-kcat" with 2 partitions' in run("kcat", "-L", "-b", broker.bootstrap, "-t", "tools-kcat")
    run("kcat", "-P", "-b", broker.bootstrap, "-t", "tools-kcat", "-K:", "-p", "1", text="k1:v1\nk2:v2\n")
    read = run("kcat", "-C", "-b", broker.bootstrap, "-t", "tools-kcat", "-e", "-q", "-f", "%p %o %k %s\n")
    assert read == "1 0 k1 v1\n1 1 k2 v2\n", read
