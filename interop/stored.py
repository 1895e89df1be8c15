"""The batches that a broker has stored, read by a hand-made Fetch of version 4: every client hides the batches."""

import socket
import struct

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
HEADER = struct.Struct(">qiibIh")  # base offset, length, leader epoch, magic, checksum, attributes


def codecs(broker, topic, partition=0):
    """The codec of each batch of a partition, from the first batch on, within 50 MB."""
    name = topic.encode()
    body = struct.pack(">iiiib", -1, 100, 0, 50_000_000, 0) + struct.pack(">ih", 1, len(name)) + name
    body += struct.pack(">iiqi", 1, partition, 0, 50_000_000)
    frame = struct.pack(">hhih", 1, 4, 7, -1) + body
    host, port = broker.bootstrap.split(":")
    with socket.create_connection((host, int(port)), 20) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        (length,) = struct.unpack(">i", answer.read(4))
        answer = answer.read(length)
    # Correlation id, throttle time, one topic, its name, one partition, index, error, high watermark, stable offset.
    at = 4 + 4 + 4 + 2 + len(name) + 4 + 4
    (error,) = struct.unpack_from(">h", answer, at)
    assert error == 0, error
    at += 2 + 8 + 8
    (aborted,) = struct.unpack_from(">i", answer, at)
    at += 4 + 16 * max(aborted, 0)
    (size,) = struct.unpack_from(">i", answer, at)
    batches = answer[at + 4:at + 4 + size]
    found = []
    while len(batches) >= HEADER.size:
        _, length, _, magic, _, attributes = HEADER.unpack_from(batches)
        assert magic == 2, magic
        found.append(CODECS[attributes & 7])
        batches = batches[12 + length:]
    return found
