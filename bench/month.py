"""A broker that lives through many small produces, kills and starts. Called by bench/month.

Ten small produces a second are 26 million in a month. Here as many as fit into an hour are sent as fast as the broker may
take them beside its own work, and records expire after minutes instead of days. So the same things happen as often: every
figure must stand still once the first records have expired.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import sys
import time

import confluent_kafka

import broker as brokers
import report
import yardstick

BEGIN, END = "<!-- month -->", "<!-- end of month -->"
# A figure stands still if its median over the last third exceeds that of the third before by no more than this part.
GROWTH_MAX = 0.15
# What is small may grow by this much, whatever part of it that is.
SLACK = {"memory MiB": 32, "disk MiB": 32, "files": 32, "records of the metadata": 500, "start s": 0.5}
ROW = json.dumps({"sensor": 17, "at": "2026-12-01T00:00:00Z", "value": 21.5, "text": "as usual"}).encode()


class Sender:
    """One record in each request. Counts what was acknowledged, by topic."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.acknowledged, self.unknown = collections.Counter(), collections.Counter()
        self.begin()

    def begin(self):
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": self.bootstrap, "linger.ms": 0, "batch.num.messages": 1, "acks": "all",
            "queue.buffering.max.messages": 2000, "message.timeout.ms": 60_000, "max.in.flight": 5,
        })

    def told(self, error, message):
        (self.unknown if error else self.acknowledged)[message.topic()] += 1

    def send(self, topic):
        while True:
            try:
                self.producer.produce(topic, ROW, on_delivery=self.told)
                return
            except BufferError:
                self.producer.poll(0.05)

    def run(self, topics, rate, seconds):
        """Sends to the topics in turn. Returns how many records it sent."""
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(int(passed * rate) - sent):
                self.send(topics[sent % len(topics)])
                sent += 1
            self.producer.poll(0.001)
        return sent

    def settle(self):
        if left := self.producer.flush(90):
            raise RuntimeError(f"{left} records were neither acknowledged nor refused")


def files_of(directory):
    """How many files a directory has, and their blocks in bytes."""
    count = size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size += os.stat(os.path.join(folder, name)).st_blocks * 512
                count += 1
            except FileNotFoundError:
                pass
    return count, size


def look(server, seconds):
    count, size = files_of(f"{server.dir}/data")
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    seen = yardstick.metrics(server)
    return {"memory MiB": resident / 1024, "disk MiB": size / 2**20, "files": count,
            "records of the metadata": seen.get("floe_meta_keys", 0), "start s": seconds}


def start_again(server):
    """Kills the broker without a warning. Returns the seconds until it is ready."""
    server.kill()
    began = time.monotonic()
    server.start()
    return time.monotonic() - began


def ends(server, topics):
    """The next offset of each topic."""
    client = confluent_kafka.Consumer({"bootstrap.servers": server.bootstrap, "group.id": "none"})
    try:
        return {topic: client.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), 30)[1] for topic in topics}
    finally:
        client.close()


def grows(samples, figure):
    """The medians of the second and the last third, and whether the last is larger than it may be."""
    third = len(samples) // 3
    middle = statistics.median(sample[figure] for sample in samples[third:2 * third])
    last = statistics.median(sample[figure] for sample in samples[2 * third:])
    return middle, last, last > middle * (1 + GROWTH_MAX) and last > middle + SLACK[figure]


def measure(args):
    logs = [f"log-{n:03}" for n in range(args.topics - args.tables)]
    tables = [f"table-{n:03}" for n in range(args.tables)]
    topics = logs + tables
    server = brokers.Floe()
    # What expires goes at once: a topic that does not ask for it keeps nothing in the trash.
    retention = {"retention_ms": args.retention * 1000}
    try:
        for topic in logs:
            server.create(topic, 1, **retention)
        for topic in tables:
            server.create(topic, 1, floe_table="json", floe_table_freshness_ms=5000, **retention)
        sender, samples, sent = Sender(server.bootstrap), [], 0
        seconds = args.records / args.rate / args.starts
        for number in range(args.starts):
            sent += sender.run(topics, args.rate, seconds)
            # The kill comes while records are in flight: the client sends them again.
            took = start_again(server)
            sender.settle()
            samples.append(look(server, took))
            print(f"{number + 1} of {args.starts}: {sent} sent, " + ", ".join(f"{k} {v:,.1f}" for k, v in samples[-1].items()),
                  file=sys.stderr, flush=True)
        missing = {}
        for topic, end in ends(server, topics).items():
            if end < sender.acknowledged[topic]:
                missing[topic] = sender.acknowledged[topic] - end
        return samples, sender, missing
    finally:
        server.close()


def render(samples, sender, missing, args):
    sent = sum(sender.acknowledged.values()) + sum(sender.unknown.values())
    lines = [
        BEGIN, "", "## A month", "",
        f"Written by `bench/month --report`: {args.records:,} small produces at {args.rate} a second, {args.topics} topics, "
        f"{args.tables} of them tables, records expire after {args.retention} s, {args.starts} kills. Commit {report.commit()}, "
        f"{time.strftime('%Y-%m-%d')}; {report.machine()}; {report.build()}.", "",
        f"{sum(sender.acknowledged.values()):,} of {sent:,} records were acknowledged, {sum(missing.values()):,} of these are missing.", "",
        "| figure | first | median of the second third | of the last third | |", "|---|--:|--:|--:|---|",
    ]
    failed = bool(missing)
    for figure in samples[0]:
        middle, last, growing = grows(samples, figure)
        failed |= growing
        verdict = "grows" if growing else "stands still"
        lines.append(f"| {figure} | {samples[0][figure]:,.1f} | {middle:,.1f} | {last:,.1f} | {verdict} |")
    return "\n".join([*lines, "", END]), failed


def main():
    parser = argparse.ArgumentParser(prog="bench/month", description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rate", type=int, default=700, help="records a second")
    parser.add_argument("--topics", type=int, default=120)
    parser.add_argument("--tables", type=int, default=20)
    parser.add_argument("--starts", type=int, default=48)
    parser.add_argument("--retention", type=int, default=600, help="seconds")
    args = parser.parse_args()
    if args.starts < 6:
        parser.error("--starts: at least 6, or nothing can be said of the last third of them")
    samples, sender, missing = measure(args)
    text, failed = render(samples, sender, missing, args)
    print(text)
    if args.report:
        report.put(BEGIN, END, text)
    if failed:
        sys.exit("bench/month: something grows, or is missing: see the table")


if __name__ == "__main__":
    main()
