"""Two brokers on one machine under `floe bench`, which leaves them the cores that Java clients take. Called by bench/load.

A round measures each workload on the one broker and at once on the other, in an order that alternates. Each run has a broker
of its own, which is warmed up before. The report gives medians over the rounds, and of the ratios of the rounds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import broker as brokers
import report
import yardstick

BEGIN, END = "<!-- load -->", "<!-- end of load -->"
PAGE = os.sysconf("SC_PAGE_SIZE")
PARTITIONS = (1, 16, 100)
# Batches of 1 MiB are larger than what a topic takes by default.
LARGE = ["--batch-bytes", "1MiB", "--record-bytes", "1KiB", "--config", "max.message.bytes=2097152"]
SINGLE = ["--batch-bytes", "1", "--record-bytes", "100"]


def minor_faults(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[7])


def cached_pages():
    """Pages in the cache of the system. Nothing gives them back while a run takes a small part of the memory."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Cached:")).split()[1]) * 1024 // PAGE


class Meter(yardstick.Meter):
    """Also the faults of the server, and what the system has cached meanwhile."""

    def __enter__(self):
        self.faults, self.pages = minor_faults(self.pid), cached_pages()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.faults, self.pages = minor_faults(self.pid) - self.faults, cached_pages() - self.pages


def bench(server, mode, *flags):
    done = subprocess.run([os.environ["FLOE_BENCH"], "bench", mode, "--bootstrap", server.bootstrap, "--json", *flags],
                          capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"floe bench {mode} {' '.join(flags)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def warm_up(server, seconds):
    """A new process compiles, or takes its first memory; a cold virtual machine is slower than any broker."""
    for name, kind in ("warm-large", LARGE), ("warm-single", SINGLE):
        bench(server, "produce", "--topic", name, *kind, "--partitions", "16", "--connections", "4", "--seconds", str(seconds))


def large(server, args, partitions):
    flags = [*LARGE, "--partitions", str(partitions), "--connections", "4"]
    with Meter(server) as meter:
        made = bench(server, "produce", *flags, "--bytes", f"{args.mib}MiB")["produce"]
    gib = args.mib / 1024
    return {"MB/s": made["value_bytes"] / made["seconds"] / 1e6, "CPU s/GiB": meter.cpu / gib,
            "minor faults/GiB": meter.faults / gib, "pages cached/GiB": meter.pages / gib}


def single(server, args, partitions, connections=16):
    flags = [*SINGLE, "--partitions", str(partitions), "--connections", str(connections), "--in-flight", "1"]
    with Meter(server) as meter:
        made = bench(server, "produce", *flags, "--seconds", str(args.seconds))["produce"]
    return {"requests/s": made["requests"] / made["seconds"], "CPU µs/request": meter.cpu / made["requests"] * 1e6,
            "p50 ms": made["latency_ms_p50"], "p99 ms": made["latency_ms_p99"]}


def lone(server, args):
    # The requests of the warm-up are not among those of the figures, and the meter sees all.
    with Meter(server) as meter:
        out = bench(server, "latency", "--rate", "200", "--warm-up", "3", "--seconds", str(args.seconds))
    made, read = out["produce"], out["end_to_end"]
    return {"p50 ms": made["latency_ms_p50"], "p99 ms": made["latency_ms_p99"], "to a consumer, p50 ms": read["latency_ms_p50"],
            "to a consumer, p99 ms": read["latency_ms_p99"], "CPU µs/record": meter.cpu / (200 * (args.seconds + 3)) * 1e6}


def steady(server, args):
    made = bench(server, "produce", "--partitions", "16", "--connections", "4", "--batch-bytes", "16KiB", "--record-bytes", "1KiB",
                 "--rate", "10MiB", "--warm-up", "3", "--seconds", str(args.seconds))["produce"]
    figures = {"p50 ms": made["latency_ms_p50"], "p99 ms": made["latency_ms_p99"], "p99.9 ms": made["latency_ms_p99_9"]}
    # A percentile of too few requests is none.
    return {name: figure for name, figure in figures.items() if figure is not None}


def consume(server, args):
    bench(server, "produce", *LARGE, "--partitions", "16", "--connections", "4", "--bytes", f"{args.mib}MiB")
    with Meter(server) as meter:
        read = bench(server, "consume", "--connections", "4")["consume"]
    return {"MB/s": read["batch_bytes"] / read["seconds"] / 1e6, "CPU s/GiB": meter.cpu / (args.mib / 1024)}


def catch_up(server, args):
    bench(server, "produce", *LARGE, "--partitions", "16", "--connections", "4", "--bytes", f"{args.mib}MiB")
    with Meter(server):
        out = bench(server, "mixed", "--partitions", "16", "--connections", "4", "--readers", "4", "--rate", "20MiB",
                    "--record-bytes", "1KiB", "--seconds", str(args.seconds))
    made, read = out["produce"], out["consume"]
    return {"read MB/s": read["batch_bytes"] / read["seconds"] / 1e6, "write p50 ms": made["latency_ms_p50"],
            "write p99 ms": made["latency_ms_p99"]}


def workloads(args):
    out = {f"batches of 1 MiB, {n} partition{'s' * (n > 1)}": lambda s, n=n: large(s, args, n) for n in PARTITIONS}
    out |= {f"single records, 16 connections, {n} partition{'s' * (n > 1)}": lambda s, n=n: single(s, args, n)
            for n in PARTITIONS}
    out["single records, 256 connections, 100 partitions"] = lambda s: single(s, args, 100, 256)
    out["a lone producer, 200 records/s"] = lambda s: lone(s, args)
    out["batches of 16 KiB at 10 MiB/s, 16 partitions"] = lambda s: steady(s, args)
    out["consume from the start, 16 partitions"] = lambda s: consume(s, args)
    out["4 readers catch up while 20 MiB/s are written"] = lambda s: catch_up(s, args)
    return {name: work for name, work in out.items() if args.only in name}


def start(side, args):
    if side == "floe":
        os.environ["FLOE_BIN"] = os.environ["FLOE_BENCH"]
        return brokers.Floe()
    if side == "old":
        os.environ["FLOE_BIN"] = str(args.old.resolve())
        return brokers.Floe()
    return yardstick.Kafka(False)


def measure(args, sides):
    seen = {}
    for number in range(args.rounds):
        for name, work in workloads(args).items():
            for side in sides if number % 2 == 0 else sides[::-1]:
                # What the one before has left in the cache must not be written while this one is measured.
                os.sync()
                time.sleep(1)
                server = start(side, args)
                try:
                    warm_up(server, args.warm_up)
                    figures = work(server)
                finally:
                    server.close()
                print(f"round {number + 1}  {name}  {side}: " + ", ".join(f"{k} {v:.2f}" for k, v in figures.items()),
                      file=sys.stderr, flush=True)
                for figure, value in figures.items():
                    seen.setdefault(name, {}).setdefault(figure, {}).setdefault(side, []).append(value)
    return seen


def shown(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def render(seen, args, sides):
    peer = "another build" if args.old else f"Apache Kafka {brokers.KAFKA}, default settings"
    first, second = sides
    lines = [
        BEGIN, "", "## Load", "",
        f"Written by `bench/load --report --rounds {args.rounds} --mib {args.mib} --seconds {args.seconds}`. Commit {report.commit()}, "
        f"{time.strftime('%Y-%m-%d')}; {report.machine()}, the load on the same machine, {2 * args.warm_up} s of it before each "
        f"figure; {report.build()}. The peer is {peer}. Medians of the rounds; "
        "the ratio is the median of the rounds' ratios (minimum to maximum). Kafka answers when a record is in the page cache, "
        "Floe when it is synced.", "",
        f"| workload | figure | {first} | {second} | {second} / {first} |", "|---|---|--:|--:|--:|",
    ]
    for workload, figures in seen.items():
        for figure, values in figures.items():
            pairs = list(zip(values[first], values[second]))
            ratios = sorted(b / a for a, b in pairs if a)
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else ""
            cells = [shown(statistics.median(values[side])) for side in sides]
            lines.append(f"| {workload} | {figure} | {cells[0]} | {cells[1]} | {spread} |")
    return "\n".join([*lines, "", END])


def main():
    parser = argparse.ArgumentParser(prog="bench/load", description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=5, help="seconds of large batches, and as many of single records")
    parser.add_argument("--only", default="")
    parser.add_argument("--old", type=pathlib.Path, help="instead of Kafka, another build of Floe")
    args = parser.parse_args()
    os.environ["FLOE_BENCH"] = os.environ["FLOE_BIN"]
    sides = ["old" if args.old else "kafka", "floe"]
    text = render(measure(args, sides), args, sides)
    print(text)
    if args.report and not args.only and not args.old:
        report.put(BEGIN, END, text)


if __name__ == "__main__":
    main()
