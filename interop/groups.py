"""Classic groups: members of three clients share six partitions while they come, go and die; offsets survive a restart."""

import subprocess

from clientproc import Member, until

PARTITIONS = 6


def cases():
    yield "Groups", "Java, librdkafka and kafka-python in one group: join, leave, die", mixed
    yield "Groups", "committed offsets survive a restart of the broker", restart


def covers(*members):
    """Whether these members own each partition once."""
    return sorted(sum((m.assigned or [] for m in members), [])) == list(range(PARTITIONS)) and all(m.assigned for m in members)


def fill(broker, topic, count, tag):
    """Writes `count` records round over the partitions."""
    for partition in range(PARTITIONS):
        lines = "".join(f"{tag}-{i}\n" for i in range(partition, count, PARTITIONS))
        subprocess.run(["kcat", "-P", "-b", broker.bootstrap, "-t", topic, "-p", str(partition)], input=lines,
                       text=True, check=True, timeout=30)


def mixed(broker):
    broker.create("group-mixed", PARTITIONS)
    fill(broker, "group-mixed", 300, "a")
    java = Member("java", broker, "group-mixed", "mixed")
    until("the first member owns all", lambda: covers(java))
    rdkafka = Member("librdkafka", broker, "group-mixed", "mixed")
    python = Member("kafka-python", broker, "group-mixed", "mixed")
    try:
        until("three members share", lambda: covers(java, rdkafka, python))
        fill(broker, "group-mixed", 300, "b")
        rdkafka.kill()
        until("the dead member's partitions are taken", lambda: covers(java, python))
        fill(broker, "group-mixed", 300, "c")
        python.stop()
        until("the leaver's partitions are taken", lambda: covers(java))
        want = {(p, o) for p in range(PARTITIONS) for o in range(150)}
        until("every record was read", lambda: set(java.records + rdkafka.records + python.records) == want)
    finally:
        for member in (java, rdkafka, python):
            member.kill()


def restart(broker):
    broker.create("group-restart", PARTITIONS)
    written = 0
    for client in ["java", "librdkafka", "kafka-python"]:
        fill(broker, "group-restart", 60, client)
        written += 60
        first = Member(client, broker, "group-restart", f"restart-{client}")
        until(f"{client} read all", lambda: len(set(first.records)) == written)
        first.stop()
        broker.stop()
        broker.start()
        fill(broker, "group-restart", 6, f"{client}-after")
        written += 6
        second = Member(client, broker, "group-restart", f"restart-{client}")
        try:
            until(f"{client} read what is new", lambda: len(second.records) >= 6)
            old = set(first.records) & set(second.records)
            assert not old, f"{client} read again: {sorted(old)[:5]}"
        finally:
            second.kill()
