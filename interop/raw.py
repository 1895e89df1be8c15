"""Raw produce requests, most of them damaged, and the error code that Apache Kafka gives to each.

Clients check their own batches, so the damage is made here, byte by byte. `interop/run --peer --only "Raw requests"` measures
the codes of Kafka again. Each request goes to a partition of its own, so that no answer depends on another request.
"""

import gzip
import socket
import struct
import time

import lz4.frame
import snappy
import zstandard

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
TRANSACTIONAL, CONTROL = 0x10, 0x20
PRODUCE_VERSION = 9


def crc32c(data, table=[]):
    if not table:
        for n in range(256):
            for _ in range(8):
                n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
            table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def varint(number):
    """A zigzag varint."""
    raw = (number << 1) ^ (number >> 63)
    raw &= (1 << 64) - 1
    out = bytearray()
    while raw >= 0x80:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


def nullable(data):
    return varint(-1) if data is None else varint(len(data)) + data


def record(offset=0, key=b"k", value=b"v", headers=(), time_delta=0, length=None, tail=b"", header_count=None):
    count = len(headers) if header_count is None else header_count
    body = b"\0" + varint(time_delta) + varint(offset) + nullable(key) + nullable(value) + varint(count)
    body += b"".join(nullable(k) + nullable(v) for k, v in headers) + tail
    return varint(len(body) if length is None else length) + body


def compress(codec, data):
    return {
        NONE: lambda: data,
        GZIP: lambda: gzip.compress(data),
        SNAPPY: lambda: snappy.compress(data),
        LZ4: lambda: lz4.frame.compress(data),
        ZSTD: lambda: zstandard.compress(data),
    }[codec]()


def batch(records=None, count=None, last=None, codec=NONE, flags=0, base=0, magic=2, pid=-1, epoch=-1, sequence=-1,
          now=0, max_time=None, body=None, crc=None, length=None, bits=None):
    """One batch of format 2. Every field can be made wrong."""
    records = [record()] if records is None else records
    count = len(records) if count is None else count
    body = compress(codec, b"".join(records)) if body is None else body
    attributes = (codec if bits is None else bits) | flags
    fields = struct.pack(">hiqqqhii", attributes, count - 1 if last is None else last, now,
                         now if max_time is None else max_time, pid, epoch, sequence, count) + body
    checksum = crc32c(fields) if crc is None else crc
    rest = struct.pack(">ibI", -1, magic, checksum) + fields
    return struct.pack(">qi", base, len(rest) if length is None else length) + rest


def uvarint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def compact(data):
    return uvarint(0) if data is None else uvarint(len(data) + 1) + data


def produce(broker, topic, partition, records, acks=-1):
    """The error code of one Produce request with these bytes as the records of one partition."""
    name = topic.encode()
    body = compact(None) + struct.pack(">hi", acks, 20_000) + uvarint(2) + compact(name)
    body += uvarint(2) + struct.pack(">i", partition) + compact(records) + b"\0\0\0"
    request = struct.pack(">hhih", 0, PRODUCE_VERSION, 7, 3) + b"raw" + b"\0" + body
    host, port = broker.bootstrap.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", exactly(connection, 4))[0]
        answer = exactly(connection, size)
    # correlation id, tags, topics, name, partitions, index
    at = 4 + 1 + 1 + 1 + len(name) + 1 + 4
    return struct.unpack(">h", answer[at:at + 2])[0]


