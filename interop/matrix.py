"""Every client reads what every client wrote, in every compression: keys, nulls, headers, timestamps, a record of 1 MB."""

import common
from clientproc import NAMES, run

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
COUNT = 60


def cases():
    for writer in NAMES:
        for codec in CODECS:
            yield "Records", f"{writer} writes {codec}, idempotent; all three read it", case(writer, codec)


def case(writer, codec):
    def check(broker):
        topic = f"matrix-{writer}-{codec}"
        broker.create(topic)
        run(writer, "produce", broker, topic, count=COUNT, codec=codec)
        for reader in NAMES:
            got = run(reader, "consume", broker, topic, count=COUNT)
            want = common.expected(COUNT, writer)
            for g, w in zip(got, want):
                assert g == w, f"{reader} read {g}, expected {w}"
            assert len(got) == COUNT, f"{reader} read {len(got)} of {COUNT}"
    return check
