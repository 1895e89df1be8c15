"""Statements in the broker's process and in workers, one after the other over the demo's flights. Called by bench/workers.

It prints medians of many statements over one connection, the seconds of a large result, and what a worker has at rest. With
--memory it prints what workers have at most under statements that want more than they may.
"""

import argparse
import http.client
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import tempfile
import threading
import time

SMALL = {
    "`SELECT 1`": "SELECT 1",
    "count of a table with 16 rows": "SELECT count(*) FROM airlines",
    "count of a table with 27,004 rows": "SELECT count(*) FROM flights",
    "group of it": "SELECT origin, count(*) FROM flights GROUP BY origin",
}
ROWS = "(SELECT md5(cast(value AS text)) m, repeat(md5(cast(value AS text)), {}) p FROM generate_series(1, {}))"
HEAVY = {
    "sort of 100,000 rows of 1.3 kB": f"SELECT m, p FROM {ROWS.format(40, 100_000)} ORDER BY m",
    "sort of 60,000 rows of 1.3 kB": f"SELECT m, p FROM {ROWS.format(40, 60_000)} ORDER BY m",
    "sort of 20,000 rows of 4.8 kB": f"SELECT m, p FROM {ROWS.format(150, 20_000)} ORDER BY m",
    "sort of 30,000 rows of 9.6 kB": f"SELECT m, p FROM {ROWS.format(300, 30_000)} ORDER BY m",
    "sort of 1,000,000 rows of 160 B": f"SELECT m, p FROM {ROWS.format(4, 1_000_000)} ORDER BY m",
    "group of 60,000 rows of 1.3 kB": f"SELECT p, count(*) FROM {ROWS.format(40, 60_000)} GROUP BY p",
    "group of 1,000,000 texts of 32 B": f"SELECT m, count(*) FROM {ROWS.format(1, 1_000_000)} GROUP BY m",
    "`ORDER BY p LIMIT 50000` of rows of 1.3 kB": f"SELECT p FROM {ROWS.format(40, 100_000)} ORDER BY p LIMIT 50000",
    "`EXCEPT` of 60,000 rows of 1.3 kB": f"SELECT p FROM {ROWS.format(40, 60_000)} EXCEPT SELECT 'x'",
    "`array_agg` of 60,000 rows of 1.3 kB": f"SELECT array_length(array_agg(p)) FROM {ROWS.format(40, 60_000)}",
    "self-join of 60,000 rows of 1.3 kB":
        f"SELECT count(a.p || b.p) FROM {ROWS.format(40, 60_000)} a JOIN {ROWS.format(40, 60_000)} b ON a.m = b.m",
}
LIMITS_MIB = (512, 256, 64)
MODEST = "SELECT count(*) FROM (SELECT m, count(*) FROM (SELECT md5(cast(value AS text)) m FROM " \
    "generate_series(1, 200000)) GROUP BY m)"
SMALLEST = "SELECT count(*) FROM generate_series(1, 1000)"
LARGE = ("CSV of 540,080 rows", "SELECT f.* FROM flights f, generate_series(1, 20)", "text/csv")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Broker:
    def __init__(self, folder, in_process, memory_mib=512):
        self.port = free_port()
        flags = ["serve", "--data", folder, "--kafka", f"127.0.0.1:{free_port()}", "--http", f"127.0.0.1:{self.port}"]
        flags += ["--sql-in-process", str(in_process).lower(), "--log", "warn"]
        flags += ["--sql-memory-bytes", str(memory_mib << 20)]
        self.process = subprocess.Popen([os.environ["FLOE_BIN"], *flags], stdout=subprocess.PIPE, text=True)
        next(line for line in self.process.stdout if "ready" in line)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port)

    def ask(self, statement, accept="application/json"):
        body = json.dumps({"query": statement})
        self.connection.request("POST", "/api/v1/sql", body, {"content-type": "application/json", "accept": accept})
        response = self.connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer[:200]
        return len(answer)

    def workers(self):
        found = []
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                found += (task / "children").read_text().split()
            except (FileNotFoundError, ProcessLookupError):
                # A thread that has ended meanwhile.
                continue
        return found

    def close(self):
        self.process.terminate()
        self.process.wait()


