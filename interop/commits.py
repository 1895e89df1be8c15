"""The history of commits is an Iceberg table: PyIceberg and DuckDB count what SQL counts, and cannot write."""

import json
import urllib.error
import urllib.request

from confluent_kafka import Producer

import broker as brokers
from clientproc import until
from tables import catalog, duckdb_connection


def cases():
    yield "Tables", "PyIceberg and DuckDB read the history of commits, and it stays read-only", history


def append(broker, records):
    """Sends records one after the other, so that each is a commit of its own."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "client.id": "historian"})
    for number in range(records):
        producer.produce("events", str(number))
        assert producer.flush(30) == 0


def last_commit(table):
    return int(table.current_snapshot().summary["floe.last-commit"])


def loaded(broker, after=0):
    """The table, once it has a commit after this one."""
    def load():
        table = catalog(broker).load_table("system.commits")
        return table if last_commit(table) > after else None

    def is_there():
        try:
            return load() is not None
        except Exception as error:  # the table does not exist yet
            return str(error)
    until(f"system.commits has commits after {after}", lambda: is_there() is True)
    return load()


def check(broker, table):
    last = last_commit(table)
    moved = broker.sql(f"SELECT count(*) AS n FROM system.commits WHERE lsn <= {last}")[0]["n"]
    rows = table.scan().to_arrow()
    assert rows.num_rows == moved, (rows.num_rows, moved)
    assert set(rows["lsn"].to_pylist()) == set(range(1, last + 1))
    assert str(rows.schema.field("time").type) == "timestamp[us, tz=UTC]", rows.schema
    con = duckdb_connection(broker)
    assert con.execute(f"SELECT count(*) FROM floe.system.commits WHERE lsn <= {last}").fetchone() == (moved,)
    appended = "SELECT CAST(sum(offsets) AS BIGINT) AS n FROM {}system.commits WHERE change = 'append' AND topic = 'events'"
    in_sql = broker.sql(appended.format("") + f" AND lsn <= {last}")[0]["n"]
    assert con.execute(appended.format("floe.") + f" AND lsn <= {last}").fetchone() == (in_sql,)
    return last


def written(broker):
    """What a client hears that commits to the table although the catalog does not offer it."""
    change = {"requirements": [], "updates": [{"action": "set-properties", "updates": {"mine": "yes"}}]}
    request = urllib.request.Request(f"http://{broker.http}/iceberg/v1/namespaces/system/tables/commits",
                                     json.dumps(change).encode(), {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        assert error.code == 406, error
        return error.read().decode()
    return "it was taken"


def history(_):
    broker = brokers.Floe("--table-default", "off", "--history-freshness-ms", "1000")
    try:
        broker.create("events", 1)
        append(broker, 150)
        first = loaded(broker)
        assert ("system",) in catalog(broker).list_namespaces()
        assert ("system", "commits") in catalog(broker).list_tables("system")
        last = check(broker, first)
        few = first.scan(row_filter="lsn >= 10 and lsn < 20", selected_fields=("lsn", "change")).to_arrow()
        assert set(few["lsn"].to_pylist()) == set(range(10, 20)), few
        append(broker, 150)
        second = loaded(broker, last)
        assert check(broker, second) > last
        # A snapshot before the current one, by its number.
        old = second.scan(snapshot_id=first.current_snapshot().snapshot_id).to_arrow()
        assert old.num_rows == first.scan().to_arrow().num_rows
        refused = written(broker)
        assert "history of commits" in refused, refused
        assert "mine" not in catalog(broker).load_table("system.commits").properties
        tables = [(row["table_schema"], row["table_name"]) for row in broker.sql("SHOW TABLES")]
        assert ("system", "commits") in tables, tables
    finally:
        broker.close()
