"""Kafka's own console tools and kcat, with the commands that people type."""

import json
import re
import subprocess
import tempfile

import clientproc
import confluent_kafka
import confluent_kafka.admin
import kafka as kafka_python
from broker import tool


def cases():
    yield "Tools", "kafka-topics creates, describes, lists and deletes", topics
    yield "Tools", "kafka-configs describes a topic", configs
    yield "Tools", "kafka-console-producer and kafka-console-consumer", console
    yield "Tools", "kafka-consumer-groups lists and describes with lag", groups
    yield "Tools", "kafka-get-offsets: earliest, latest, max timestamp, by time", offsets
    yield "Tools", "kafka-delete-records, confluent-kafka and kafka-python delete records up to an offset", deletions
    yield "Tools", "a consumer whose committed offset was deleted goes on at the earliest", reset
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


def deletions(broker):
    """Each client deletes more of one partition, and sees the errors of Kafka."""
    broker.create("tools-deletions", 2)
    clientproc.run("librdkafka", "produce", broker, "tools-deletions", count=60, codec="none")
    first, last = earliest(broker, "tools-deletions"), {p: offset for p, offset in latest(broker, "tools-deletions")}
    assert first == [(0, 0), (1, 0)] and last[0] > 10, (first, last)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        wanted = [{"topic": "tools-deletions", "partition": 0, "offset": 3}]
        json.dump({"version": 1, "partitions": wanted}, file)
        file.flush()
        shown = kafka("DeleteRecordsCommand", broker, "--offset-json-file", file.name)
    assert "low_watermark: 3" in shown, shown
    assert earliest(broker, "tools-deletions")[0] == (0, 3)

    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    def librdkafka(partition, offset):
        place = confluent_kafka.TopicPartition("tools-deletions", partition, offset)
        return next(iter(admin.delete_records([place]).values())).result(20)
    assert librdkafka(0, 5).low_watermark == 5
    assert librdkafka(0, 4).low_watermark == 5, "below the log start is no error"
    try:
        raise AssertionError(librdkafka(0, last[0] + 1))
    except confluent_kafka.KafkaException as refused:
        assert refused.args[0].code() == confluent_kafka.KafkaError.OFFSET_OUT_OF_RANGE, refused

    admin = kafka_python.KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    place = kafka_python.TopicPartition("tools-deletions", 0)
    deleted = admin.delete_records({place: -1}, timeout_ms=20_000)
    admin.close()
    assert str(last[0]) in str(deleted), deleted
    assert earliest(broker, "tools-deletions") == [(0, last[0]), (1, 0)]
    assert latest(broker, "tools-deletions")[0] == (0, last[0]), "the log goes on where it was"


def earliest(broker, topic):
    return listed(broker, topic, "-2")


def latest(broker, topic):
    return listed(broker, topic, "-1")


def listed(broker, topic, time):
    shown = kafka("GetOffsetShell", broker, "--topic", topic, "--time", time).split()
    return sorted((int(partition), int(offset)) for _, partition, offset in (line.split(":") for line in shown))


def reset(broker):
    broker.create("tools-reset")
    run("kcat", "-P", "-b", broker.bootstrap, "-t", "tools-reset", text="a\nb\nc\nd\n")
    def consume(count):
        read = kafka("ConsoleConsumer", broker, "--topic", "tools-reset", "--from-beginning", "--max-messages", str(count),
                     "--group", "tools-reset-group", "--timeout-ms", "20000")
        return read.split()
    assert consume(1) == ["a"]
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    place = confluent_kafka.TopicPartition("tools-reset", 0, 3)
    assert next(iter(admin.delete_records([place]).values())).result(20).low_watermark == 3
    assert consume(1) == ["d"]


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
