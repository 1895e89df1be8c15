"""Classic groups: members of different clients join, leave and die while they share six partitions. Offsets survive a
restart."""

import collections
import subprocess

from clientproc import NAMES, OTHERS, Member, until

PARTITIONS = 6
# So long that a takeover within LEFT_S seconds must come from the leave request.
LEAVER_SESSION_MS = 45_000
LEFT_S = 15
# kafkajs has no assignor but its own, so it shares a group only with itself.
PARTNERS = {"kafkajs": "kafkajs"}


def cases():
    yield "Groups", "Java, librdkafka and kafka-python in one group: join, leave, die", mixed
    for client in OTHERS:
        partner = PARTNERS.get(client, "java")
        yield "Groups", f"{client} and {partner} in one group: join, leave, committed once", shared(client, partner)
    for client in [*NAMES, *OTHERS]:
        yield "Groups", f"{client}: membership goes on and committed offsets survive when the broker is killed", restart(client)


def covers(*members):
    """Whether these members own each partition once."""
    return sorted(sum((m.assigned or [] for m in members), [])) == list(range(PARTITIONS)) and all(m.assigned for m in members)


def fill(broker, topic, count, tag):
    """Writes `count` records, round-robin over the partitions."""
    for partition in range(PARTITIONS):
        lines = "".join(f"{tag}-{i}\n" for i in range(partition, count, PARTITIONS))
        subprocess.run(["kcat", "-P", "-b", broker.bootstrap, "-t", topic, "-p", str(partition)], input=lines,
                       text=True, check=True, timeout=30)


def committed_once(*members):
    """No record is committed twice: every member starts at the committed offset, not before it."""
    counts = collections.Counter(record for member in members for record in member.committed)
    twice = sorted(record for record, count in counts.items() if count > 1)
    assert not twice, f"committed, then read again: {twice[:5]} and {max(len(twice) - 5, 0)} more"


def mixed(broker):
    broker.create("group-mixed", PARTITIONS)
    fill(broker, "group-mixed", 300, "a")
    java = Member("java", broker, "group-mixed", "mixed")
    until("the first member owns all", lambda: covers(java))
    rdkafka = Member("librdkafka", broker, "group-mixed", "mixed")
    python = Member("kafka-python", broker, "group-mixed", "mixed", session=LEAVER_SESSION_MS)
    try:
        until("three members share", lambda: covers(java, rdkafka, python))
        fill(broker, "group-mixed", 300, "b")
        want = {(p, o) for p in range(PARTITIONS) for o in range(100)}
        until("each record is committed", lambda: set(java.committed + rdkafka.committed + python.committed) == want)
        rdkafka.kill()
        until("the dead member's partitions are taken", lambda: covers(java, python))
        fill(broker, "group-mixed", 300, "c")
        python.stop()
        until("the leaver's partitions are taken", lambda: covers(java), LEFT_S)
        want = {(p, o) for p in range(PARTITIONS) for o in range(150)}
        until("every record is committed", lambda: set(java.committed + rdkafka.committed + python.committed) == want)
        committed_once(java, rdkafka, python)
    finally:
        for member in (java, rdkafka, python):
            member.kill()


def shared(client, partner):
    """The partner joins a member, and each takes part. Then the partner leaves. Nothing is read during a rebalance, because
    Sarama does not tell how a commit ended that a rebalance interrupted."""
    def check(broker):
        topic, group = f"group-shared-{client}", f"shared-{client}"
        broker.create(topic, PARTITIONS)
        fill(broker, topic, 60, "a")
        members = [Member(client, broker, topic, group)]
        try:
            committed_all(members, 10)
            members.append(Member(partner, broker, topic, group, session=LEAVER_SESSION_MS))
            until("two members share", lambda: covers(*members))
            fill(broker, topic, 60, "b")
            committed_all(members, 20)
            members[1].stop()
            until("the leaver's partitions are taken", lambda: covers(members[0]), LEFT_S)
            fill(broker, topic, 60, "c")
            committed_all(members, 30)
            committed_once(*members)
        finally:
            for member in members:
                member.kill()
    return check


def committed_all(members, per_partition):
    """Waits until the members have committed so many records of each partition."""
    want = {(p, o) for p in range(PARTITIONS) for o in range(per_partition)}
    until("each record is committed", lambda: {record for member in members for record in member.committed} == want)


def restart(client):
    def check(broker):
        topic, group = f"group-restart-{client}", f"restart-{client}"
        broker.create(topic, PARTITIONS)
        fill(broker, topic, 60, "before")
        first = Member(client, broker, topic, group)
        members = [first]
        try:
            until("all is committed", lambda: len(set(first.committed)) == 60)
            broker.kill()
            broker.start()
            fill(broker, topic, 6, "after")
            until("the member goes on", lambda: len(set(first.committed)) == 66, 60)
            first.stop()
            fill(broker, topic, 6, "for the next")
            members.append(Member(client, broker, topic, group))
            until("the next member goes on", lambda: len(set(members[1].committed)) >= 6)
            committed_once(*members)
            again = set(members[1].records) & set(first.committed)
            assert not again, f"committed by the first, read by the second: {sorted(again)[:5]}"
        finally:
            for member in members:
                member.kill()
    return check
