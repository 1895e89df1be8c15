"""Statements in the broker's process and in workers, one after the other over the demo's flights. Called by bench/workers.

It prints medians of many statements over one connection, the seconds of a large result, and what a worker has at rest.
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
import time

SMALL = {
    "`SELECT 1`": "SELECT 1",
    "count of a table with 16 rows": "SELECT count(*) FROM airlines",
    "count of a table with 27,004 rows": "SELECT count(*) FROM flights",
    "group of it": "SELECT origin, count(*) FROM flights GROUP BY origin",
}
LARGE = ("CSV of 540,080 rows", "SELECT f.* FROM flights f, generate_series(1, 20)", "text/csv")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Broker:
    def __init__(self, folder, in_process):
        self.port = free_port()
        flags = ["serve", "--data", folder, "--kafka", f"127.0.0.1:{free_port()}", "--http", f"127.0.0.1:{self.port}"]
        flags += ["--sql-in-process", str(in_process).lower(), "--log", "warn"]
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
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        return [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]

    def close(self):
        self.process.terminate()
        self.process.wait()


def private_mib(pid):
    resident, shared = map(int, pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20


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


def main():
    parser = argparse.ArgumentParser(prog="bench/workers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    args = parser.parse_args()
    sides = []
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
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
          f"{time.strftime('%Y-%m-%d')}, medians of {args.rounds}\n")
    print("| figure | in the broker | in a worker |\n|---|--:|--:|")
    for name, here in sides[0].items():
        print(f"| {name} | {here:.2f} | {sides[1][name]:.2f} |")
    print(f"\nprivate memory of workers at rest: {', '.join(f'{mib:.0f} MiB' for mib in rest)}")


if __name__ == "__main__":
    main()
