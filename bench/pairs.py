"""Two builds of Floe beside each other: what did a change cost? Called by bench/pairs.

A round measures every workload on the one build and at once on the other, in an order that alternates, so that a machine
whose speed drifts treats them alike. The report gives the median of the ratios of the rounds.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

import broker as brokers
import yardstick

# What a statement costs, on the demo's flights: a scan with a group, a join of the table with itself, a sort, texts,
# conditions, lists, and one that is nearly all planning.
STATEMENTS = {
    "group": "SELECT origin, dest, count(*) AS n, avg(arr_delay) AS d FROM flights GROUP BY origin, dest ORDER BY n DESC LIMIT 5",
    "join": "SELECT count(*) AS n FROM flights a JOIN (SELECT dest, max(distance) AS far FROM flights GROUP BY dest) b "
            "ON a.dest = b.dest WHERE a.distance * 2 > b.far",
    "sort": "SELECT origin, dest, arr_delay FROM flights ORDER BY arr_delay DESC, dest LIMIT 100 OFFSET 1000",
    "text": "SELECT count(DISTINCT upper(carrier) || lower(dest)) AS n FROM flights WHERE dest LIKE '%A%'",
    "case": "SELECT CASE WHEN arr_delay > 15 THEN 'late' WHEN arr_delay IN (0, 1, 2) THEN 'on time' ELSE 'early' END AS kind, "
            "count(*) AS n, max(distance + 1) AS far FROM flights GROUP BY 1",
    "lists": "SELECT max(array_length(array_distinct(make_array(origin, dest, carrier)))) AS n FROM flights",
    "small": "SELECT a.v + b.v AS s FROM (VALUES (1), (2)) a(v) JOIN (VALUES (2), (3)) b(v) ON a.v = b.v WHERE a.v IN (1, 2, 3)",
}
REPEATS = 5


def table(server, mib, payloads):
    """Seconds of the server's processor for JSON into a table, then the milliseconds of each statement over it."""
    lines = sum(1 for _ in open(payloads))
    records = int(mib * 1024 * 1024 / (payloads.stat().st_size / lines))
    server.create("flights", 16, floe_table="json")
    with yardstick.Meter(server) as meter:
        yardstick.producer(server, "flights", records, payloads=payloads)
        while yardstick.metrics(server).get('floe_lake_rows_total{topic="flights"}', 0) < records:
            time.sleep(0.2)
    figures = {"JSON into a table, CPU s": meter.cpu}
    for name, statement in STATEMENTS.items():
        server.sql(statement)
        began = time.monotonic()
        for _ in range(REPEATS):
            server.sql(statement)
        figures[f"SQL {name}, ms"] = (time.monotonic() - began) / REPEATS * 1000
    return figures


def produce(server, mib):
    figures = yardstick.produce_throughput(server, mib, 16)
    return {"produce, s": mib * 1.048576 / figures["MB/s"], "produce, CPU s": figures["CPU s/GiB"] * mib / 1024}


def consume(server, mib):
    figures = yardstick.consume(server, mib)
    return {"consume, s": mib * 1.048576 / figures["from the start MB/s"], "consume, CPU s": figures["CPU s/GiB"] * mib / 1024}


def main():
    parser = argparse.ArgumentParser(prog="bench/pairs", description=__doc__.splitlines()[0])
    parser.add_argument("old", type=pathlib.Path, help="a binary")
    parser.add_argument("new", type=pathlib.Path, help="the binary that is compared with it")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=256)
    args = parser.parse_args()
    seen = {}
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as scratch:
        payloads = pathlib.Path(scratch) / "flights.json"
        yardstick.flights(payloads)
        workloads = [lambda s: produce(s, args.mib), lambda s: consume(s, args.mib), lambda s: table(s, args.mib, payloads)]
        for number in range(args.rounds):
            for workload in workloads:
                pair = {}
                for build in ("old", "new") if number % 2 == 0 else ("new", "old"):
                    os.environ["FLOE_BIN"] = str(getattr(args, build).resolve())
                    os.sync()
                    time.sleep(1)
                    server = brokers.Floe()
                    try:
                        pair[build] = workload(server)
                    finally:
                        server.close()
                for figure in pair["old"]:
                    seen.setdefault(figure, []).append((pair["old"][figure], pair["new"][figure]))
                print(f"round {number + 1}: " + ", ".join(f"{f} {pair['old'][f]:.2f} -> {pair['new'][f]:.2f}" for f in pair["old"]),
                      file=sys.stderr, flush=True)
    print("| figure | old, median | new, median | new / old, median (minimum to maximum) |\n|---|--:|--:|--:|")
    for figure, pairs in seen.items():
        ratios = sorted(new / old for old, new in pairs)
        old, new = (statistics.median(side) for side in zip(*pairs))
        print(f"| {figure} | {old:.2f} | {new:.2f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |")


if __name__ == "__main__":
    main()
