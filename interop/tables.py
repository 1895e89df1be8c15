"""The table is the log: PyIceberg, DuckDB and SQL find the records of the topic, without and after schema changes."""

import json
import subprocess

import duckdb
import duckdb_extension_avro
import duckdb_extension_httpfs
import duckdb_extension_iceberg
import pyarrow.compute as pc
from pyiceberg.catalog import load_catalog

from clientproc import until


def cases():
    yield "Tables", "SQL counts what was acknowledged, at once", fresh
    yield "Tables", "PyIceberg lists, loads, scans and filters a JSON table", pyiceberg
    yield "Tables", "DuckDB attaches the catalog and scans a JSON table", duck
    yield "Tables", "schema widening: new fields, int to long, int to double, text; no value lost", widening
    yield "Tables", "records that are not JSON go to the dead-letter topic", dead_letters
    yield "Tables", "a raw table holds keys, values and headers as bytes", raw


def produce(broker, topic, values, *flags):
    lines = "".join(f"{v if isinstance(v, str) else json.dumps(v)}\n" for v in values)
    subprocess.run(["kcat", "-P", "-b", broker.bootstrap, "-t", topic, *flags], input=lines, text=True, check=True, timeout=60)


def catalog(broker):
    return load_catalog("floe", type="rest", uri=f"http://{broker.http}/iceberg")


def iceberg(broker, topic, rows):
    """Waits until the table holds `rows` rows and returns it."""
    def count():
        try:
            return catalog(broker).load_table(f"default.{topic}").scan(selected_fields=("_offset",)).to_arrow().num_rows
        except Exception as error:  # the table does not exist yet
            return str(error)
    until(f"{topic} holds {rows} rows", lambda: count() == rows)
    return catalog(broker).load_table(f"default.{topic}")


def duckdb_connection(broker):
    con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    for package in (duckdb_extension_avro, duckdb_extension_httpfs, duckdb_extension_iceberg):
        name = package.__name__.removeprefix("duckdb_extension_")
        con.execute(f"LOAD '{package.__path__[0]}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    con.execute(f"ATTACH '' AS floe (TYPE iceberg, ENDPOINT 'http://{broker.http}/iceberg', AUTHORIZATION_TYPE 'none')")
    return con


def fresh(broker):
    broker.create("fresh", 2, floe_table="json")
    for round_number in range(1, 6):
        produce(broker, "fresh", [{"n": i} for i in range(100)], "-X", "acks=all")
        rows = broker.sql("SELECT count(*) AS n FROM fresh")
        assert rows == [{"n": 100 * round_number}], rows


def pyiceberg(broker):
    broker.create("orders", 3, floe_table="json")
    rows = [{"id": i, "price": i / 4, "name": f"n{i}", "at": f"2026-01-01T00:00:{i % 60:02}Z",
             "who": {"first": "a", "age": i}, "tags": ["x", f"t{i}"]} for i in range(500)]
    produce(broker, "orders", rows)
    table = iceberg(broker, "orders", 500)
    assert ("default", "orders") in catalog(broker).list_tables("default")
    data = table.scan(row_filter="id >= 490").to_arrow()
    assert data.num_rows == 10, data.num_rows
    everything = table.scan().to_arrow()
    assert pc.sum(everything["id"]).as_py() == sum(r["id"] for r in rows)
    assert pc.sum(everything["price"]).as_py() == sum(r["price"] for r in rows)
    assert str(everything.schema.field("at").type) == "timestamp[us, tz=UTC]", everything.schema
    one = next(r for r in everything.to_pylist() if r["id"] == 7)
    assert one["who"] == {"first": "a", "age": 7} and one["tags"] == ["x", "t7"], one
    pairs = {(r["_partition_id"], r["_offset"]) for r in everything.to_pylist()}
    assert len(pairs) == 500


def duck(broker):
    broker.create("ducks", 2, floe_table="json")
    produce(broker, "ducks", [{"id": i, "what": "quack"} for i in range(300)])
    iceberg(broker, "ducks", 300)
    con = duckdb_connection(broker)
    assert con.execute("SELECT count(*), sum(id), min(what) FROM floe.default.ducks").fetchall() == [(300, 44850, "quack")]
    assert con.execute("SELECT count(*) FROM floe.default.ducks WHERE id >= 290").fetchall() == [(10,)]


def widening(broker):
    broker.create("widening", 1, floe_table="json")
    steps = [[{"a": 1, "b": 1, "c": 1}], [{"a": 5_000_000_000, "b": 2, "c": 2}], [{"a": 3, "b": 2.5, "c": "text"}],
             [{"a": 4, "b": 4, "c": 3, "d": {"e": True}}], [{"d": {"e": False, "f": [1, 2]}}]]
    for number, step in enumerate(steps, 1):
        produce(broker, "widening", step)
        table = iceberg(broker, "widening", number)
    data = table.scan().to_arrow().sort_by("_offset").to_pylist()
    assert [r["a"] for r in data] == [1, 5_000_000_000, 3, 4, None], data
    assert [r["b"] for r in data] == [1.0, 2.0, 2.5, 4.0, None], data
    assert [r["c"] for r in data] == [1, 2, None, 3, None], data
    texts = [v for r in data for k, v in r.items() if k.startswith("c") and k != "c" and v is not None]
    assert len(texts) == 1 and "text" in texts[0], data
    assert data[4]["d"] == {"e": False, "f": [1, 2]} and data[3]["d"]["e"] is True, data
    rows = broker.sql("SELECT a, b, c FROM widening ORDER BY _offset")
    assert [r.get("b") for r in rows] == [1.0, 2.0, 2.5, 4.0, None], rows
    con = duckdb_connection(broker)
    assert con.execute("SELECT sum(a), sum(b), sum(c) FROM floe.default.widening").fetchall() == [(5_000_000_008, 9.5, 6)]


def dead_letters(broker):
    broker.create("letters", 1, floe_table="json")
    produce(broker, "letters", [{"ok": 1}, "this is not JSON", "[1, 2]", {"ok": 2}])
    iceberg(broker, "letters", 2)
    read = subprocess.run(["kcat", "-C", "-b", broker.bootstrap, "-t", "letters.dead-letter", "-e", "-q", "-f", "%h|%s\n"],
                          capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    assert [line.rsplit("|", 1)[1] for line in read] == ["this is not JSON", "[1, 2]"], read
    assert all("reason" in line for line in read), read


def raw(broker):
    broker.create("rawtable", 1, floe_table="raw")
    produce(broker, "rawtable", ["k1:v1", "k2:v2"], "-K:", "-H", "h=x")
    data = iceberg(broker, "rawtable", 2).scan().to_arrow().sort_by("_offset").to_pylist()
    assert [(r["key"], r["value"]) for r in data] == [(b"k1", b"v1"), (b"k2", b"v2")], data
    assert data[0]["headers"][0]["key"] == "h" and data[0]["headers"][0]["value"] == b"x", data
