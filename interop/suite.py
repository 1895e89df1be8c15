"""All cases. A case is a function that raises when it fails. The report card is written from the outcomes."""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT / "clients")]

import broker as brokers  # noqa: E402
import bucket  # noqa: E402
import commits  # noqa: E402
import differential  # noqa: E402
import groups  # noqa: E402
import matrix  # noqa: E402
import producers  # noqa: E402
import raw  # noqa: E402
import tables  # noqa: E402
import tools  # noqa: E402


def cases(peer):
    """All cases as (group, name, function of a broker)."""
    yield from matrix.cases()
    yield from producers.cases()
    yield from raw.cases()
    yield from tools.cases()
    yield from groups.cases()
    if not peer:
        yield from tables.cases()
        yield from commits.cases()
        yield from bucket.cases()
        yield from differential.cases()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--peer", action="store_true")
    args = parser.parse_args()
    if args.report:
        if args.peer or args.only:
            parser.error("the report is about all cases on Floe")
        if subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, cwd=ROOT, check=True).stdout:
            parser.error("the report names the commit that was tried: commit first")
    broker = brokers.ApacheKafka() if args.peer else brokers.Floe("--table-default", "off")
    outcomes = []
    try:
        for group, name, case in cases(args.peer):
            if args.only not in f"{group} {name}":
                continue
            started = time.monotonic()
            try:
                case(broker)
                outcome = "pass"
            except Exception:  # a failed case must not hide the others
                traceback.print_exc()
                outcome = "FAIL"
            outcomes.append((group, name, outcome))
            print(f"{outcome}  {group}: {name} ({time.monotonic() - started:.1f} s)", flush=True)
    finally:
        if any(outcome == "FAIL" for *_, outcome in outcomes) and hasattr(broker, "tail"):
            print(broker.tail(), file=sys.stderr)
        broker.close()
    failed = sum(outcome == "FAIL" for *_, outcome in outcomes)
    if args.report:
        report(outcomes)
    print(f"interop: {len(outcomes) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not outcomes else 0)


def report(outcomes):
    """Writes docs/compatibility.md."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("confluent-kafka", "kafka-python", "aiokafka", "pyiceberg", "pyarrow", "duckdb", "moto")]
    npm = json.loads((ROOT / "clients" / "kafkajs" / "package.json").read_text())["dependencies"]
    versions += [f"{name} {version}" for name, version in npm.items()]
    go = (ROOT / "clients" / "go" / "go.mod").read_text()
    versions += [f"{name} {version}" for name, version in re.findall(r"([a-z-]+) v([0-9.]+)$", go, re.MULTILINE)]
    versions.insert(0, f"Java client {re.search(r'kafka-clients</artifactId><version>([0-9.]+)<', (ROOT / 'java-2.8' / 'pom.xml').read_text())[1]}")
    lines = [
        "# Compatibility", "",
        "Written by `interop/run --report`; not edited by hand.", "",
        f"Commit {commit}, {time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}; "
        f"Apache Kafka clients and tools {brokers.KAFKA}, {', '.join(versions)}.", "",
    ]
    for group in dict.fromkeys(group for group, *_ in outcomes):
        lines += [f"## {group}", "", "| what | outcome |", "|---|---|"]
        lines += [f"| {name} | {outcome} |" for g, name, outcome in outcomes if g == group] + [""]
    (ROOT.parent / "docs").mkdir(exist_ok=True)
    (ROOT.parent / "docs" / "compatibility.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
