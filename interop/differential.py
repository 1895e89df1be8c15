"""Generated statements over nullable data: Floe answers as DuckDB does.

The rows of a seed are written to two topics: the first half is in the lake before the second half is written, which
stays in the log. The same rows go to DuckDB. Every seed makes the same rows and the same statements again.
A longer run: `interop/run differential.py --seeds 50 --from 1`. statements.py says which statements are left out.
"""

import argparse
import collections
import datetime
import json
import sys
import time
import urllib.error

import duckdb

import broker as brokers
import tables
from statements import COLUMNS, HALF, SQL_TYPES, Generator

FIXED_SEED = 8
STATEMENTS = 40
# Statements that are tried until DuckDB answers one with rows.
TRIES = 4
HOUR_MS = 3_600_000
# So much in the log becomes files at once; the least that a topic takes.
FILE_BYTES = 1 << 20
# Fewer statements with an answer of both engines say that the generator or an engine is broken.
MIN_SAME_SHARE = 0.8

SAME, WRONG, REFUSED = "same", "DIFFERENT", "REFUSED BY FLOE"


class Refused(Exception):
    """The engine refused the statement."""


def floe_answer(broker, statement):
    try:
        rows = broker.sql(statement.sql)
    except urllib.error.HTTPError as error:
        raise Refused(json.loads(error.read())["error"]["message"]) from error
    return [tuple(normal(row.get(f"c{place}"), kind) for place, kind in enumerate(statement.kinds)) for row in rows]


def duckdb_answer(connection, statement):
    try:
        rows = connection.execute(statement.sql).fetchall()
    except duckdb.Error as error:
        raise Refused(str(error)) from error
    return [tuple(normal(value, kind) for value, kind in zip(row, statement.kinds)) for row in rows]


def normal(value, kind):
    """A value as both engines show it: numbers without their width, times as texts."""
    if value is None or kind in ("text", "bool"):
        return value
    if kind in ("int", "double"):
        return float(f"{float(value):.9g}") + 0.0
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return value.strftime("%Y-%m-%d" if kind == "date" else "%Y-%m-%dT%H:%M:%S.%f")


def same(statement, left, right):
    return left == right if statement.ordered else collections.Counter(left) == collections.Counter(right)


def load(broker, connection, topic, rows):
    """The same rows in both engines: in Floe half of them as Iceberg files and half in the log."""
    broker.create(topic, floe_table="json", floe_table_freshness_ms=HOUR_MS, floe_table_file_bytes=FILE_BYTES,
                  floe_table_bad_record="skip")
    tables.produce(broker, topic, rows[:HALF] + ["no JSON, so it makes no row".ljust(FILE_BYTES // 2)] * 2)
    tables.iceberg(broker, topic, HALF)
    tables.produce(broker, topic, rows[HALF:])
    connection.execute(f"CREATE TABLE {topic} ({', '.join(f'{name} {SQL_TYPES[kind]}' for name, kind in COLUMNS.items())})")
    connection.executemany(f"INSERT INTO {topic} VALUES ({', '.join('?' * len(COLUMNS))})",
                           [[row[name] for name in COLUMNS] for row in rows])


class Run:
    """The statements of one seed on both engines."""

    def __init__(self, broker, seed):
        self.broker, self.connection = broker, duckdb.connect()
        self.counts, self.answers = collections.Counter(), []
        # The statements of these two outcomes with both answers.
        self.shown = {WRONG: [], REFUSED: []}
        self.topics = [f"shop_{seed}", f"sale_{seed}"]
        self.generator = Generator(seed, self.topics)
        for topic in self.topics:
            load(broker, self.connection, topic, self.generator.rows())

    def next(self):
        """A statement and DuckDB's answer. An answer without a row says little, so that another is tried."""
        for _ in range(TRIES):
            statement = self.generator.statement()
            answered, answer = attempt(duckdb_answer, self.connection, statement)
            if answered and answer:
                break
        return statement, answered, answer

    def compare(self):
        statement, duck, right = self.next()
        floe, left = attempt(floe_answer, self.broker, statement)
        if floe and duck:
            self.answers.append((statement, left))
            outcome = SAME if same(statement, left, right) else WRONG
        elif duck:
            outcome = REFUSED
        else:
            outcome = "refused by DuckDB" if floe else "refused by both"
        self.counts[outcome] += 1
        if outcome in self.shown:
            self.shown[outcome].append(f"{statement.sql}\n  Floe:   {left}\n  DuckDB: {right}")

    def sees_a_changed_row(self):
        """Whether some answer of Floe differs from DuckDB's after one row of DuckDB has changed."""
        self.connection.execute(f"UPDATE {self.topics[0]} SET k = 4, n = 99, town = 'Trier' WHERE u = 3")
        return any(not same(s, answer, attempt(duckdb_answer, self.connection, s)[1]) for s, answer in self.answers)


def attempt(answer, engine, statement):
    """Whether the engine answered, and the answer or the reason."""
    try:
        return True, answer(engine, statement)
    except Refused as reason:
        return False, str(reason)


def run_seed(broker, seed, statements, strict=True):
    """Runs one seed; raises when an answer differs. Without `strict`, differences are only printed."""
    print(f"seed {seed}, DuckDB {duckdb.__version__}", flush=True)
    run = Run(broker, seed)
    for _ in range(statements):
        run.compare()
    print(f"seed {seed}: {dict(sorted(run.counts.items()))}", flush=True)
    for outcome, shown in run.shown.items():
        print("".join(f"{outcome}, seed {seed}: {statement}\n" for statement in shown), end="", flush=True)
    if strict:
        assert not run.counts[WRONG], f"seed {seed}: {run.counts[WRONG]} answers differ, see above"
        assert not run.counts[REFUSED], f"seed {seed}: {run.counts[REFUSED]} refused by Floe, see above"
    in_lake = [tables.catalog(broker).load_table(f"default.{topic}").scan().to_arrow().num_rows for topic in run.topics]
    assert in_lake == [HALF] * len(run.topics), f"rows in the lake: {in_lake}; the rest belongs into the log"
    assert run.counts[SAME] > statements * MIN_SAME_SHARE, f"too few statements were compared: {run.counts}"
    assert run.sees_a_changed_row(), "the comparison does not see a changed row"


def cases():
    yield "SQL", f"{2 * STATEMENTS} generated statements answer as DuckDB does", generated


def generated(broker):
    """A fixed seed and one of the day. What only the day's seed finds is printed: no change broke it."""
    run_seed(broker, FIXED_SEED, STATEMENTS)
    run_seed(broker, int(time.strftime("%Y%m%d", time.gmtime())), STATEMENTS, strict=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--statements", type=int, default=STATEMENTS)
    args = parser.parse_args()
    broker, failed = brokers.Floe("--table-default", "off"), 0
    try:
        for seed in range(args.first, args.first + args.seeds):
            try:
                run_seed(broker, seed, args.statements)
            except AssertionError as difference:
                print(difference, flush=True)
                failed += 1
    finally:
        broker.close()
    print(f"{args.seeds - failed} seeds passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
