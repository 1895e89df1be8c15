"""Measures one release build into an empty folder. Called by bench/build."""

import datetime
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import time

import report

JOBS = 2
SLOWEST = 15
TICKS = os.sysconf("SC_CLK_TCK")
COMMAND = ["cargo", "build", "--release", "--locked", "--offline", "--timings", "--jobs", str(JOBS)]


def busy_seconds():
    """What all processors have worked so far, in seconds."""
    fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / TICKS


def clock(seconds):
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


def units(target):
    """Name and seconds of each compiled unit, slowest first, as cargo's own report has them."""
    page = sorted(pathlib.Path(target, "cargo-timings").glob("cargo-timing-*.html"))[-1].read_text()
    data = json.loads(re.search(r"UNIT_DATA = (\[.*?\]);\n", page, re.S).group(1))
    return sorted(((u["duration"], f"{u['name']} {u['version']}{u['target']}") for u in data), reverse=True)


def main():
    target, is_report = sys.argv[1], sys.argv[2] == "true"
    before, began = busy_seconds(), time.monotonic()
    subprocess.run(COMMAND, check=True, env={**os.environ, "CARGO_TARGET_DIR": target})
    wall, busy = time.monotonic() - began, busy_seconds() - before
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    binary = pathlib.Path(target, "release", "floe")
    slowest = units(target)
    lines = [
        "# The first build",
        "",
        f"Measured by `bench/build --report` on {datetime.date.today()} at commit {report.commit()}: "
        f"{os.cpu_count()} cores, {report.processor()}, {JOBS} jobs, nothing compiled before, all crates downloaded before.",
        "",
        "| what | figure |",
        "|---|---:|",
        f"| time | {clock(wall)} |",
        f"| processor time | {clock(cpu)} |",
        f"| processor time of everything else on the machine meanwhile | {clock(max(0.0, busy - cpu))} |",
        f"| compiled units | {len(slowest)} |",
        f"| binary | {binary.stat().st_size / 1e6:.1f} MB |",
        "",
        "The slowest units, in seconds. Two at a time share the cores.",
        "",
        "| unit | seconds |",
        "|---|---:|",
        *[f"| {name} | {seconds:.1f} |" for seconds, name in slowest[:SLOWEST]],
        "",
    ]
    print("\n".join(lines))
    if is_report:
        pathlib.Path("docs/build.md").write_text("\n".join(lines))


main()
