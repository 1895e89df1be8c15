"""Apache Kafka and Floe on one machine, measured in turn with Kafka's own tools.

There are three servers: Kafka with default settings (an acknowledged record is in the page cache), Kafka with a flush
on every message, and Floe (every record is synced before it is acknowledged). A round measures every workload on every
server, so a machine whose speed drifts treats them alike. The report gives medians over the rounds.
"""

import argparse
import csv
import gzip
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import confluent_kafka

import broker as brokers
import report

TICKS = os.sysconf("SC_CLK_TCK")
SERVERS = ["kafka", "kafka-flush", "floe"]


class Kafka(brokers.ApacheKafka):
    """Kafka, optionally with a flush on every message."""

    def __init__(self, flush):
        self.flush = flush
        super().__init__()

    def start(self):
        if self.flush:
            path = pathlib.Path(f"{self.dir}/server.properties")
            if "log.flush" not in path.read_text():
                path.write_text(path.read_text() + "log.flush.interval.messages=1\n")
        super().start()


def start(server):
    return {"kafka": lambda: Kafka(False), "kafka-flush": lambda: Kafka(True), "floe": brokers.Floe}[server]()


def cpu_seconds(pid):
    """User and system time of a process so far, in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid):
    """The peak resident size of a process so far, in MiB."""
    line = next(x for x in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


class Meter:
    """CPU time of the server while a block runs."""

    def __init__(self, server):
        self.pid = server.process.pid

    def __enter__(self):
        self.before, self.began = cpu_seconds(self.pid), time.monotonic()
        return self

    def __exit__(self, *_):
        self.cpu, self.wall = cpu_seconds(self.pid) - self.before, time.monotonic() - self.began


def producer(server, topic, records, rate=-1, *props, payloads=None, warmup=0):
    """Runs kafka-producer-perf-test with records of 1 KiB or with the lines of a file. Returns MB/s and latencies in ms.

    The figures leave out the warm-up records: a cold virtual machine is slower than any broker.
    """
    content = ["--payload-file", str(payloads)] if payloads else ["--record-size", "1024"]
    warm = ["--warmup-records", str(warmup)] if warmup else []
    done = subprocess.run(
        ["java", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", brokers.JARS,
         "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", str(records + warmup),
         *content, *warm, "--throughput", str(rate), "--producer-props", f"bootstrap.servers={server.bootstrap}", *props],
        capture_output=True, text=True, timeout=900)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
    numbers = re.search(r"\(([\d.]+) MB/sec\).*?([\d.]+) ms avg latency.*?([\d.]+) ms max.*?(\d+) ms 50th, (\d+) ms 95th, "
                        r"(\d+) ms 99th, (\d+) ms 99.9th", last)
    if not numbers:
        raise RuntimeError(f"no figures: {done.stdout[-500:]}{done.stderr[-500:]}")
    mb, avg, high, p50, p95, p99, p999 = map(float, numbers.groups())
    return {"mb_s": mb, "avg": avg, "max": high, "p50": p50, "p95": p95, "p99": p99, "p999": p999}


def consumer(server, topic, records):
    """Runs kafka-consumer-perf-test from the start. Returns MB/s of the fetch itself."""
    done = subprocess.run(
        ["java", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", brokers.JARS,
         "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", server.bootstrap, "--topic", topic,
         "--num-records", str(records), "--timeout", "60000"],
        capture_output=True, text=True, timeout=900)
    header, *rows = [line for line in done.stdout.strip().splitlines() if "," in line]
    names = [n.strip() for n in header.split(",")]
    row = dict(zip(names, [c.strip() for c in rows[-1].split(",")]))
    if int(float(row["data.consumed.in.nMsg"])) < records:
        raise RuntimeError(f"consumed {row}")
    return {"mb_s": float(row["fetch.MB.sec"])}


def produce_throughput(server, mib, partitions):
    topic = f"produce-{partitions}-{time.monotonic_ns()}"
    server.create(topic, partitions)
    records = mib * 1024
    producer(server, topic, records // 20)  # a warm-up
    with Meter(server) as meter:
        figures = producer(server, topic, records)
    return {"MB/s": figures["mb_s"], "CPU s/GiB": meter.cpu / (mib / 1024), "p99 ms": figures["p99"]}


def produce_latency(server, seconds=20):
    topic = f"latency-{time.monotonic_ns()}"
    server.create(topic, 16)
    rate = 10_000_000 // 1024
    figures = producer(server, topic, rate * seconds, rate, "linger.ms=0", warmup=rate * 10)
    return {"p50 ms": figures["p50"], "p99 ms": figures["p99"], "p99.9 ms": figures["p999"], "average ms": figures["avg"]}


def disk_alone(seconds=20, rate=450):
    """The lower bound for a broker that syncs. About as often as Floe acknowledges in `produce_latency`, it overwrites
    zeros with records and syncs, then does the same with metadata in another file. Nothing else runs."""
    waits = []
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as scratch:
        with open(f"{scratch}/objects", "wb", buffering=0) as objects, open(f"{scratch}/journal", "wb", buffering=0) as journal:
            sizes = {objects: 24 << 10, journal: 8 << 10}
            for file, size in sizes.items():
                for _ in range(seconds * rate):
                    file.write(bytes(size))
                os.fsync(file.fileno())
                file.seek(0)
            os.sync()
            time.sleep(2)
            page, began = os.urandom(24 << 10), time.monotonic()
            for number in range(seconds * rate):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                # The wait counts from the due time: a write behind a stall has waited too.
                due = began + number / rate
                for file, size in sizes.items():
                    file.write(page[:size])
                    os.fdatasync(file.fileno())
                waits.append((time.monotonic() - due) * 1000)
    waits.sort()
    at = lambda share: waits[min(len(waits) - 1, int(len(waits) * share))]
    return {"p50 ms": at(0.5), "p99 ms": at(0.99), "p99.9 ms": at(0.999), "slowest ms": waits[-1]}


def consume(server, mib):
    topic = f"consume-{time.monotonic_ns()}"
    server.create(topic, 16)
    records = mib * 1024
    producer(server, topic, records)
    with Meter(server) as meter:
        start = consumer(server, topic, records)
    return {"from the start MB/s": start["mb_s"], "CPU s/GiB": meter.cpu / (mib / 1024)}


def consume_tail(server, mib):
    topic = f"tail-{time.monotonic_ns()}"
    server.create(topic, 16)
    records, outcome = mib * 1024, {}
    reader = threading.Thread(target=lambda: outcome.update(consumer(server, topic, records)))
    with Meter(server) as meter:
        began = time.monotonic()
        reader.start()
        time.sleep(2)  # the consumer has joined and waits at the tail
        producer(server, topic, records)
        reader.join()
    return {"from the tail MB/s": mib * 1.048576 / (time.monotonic() - began - 2), "CPU s/GiB": meter.cpu / (mib / 1024)}


def metrics(server):
    """The numbers of /metrics: by full name, and summed over labels."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    out = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            base = name.split("{")[0]
            out[base] = out.get(base, 0) + float(value)
            out[name] = float(value)
    return out


def floe_only(mib):
    """Figures of Floe alone: requests to the store, bytes of metadata, freshness of SQL, speed of the table."""
    return {**store_figures(mib), **freshness_figures(), **table_figures(mib)}


def map_bytes(data):
    """Bytes of the keys and values in the map of a stopped broker."""
    judged = subprocess.run([os.environ["FLOE_BIN"], "check", "--json", data], capture_output=True, text=True, check=True)
    return json.loads(judged.stdout)["metadata"]["bytes"]


def store_figures(mib):
    """Requests to the store and bytes of metadata while a producer writes to 16 partitions."""
    server = brokers.Floe()
    try:
        server.create("store", 16)
        data = f"{server.dir}/data"
        server.stop()
        empty = map_bytes(data)
        server.start()
        before = metrics(server)
        producer(server, "store", mib * 1024)
        after = metrics(server)
        server.stop()
        taken = lambda name: after.get(name, 0) - before.get(name, 0)
        written = taken("floe_meta_ring_bytes_total") - taken("floe_log_attached_bytes_total")
        gib = mib / 1024
        figures = {}
        for operation in ("put", "get"):
            name = f'floe_store_requests_total{{operation="{operation}"}}'
            figures[f"{operation.upper()} requests per GiB produced"] = (after.get(name, 0) - before.get(name, 0)) / gib
        figures["commits per GiB produced"] = (after["floe_meta_commits_total"] - before.get("floe_meta_commits_total", 0)) / gib
        figures["metadata bytes per GiB produced, in the map"] = (map_bytes(data) - empty) / gib
        figures["metadata bytes per GiB produced, written to the journal"] = written / gib
        server.start()
        return figures
    finally:
        server.close()


def freshness_figures():
    """The time from the acknowledgement of a record until SQL counts it, asked without pause."""
    server = brokers.Floe()
    try:
        server.create("fresh", 4, floe_table="json")
        client = confluent_kafka.Producer({"bootstrap.servers": server.bootstrap, "linger.ms": 0})
        waits = []
        for number in range(1, 101):
            client.produce("fresh", json.dumps({"n": number}))
            if client.flush(30):
                raise RuntimeError("a record was not acknowledged")
            acknowledged = time.monotonic()
            while server.sql("SELECT count(*) AS n FROM fresh") != [{"n": number}]:
                pass
            waits.append((time.monotonic() - acknowledged) * 1000)
        return {"acknowledged to counted by SQL, median ms": statistics.median(waits),
                "acknowledged to counted by SQL, slowest of 100 ms": max(waits)}
    finally:
        server.close()


def flights(path):
    """The demo's flights as lines of JSON."""
    sample = pathlib.Path(__file__).resolve().parent.parent / "crates/floe/data/flights-2013-01.csv.gz"
    with gzip.open(sample, "rt") as rows, open(path, "w") as out:
        for row in csv.DictReader(rows):
            typed = {k: int(v) if re.fullmatch(r"-?\d+", v) else v for k, v in row.items() if v != ""}
            out.write(json.dumps(typed) + "\n")


def table_figures(mib):
    """The CPU time that a table costs: the same JSON goes to a topic without a table and to one with a table."""
    cpu = {}
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as scratch:
        payloads = pathlib.Path(scratch) / "flights.json"
        flights(payloads)
        size = payloads.stat().st_size / sum(1 for _ in open(payloads))
        records = int(mib * 1024 * 1024 / size)
        server = brokers.Floe()
        try:
            for kind in ("off", "json"):
                topic = f"flights-{kind}"
                server.create(topic, 16, **({"floe_table": "json"} if kind == "json" else {}))
                before = cpu_seconds(server.process.pid)
                producer(server, topic, records, payloads=payloads)
                name = f'floe_lake_rows_total{{topic="{topic}"}}'
                while kind == "json" and metrics(server).get(name, 0) < records:
                    time.sleep(0.2)
                cpu[kind] = cpu_seconds(server.process.pid) - before
            files = sum(f.stat().st_size for f in pathlib.Path(f"{server.dir}/data").rglob("*.parquet"))
        finally:
            server.close()
    million = records * size / 1e6
    return {"JSON into a table, MB per second of one core": million / (cpu["json"] - cpu["off"]),
            "Parquet written, MB per second of one core": files / 1e6 / (cpu["json"] - cpu["off"]),
            "bytes of JSON per byte of Parquet": records * size / files}


def measure(args):
    """All figures as {workload: {server: {figure: [value of each round]}}}, peak memory, and the disk alone."""
    workloads = {
        "produce, 1 partition": lambda s: produce_throughput(s, args.mib, 1),
        "produce, 16 partitions": lambda s: produce_throughput(s, args.mib, 16),
        "produce, 100 partitions": lambda s: produce_throughput(s, args.mib, 100),
        "produce at 10 MB/s, 16 partitions, linger.ms=0": produce_latency,
        "consume, 16 partitions": lambda s: consume(s, args.mib),
        "consume the tail while producing, 16 partitions": lambda s: consume_tail(s, args.mib),
    }
    out, memory, disk = {}, {server: [] for server in SERVERS}, {}
    for round_number in range(args.rounds):
        for name, workload in workloads.items():
            if args.only not in name:
                continue
            if workload is produce_latency:
                alone = disk_alone()
                print(f"round {round_number + 1}  the disk alone: " + ", ".join(f"{k} {v:.2f}" for k, v in alone.items()),
                      file=sys.stderr, flush=True)
                for figure, value in alone.items():
                    disk.setdefault(figure, []).append(value)
            for server in SERVERS:
                # The syncs of this server must not wait for dirty pages of the previous one.
                os.sync()
                time.sleep(2)
                running = start(server)
                try:
                    figures = workload(running)
                    memory[server].append(peak_mib(running.process.pid))
                finally:
                    running.close()
                print(f"round {round_number + 1}  {name}  {server}: "
                      + ", ".join(f"{k} {v:.2f}" for k, v in figures.items()), file=sys.stderr, flush=True)
                for figure, value in figures.items():
                    out.setdefault(name, {}).setdefault(server, {}).setdefault(figure, []).append(value)
    return out, memory, disk


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    figures, memory, disk = measure(args)
    floe = floe_only(args.mib) if args.only in ("", "only-floe") else {}
    text = render(figures, memory, disk, floe, args)
    print(text)
    if args.report and not args.only:
        path = pathlib.Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
        notes = path.read_text().split("<!-- notes -->", 1)[1] if path.exists() and "<!-- notes -->" in path.read_text() else "\n"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n<!-- notes -->" + notes)


def render(figures, memory, disk, floe, args):
    """The report as Markdown: medians, and the ratio of Floe to Kafka with default settings."""
    lines = [
        "# Benchmarks", "",
        "Written by `bench/run --report`. The notes below the marker at the end are written by hand.", "",
        f"Commit {report.commit()}, {time.strftime('%Y-%m-%d')}; {report.machine()}, clients on the same machine; "
        f"{args.rounds} rounds of {args.mib} MiB, medians (minimum to maximum); records of 1 KiB. "
        f"Command: `bench/run --report --rounds {args.rounds} --mib {args.mib}`.", "",
        f"`kafka` is Apache Kafka {brokers.KAFKA}, one KRaft node with default settings: an acknowledged record is in the page cache. "
        "`kafka-flush` flushes on every message. `floe` syncs every record before it acknowledges it. It is "
        f"{report.build()}.", "",
        "| workload | figure | kafka | kafka-flush | floe | floe / kafka |", "|---|---|--:|--:|--:|--:|",
    ]
    for workload, by_server in figures.items():
        for figure in next(iter(by_server.values())):
            cells, medians = [], {}
            for server in SERVERS:
                values = by_server[server][figure]
                medians[server] = statistics.median(values)
                cells.append(f"{medians[server]:.1f} ({min(values):.1f} to {max(values):.1f})")
            ratio = medians["floe"] / medians["kafka"] if medians["kafka"] else float("nan")
            lines.append(f"| {workload} | {figure} | {' | '.join(cells)} | {ratio:.2f} |")
    cells = [f"{max(memory[s]):.0f}" if memory[s] else "" for s in SERVERS]
    ratio = max(memory["floe"]) / max(memory["kafka"]) if memory["floe"] and memory["kafka"] else float("nan")
    lines.append(f"| all of the above | peak memory MiB | {' | '.join(cells)} | {ratio:.2f} |")
    if disk:
        lines += ["", "The disk alone, before each round at 10 MB/s. 450 times a second: two writes with an `fdatasync` each, one after "
                  "the other, as an acknowledgement needs them. Times count from the moment when a pair was due:", "",
                  "| figure | median of the rounds (minimum to maximum) |", "|---|--:|"]
        lines += [f"| {name} | {statistics.median(v):.1f} ({min(v):.1f} to {max(v):.1f}) |" for name, v in disk.items()]
    if floe:
        lines += ["", "Only Floe:", "", "| figure | value |", "|---|--:|"]
        lines += [f"| {name} | {value:,.1f} |" for name, value in floe.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