def private_mib(pid):
    resident, shared = map(int, pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20


# A longer look may count what one worker has given back and another has taken.
LOOK_SECONDS_MAX = 0.003


class Peak:
    """The most that all workers have together beyond what each has at rest, seen every two milliseconds."""

    def __init__(self, broker):
        time.sleep(1)
        self.broker, self.ends, self.mib, self.looks = broker, threading.Event(), 0.0, 0
        self.rest = min((private_mib(pid) for pid in broker.workers()), default=0.0)
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.ends.wait(0.002):
            workers, mib, began = self.broker.workers(), 0.0, time.monotonic()
            for pid in workers:
                try:
                    mib += max(0.0, private_mib(pid) - self.rest)
                except (FileNotFoundError, ProcessLookupError):
                    continue
            if time.monotonic() - began <= LOOK_SECONDS_MAX:
                self.mib, self.looks = max(self.mib, mib), self.looks + 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def ended(broker, statement):
    """How a statement ended, and after how many seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", broker.port)
    began = time.perf_counter()
    try:
        connection.request("POST", "/api/v1/sql", json.dumps({"query": statement}),
                           {"content-type": "application/json", "accept": "text/csv"})
        response = connection.getresponse()
        while response.read(1 << 20):
            pass
        how = str(response.status)
    except (http.client.IncompleteRead, ConnectionError):
        how = "ended in the middle"
    finally:
        connection.close()
    return how, time.perf_counter() - began


def alone(folder):
    print("| statement | " + " | ".join(f"{mib} MiB" for mib in LIMITS_MIB) + " |")
    print("|---|" + "--:|" * len(LIMITS_MIB))
    cells = {name: [] for name in HEAVY}
    for mib in LIMITS_MIB:
        broker = Broker(folder, False, mib)
        try:
            for name, statement in HEAVY.items():
                with Peak(broker) as peak:
                    how, took = ended(broker, statement)
                cells[name].append(f"{'' if how == '200' else how + ', '}{peak.mib:.0f} MiB, {took:.1f} s")
        finally:
            broker.close()
    for name, row in cells.items():
        print(f"| {name} | {' | '.join(row)} |")


def many(folder, clients, seconds=60):
    """Clients of heavy statements at once, a modest statement and a smallest one beside them, all the time."""
    broker = Broker(folder, False, 256)
    until = time.monotonic() + seconds
    statements = list(HEAVY.values())
    outcomes = {"heavy": [], "modest": [], "smallest": []}

    def client(kind, number):
        turn = number
        while time.monotonic() < until:
            statement = {"modest": MODEST, "smallest": SMALLEST}.get(kind, statements[turn % len(statements)])
            outcomes[kind].append(ended(broker, statement))
            turn += 1

    kinds = ["heavy"] * clients + ["modest", "smallest"]
    threads = [threading.Thread(target=client, args=(kind, number)) for number, kind in enumerate(kinds)]
    try:
        with Peak(broker) as peak:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        broker.close()
    print(f"\n{clients} clients of these statements for {seconds} s, with 256 MiB: {peak.mib:.0f} MiB at most "
          f"in {peak.looks:,} looks\n")
    print("| statement | ended | answered | seconds, median | slowest |\n|---|--:|--:|--:|--:|")
    for kind, all_of in outcomes.items():
        took = [seconds for how, seconds in all_of if how == "200"]
        middle = f"{statistics.median(took):.2f} | {max(took):.2f}" if took else "| "
        print(f"| {kind} | {len(all_of)} | {len(took)} | {middle} |")


def measure(broker, rounds):
    figures = {}
    for name, statement in SMALL.items():
        for _ in range(20):
            broker.ask(statement)
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            broker.ask(statement)
            took.append((time.perf_counter() - began) * 1000)
        figures[f"{name}, ms"] = statistics.median(took)
    name, statement, accept = LARGE
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        size = broker.ask(statement, accept)
        seconds.append(time.perf_counter() - began)
    figures[f"{name} ({size / 2**20:.0f} MiB), s"] = statistics.median(seconds)
    return figures


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}"


def main():
    parser = argparse.ArgumentParser(prog="bench/workers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--memory", action="store_true", help="what statements take that want more than they may")
    parser.add_argument("--clients", type=int, default=14, help="how many ask at once (14)")
    args = parser.parse_args()
    sides = []
    if args.memory:
        print(machine() + "\n")
        with tempfile.TemporaryDirectory(prefix="floe-bench-") as folder:
            alone(folder)
            many(folder, args.clients)
        return
    with tempfile.TemporaryDirectory(prefix="floe-bench-") as folder:
        ports = ["--kafka", f"127.0.0.1:{free_port()}", "--http", f"127.0.0.1:{free_port()}"]
        demo = [os.environ["FLOE_BIN"], "demo", "--seconds", "0", "--data", folder, *ports]
        subprocess.run(demo, check=True, stdout=subprocess.DEVNULL)
        for in_process in (True, False):
            broker = Broker(folder, in_process)
            try:
                if not in_process:
                    time.sleep(1)
                    rest = sorted(private_mib(pid) for pid in broker.workers())
                sides.append(measure(broker, args.rounds))
            finally:
                broker.close()
    print(f"{machine()}, medians of {args.rounds}\n")
    print("| figure | in the broker | in a worker |\n|---|--:|--:|")
    for name, here in sides[0].items():
        print(f"| {name} | {here:.2f} | {sides[1][name]:.2f} |")
    print(f"\nprivate memory of workers at rest: {', '.join(f'{mib:.0f} MiB' for mib in rest)}")


if __name__ == "__main__":
    main()
