"""Java, librdkafka and kafka-python read the records of each other, in every compression: keys, nulls, headers, timestamps,
a record of 1 MB. The other clients write with and without idempotence, and without acknowledgements, and read what librdkafka
writes. Records that an idempotent producer sent twice are in the log once, in order."""

import time

import common
import stored
from clientproc import CODECS, NAMES, OTHERS, end_offset, finish, run, start, until

COUNT = 60
LONG = 600
DELAY_MS = 10
PATIENCE_MS = 1000
FREEZES = 2
MODES = ["plain", "idempotent"]


def cases():
    for writer in NAMES:
        for codec in CODECS:
            yield "Records", f"{writer} writes {codec}; all three read it", case(writer, codec)
    for writer in NAMES:
        what = "idempotent, repeats sends that a frozen broker did not answer: each record once, in order"
        yield "Records", f"{writer}, {what}", frozen(writer)
    for client, codecs in OTHERS.items():
        for mode in MODES:
            for codec in codecs:
                what = f"{client}, {mode}, writes {codec}; it and librdkafka read it"
                yield "Records", what, case(client, codec, mode, [client, "librdkafka"])
        yield "Records", f"{client}, acks=0: every record arrives, once and in order", unacknowledged(client)
        yield "Records", f"{client} reads {', '.join(codecs)} by librdkafka from one partition", reads(client, codecs)


def case(writer, codec, mode="idempotent", readers=NAMES):
    def check(broker):
        topic = f"matrix-{writer}-{codec}-{mode}"
        broker.create(topic)
        run(writer, "produce", broker, topic, count=COUNT, codec=codec, mode=mode)
        found = set(stored.codecs(broker, topic))
        # librdkafka sends a batch uncompressed if compression does not make it smaller.
        assert codec in found and found <= {codec, "none"}, f"{writer} was to write {codec}, the broker has {found}"
        for reader in readers:
            holds(broker, topic, reader, writer, COUNT)
    return check


def reads(reader, codecs):
    """Batches of all the codecs lie in one partition."""
    def check(broker):
        topic = f"matrix-to-{reader}"
        broker.create(topic)
        wanted = []
        for codec in codecs:
            run("librdkafka", "produce", broker, topic, count=COUNT, codec=codec)
            wanted += [{**record, "offset": len(wanted) + i} for i, record in enumerate(common.expected(COUNT, "librdkafka"))]
        assert set(stored.codecs(broker, topic)) >= set(codecs), "librdkafka was to write every codec"
        got = run(reader, "consume", broker, topic, count=len(wanted))
        assert got == wanted, next(f"{reader} read {g}, expected {w}" for g, w in zip(got + [None], wanted) if g != w)
    return check


def unacknowledged(writer):
    """The broker answers nothing, so the producer learns of no error."""
    def check(broker):
        topic = f"matrix-{writer}-acks-0"
        broker.create(topic)
        run(writer, "produce", broker, topic, count=COUNT, codec="none", mode="unacknowledged")
        until("the records arrive", lambda: end_offset(broker, topic) >= COUNT)
        holds(broker, topic, "librdkafka", writer, COUNT)
    return check


def frozen(writer):
    """The broker stops for longer than the producer waits. The producer repeats its sends on another connection, and the
    broker then finds both."""
    def check(broker):
        topic = f"frozen-{writer}"
        broker.create(topic)
        producer = start(writer, "produce", broker, topic, count=LONG, codec="none", delay=DELAY_MS, patience=PATIENCE_MS)
        freezes = 0
        try:
            while freezes < FREEZES and producer.poll() is None:
                if end_offset(broker, topic) < (freezes + 1) * LONG // (FREEZES + 2):
                    time.sleep(0.05)
                    continue
                broker.freeze(2.5 * PATIENCE_MS / 1000)
                freezes += 1
        finally:
            events = finish(producer)
        assert freezes, f"{writer} ended before the broker stopped: {events}"
        holds(broker, topic, "librdkafka", writer, LONG)
    return check


def holds(broker, topic, reader, writer, count):
    """Checks that `reader` finds the records of `writer`, in order, and nothing else."""
    got = run(reader, "consume", broker, topic, count=count)
    for g, w in zip(got, common.expected(count, writer)):
        assert g == w, f"{reader} read {g}, expected {w}"
    assert len(got) == count, f"{reader} read {len(got)} of {count}"
    assert end_offset(broker, topic) == count, f"{end_offset(broker, topic)} records instead of {count}"
