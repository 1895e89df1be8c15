"""Runs seeds of the simulation in slices, as many at once as there are cores. Called by bench/seeds.

Each slice is a process of its own. What the processes count is added up.
"""

import argparse
import collections
import concurrent.futures
import datetime
import json
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time

import report

BEGIN, END = "<!-- seeds -->", "<!-- end of seeds -->"
EXAMPLES = {False: ("floe-testkit", "simulate"), True: ("floe-sql", "simulate_sql")}
# The rows of the report: what is counted, in this order. What no run counts is left out.
ROWS = [
    "commits", "acknowledged records", "reads", "statements", "rows of tables compared", "commits of groups", "crashes",
    "requests of the store with a fault", "requests of the journal with a fault",
    "tries at a remote store that came late", "starts on an older journal, refused", "rotten values and entries, refused",
    "copied data directories", "merges", "compactions", "removals by retention", "removals by a client",
    "topics deleted", "topics that came back", "removed records that came back", "steps of tables",
    "parts of the history", "events",
]


class Failed(Exception):
    """A seed that fails, and what it says."""


def built(statements):
    """Builds the example and returns its path."""
    package, example = EXAMPLES[statements]
    subprocess.run(["cargo", "build", "--release", "-p", package, "--example", example], check=True, cwd=report.ROOT)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", report.ROOT / "target"))
    return target / "release" / "examples" / example


class Runs:
    """The processes under way, so that the first failure ends the others."""

    def __init__(self, binary):
        self.binary = binary
        self.lock, self.under_way, self.is_over = threading.Lock(), set(), False

    def slice(self, first, count):
        """Runs a slice. Returns its sums, and none if another one has failed."""
        command = [self.binary, "--seeds", str(count), "--from", str(first), "--sums", "--stop", "--progress", "1"]
        with self.lock:
            if self.is_over:
                return None
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.under_way.add(process)
        lines = process.communicate()[0].splitlines()
        with self.lock:
            self.under_way.discard(process)
            if self.is_over:
                return None
        if process.returncode == 0:
            return json.loads(next(line for line in lines if line.startswith("sums: ")).removeprefix("sums: "))
        self.end()
        raise Failed(first + passed(lines), [line for line in lines if not is_progress(line)])

    def end(self):
        with self.lock:
            self.is_over = True
            for process in self.under_way:
                process.kill()


def is_progress(line):
    return " virtual hours, " in line or line.startswith("sums: ")


def passed(lines):
    """The number of seeds before the one that failed: it may have ended the process before it was counted."""
    progress = [line for line in lines if " virtual hours, " in line]
    if not progress:
        return 0
    seeds, failed = (int(word.split()[0]) for word in progress[-1].split(", ")[:2])
    return seeds - failed


def run(options, binary):
    """Returns the sums and how long it took."""
    began, sums, done = time.monotonic(), collections.Counter(), 0
    runs = Runs(binary)
    starts = range(options.start, options.start + options.seeds, options.slice)
    count = lambda first: min(options.slice, options.start + options.seeds - first)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        try:
            slices = [pool.submit(runs.slice, first, count(first)) for first in starts]
            for ended in concurrent.futures.as_completed(slices):
                more = ended.result() or {}
                sums.update(more)
                done += more.get("seeds", 0)
                show(done, options.seeds, sums, time.monotonic() - began)
        except BaseException:
            runs.end()
            raise
    return sums, time.monotonic() - began


def show(done, seeds, sums, seconds):
    left = seconds / done * (seeds - done) if done else 0
    line = (f"{done} of {seeds} seeds, {sums['commits']:,} commits, {sums['crashes']:,} crashes, "
            f"{seconds / max(done, 1):.2f} s a seed, about {left / 60:.0f} min left")
    end = "\r" if sys.stdout.isatty() and done < seeds else "\n"
    print(f"{line:<110}", end=end, flush=True)


def section(options, sums, seconds):
    """The section of the report."""
    command = "bench/seeds " + shlex.join(word for word in sys.argv[1:] if word != "--report")
    virtual = sums["seconds on their own clocks"] / 3600
    rows = "\n".join(f"| {row} | {sums[row]:,} |" for row in ROWS if sums[row])
    kind = "with SQL statements" if options.statements else "without SQL"
    return f"""{BEGIN}
### Seeds

The seeds {options.start:,} to {options.start + options.seeds - 1:,}, {kind}: no checker found anything. Each is a world of its
own, with {virtual / options.seeds * 3600:.0f} s on its own clock as a mean, {virtual:,.0f} hours together. It took
{seconds / 60:,.0f} minutes, {seconds / options.seeds:.2f} s a seed.

| in all of them | |
|---|---|
{rows}

A *crash* is the end of a broker's process at any await, with everything that was not yet durable gone. {report.machine()},
{datetime.date.today()}, commit `{report.commit()}`, `{command.strip()}`.
{END}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--from", dest="start", type=int, default=0)
    parser.add_argument("--statements", action="store_true")
    parser.add_argument("--slice", type=int, default=20, help="seeds of one process")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if min(options.seeds, options.slice, options.jobs) < 1 or options.start < 0:
        parser.error("numbers are positive")
    package, example = EXAMPLES[options.statements]
    try:
        sums, seconds = run(options, built(options.statements))
    except Failed as failed:
        seed, lines = failed.args
        print(f"\nseed {seed} fails:")
        print("\n".join(lines))
        print(f"repeat with: cargo run --release -p {package} --example {example} -- --seeds 1 --from {seed}")
        sys.exit(1)
    for row in ROWS:
        if sums[row]:
            print(f"{row:<44}{sums[row]:>16,}")
    print(f"{options.seeds} seeds passed in {seconds:.0f} s, {seconds / options.seeds:.2f} s a seed")
    if options.report:
        report.put(BEGIN, END, section(options, sums, seconds), "reliability.md")


if __name__ == "__main__":
    main()