def exactly(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError("the broker closed the connection")
        data += piece
    return data


def requests():
    """Name, bytes, and the code of Apache Kafka."""
    now = int(time.time() * 1000)
    hour = 3_600_000
    two = [record(0), record(1)]

    def b(*args, **fields):
        return batch(*args, **{"now": now, **fields})

    yield "a batch", b(), 0
    for codec, word in [(GZIP, "gzip"), (SNAPPY, "snappy"), (LZ4, "lz4"), (ZSTD, "zstd")]:
        yield f"two records, {word}", b(two, codec=codec), 0
        yield f"{word} flag on plain records", b(two, bits=codec), -1
        yield f"{word} cut off", b(two, codec=codec, body=compress(codec, b"".join(two))[:-3], count=2), -1
        yield f"{word} of garbage", b(codec=codec, body=compress(codec, b"\xff" * 20)), 87
        yield f"{word}, count too large", b(two, codec=codec, count=3), 87
        yield f"{word}, count too small", b(two, codec=codec, count=1), 87
        yield f"{word}, offsets 0, 0", b([record(0), record(0)], codec=codec), -1
    yield "no bytes", b"", 87
    yield "one byte", b"\0", 87
    yield "half a batch", b()[:40], 87
    yield "one byte short", b()[:-1], 87
    yield "one byte long", b() + b"\0", 0
    yield "two batches", b() + b(), 87
    yield "wrong checksum", b(crc=1), 2
    yield "length too small", b(length=20), 2
    yield "length negative", b(length=-5), 2
    yield "format 1", b(magic=1), 87
    yield "format 3", b(magic=3), 2
    yield "codec 5", b(bits=5), -1
    yield "codec 7", b(bits=7), -1
    yield "base offset 77", b(base=77), 87
    yield "base offset -1", b(base=-1), 87
    yield "count 0", b([], count=0, last=0), 87
    yield "count -1", b(count=-1, last=0), 87
    yield "count 2 of 1", b(count=2), 87
    yield "count 1 of 2", b(two, count=1), 87
    yield "last offset delta 5 of 1", b(last=5), 87
    yield "last offset delta -1", b(last=-1), 87
    yield "control batch", b(flags=CONTROL), 87
    yield "unused flag", b(flags=0x80), 0
    yield "offset deltas 0, 0", b([record(0), record(0)]), 0
    yield "offset deltas 1, 0", b([record(1), record(0)]), 0
    yield "offset delta 5", b([record(5)]), 0
    yield "records of garbage", b(body=b"\xff" * 20), -1
    yield "record length too large", b([record(length=40)]), 87
    yield "record length too small", b([record(length=3)]), 87
    yield "record length negative", b([record(length=-2)]), 87
    yield "bytes behind the fields of a record", b([record(tail=b"xx")]), 87
    yield "key longer than the record", b(body=varint(7) + b"\0\0\0" + varint(1000) + b"abc"), 87
    yield "negative key length", b(body=varint(6) + b"\0\0\0" + varint(-5) + varint(-1) + varint(0)), 0
    yield "header with a null key", b([record(headers=[(None, b"x")])]), 87
    yield "header with a null value", b([record(headers=[(b"h", None)])]), 0
    yield "header count -1", b([record(header_count=-1)]), 87
    yield "header count 9 of 0", b([record(header_count=9)]), 87
    yield "null key and value", b([record(key=None, value=None)]), 0
    yield "two hours ahead", b(now=now + 2 * hour), 32
    yield "a record two hours ahead", b([record(time_delta=2 * hour)]), 32
    yield "half an hour ahead", b(now=now + hour // 2), 0
    yield "microseconds for milliseconds", b(now=now * 1000), 32
    yield "no timestamp", b(now=-1), 0
    yield "time delta that overflows", b([record(time_delta=(1 << 63) - 1)]), 32
    yield "a wrong max timestamp", b(max_time=now - hour), 0
    yield "the timestamp type of the broker", b(flags=8), 0
    yield "that, and microseconds for milliseconds", b(now=now * 1000, flags=8), 32
    for pid, epoch, sequence, code in [(-1, 0, 0, 0), (-1, -1, 0, 0), (-1, 5, 17, 0), (-2, 0, 0, 0), (7, 0, -1, 87)]:
        yield f"producer {pid}, epoch {epoch}, sequence {sequence}", b(pid=pid, epoch=epoch, sequence=sequence), code
    yield "a producer that begins at 3", b(pid=6, epoch=0, sequence=3), 0
    yield "a producer at the end of the numbers", b(two, pid=6, epoch=0, sequence=(1 << 31) - 1), 0
    yield "a producer without an epoch", b(pid=7, epoch=-1, sequence=0), 0


# Where Floe answers otherwise, and why.
DIFFERS = {
    "one byte long": (87, "bytes behind the batch would be lost without a word"),
    "offset deltas 0, 0": (87, "consumers would get two records of one offset"),
    "offset deltas 1, 0": (87, "consumers would get offsets out of order"),
    "offset delta 5": (87, "consumers would get offsets that the next batch takes too"),
}


# Unknown topic or partition, no leader: a new partition is not served by every broker at once.
NOT_YET = (3, 5, 6)


def cases():
    yield "Raw requests", "each gets the code that Apache Kafka gives", codes


def codes(broker):
    topic = "raw-requests"
    table = list(requests())
    broker.create(topic, partitions=len(table))
    wrong = []
    for partition, (name, records, kafka) in enumerate(table):
        expected = kafka
        if broker.name == "Floe" and name in DIFFERS:
            expected, _ = DIFFERS[name]
        got = produce(broker, topic, partition, records)
        while got in NOT_YET:
            time.sleep(0.1)
            got = produce(broker, topic, partition, records)
        if got != expected:
            wrong.append(f"{name}: {got}, not {expected}")
    assert not wrong, f"{len(wrong)} of {len(table)} differ:\n" + "\n".join(wrong)
