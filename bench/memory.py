"""Memory and threads of one broker in four states, in the order of the table. Called by bench/memory.

The cold scan is the worst case for a reader: one small record of a topic in each object, most of which belongs to another
topic, and a broker that was restarted, so that nothing is in its cache and every object is verified when it is first read.
"""

import argparse
import concurrent.futures
import os
import pathlib
import time

import confluent_kafka

import broker as brokers
import report

BEGIN, END = "<!-- memory -->", "<!-- end of memory -->"
RECORD = os.urandom(64 << 10)


def status(pid, field):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


class Watched:
    """The resident size of the server and its threads while a block runs."""

    def __init__(self, server):
        self.pid, self.threads = server.process.pid, 0

    def __enter__(self):
        # 5 sets the peak back to what is resident now (proc(5)).
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self

    def look(self):
        self.threads = max(self.threads, status(self.pid, "Threads:"))

    def __exit__(self, *_):
        self.look()
        self.peak, self.after = status(self.pid, "VmHWM:") / 1024, status(self.pid, "VmRSS:") / 1024


def rest(server, seconds=10):
    with Watched(server) as watched:
        time.sleep(seconds)
    return watched


def flush(producer):
    if producer.flush(60):
        raise RuntimeError("records were not acknowledged")


def producer_of(server):
    return confluent_kafka.Producer({"bootstrap.servers": server.bootstrap, "linger.ms": 5, "batch.size": 1 << 20,
                                     "queue.buffering.max.kbytes": 64 << 10})


def produce(server, producer, topic, mib, watched):
    """`mib` MiB of records of 1 KiB."""
    for number in range(mib * 1024):
        while True:
            try:
                producer.produce(topic, RECORD[:1024], partition=number % 16)
                break
            except BufferError:
                watched.look()
                producer.poll(0.05)
        producer.poll(0)
    flush(producer)


def load(server, mib):
    server.create("load", 16)
    with Watched(server) as watched:
        producer = producer_of(server)
        produce(server, producer, "load", mib, watched)
    return watched


def thin(server, objects):
    """A record of 100 bytes in each of so many objects, beside 2 MiB of another topic."""
    server.create("thin", 1)
    server.create("bulk", 16)
    producer = producer_of(server)
    for number in range(objects):
        producer.produce("thin", RECORD[:100], partition=0)
        for part in range(32):
            producer.produce("bulk", RECORD, partition=part % 16)
        flush(producer)


def read_all(server, count):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": server.bootstrap, "group.id": "none", "enable.auto.commit": False,
                                         "fetch.wait.max.ms": 100, "max.partition.fetch.bytes": 1 << 20})
    consumer.assign([confluent_kafka.TopicPartition("thin", 0, 0)])
    try:
        seen, deadline = 0, time.monotonic() + 300
        while seen < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"a consumer saw {seen} of {count} records")
            seen += sum(1 for message in consumer.consume(1000, 1.0) if not message.error())
    finally:
        consumer.close()


def cold_scan(server, objects, consumers):
    server.stop()
    server.start()
    with Watched(server) as watched, concurrent.futures.ThreadPoolExecutor(consumers) as pool:
        readers = [pool.submit(read_all, server, objects) for _ in range(consumers)]
        while not all(reader.done() for reader in readers):
            watched.look()
            time.sleep(0.05)
        for reader in readers:
            reader.result()
    return watched


def measure(args):
    server = brokers.Floe()
    try:
        rows = [("at rest, without data", rest(server))]
        rows.append((f"{args.mib} MiB produced to 16 partitions", load(server, args.mib)))
        rows.append(("at rest, after that", rest(server, 30)))
        thin(server, args.objects)
        what = f"after a restart: {args.consumers} consumers of a small record in each of {args.objects} objects"
        rows.append((what, cold_scan(server, args.objects, args.consumers)))
        rows.append(("at rest, after that", rest(server, 30)))
        return rows
    finally:
        server.close()


def render(rows, args):
    lines = [
        BEGIN, "", "## Memory", "",
        f"Written by `bench/memory --report --mib {args.mib} --objects {args.objects} --consumers {args.consumers}`. "
        f"Commit {report.commit()}, {time.strftime('%Y-%m-%d')}; {report.machine()}; default settings; "
        f"{report.build()}. Resident size of the process.", "",
        "| state | peak MiB | at its end MiB | threads at most |", "|---|--:|--:|--:|",
    ]
    lines += [f"| {state} | {row.peak:.0f} | {row.after:.0f} | {row.threads} |" for state, row in rows]
    return "\n".join([*lines, "", END])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--objects", type=int, default=400)
    parser.add_argument("--consumers", type=int, default=32)
    args = parser.parse_args()
    text = render(measure(args), args)
    print(text)
    if args.report:
        report.put(BEGIN, END, text)


if __name__ == "__main__":
    main()
