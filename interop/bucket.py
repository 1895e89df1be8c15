"""Records and journal in a bucket: Floe on a foreign S3 server loses its machine, and PyIceberg reads from the bucket."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

import boto3
from confluent_kafka import Producer
from pyiceberg.catalog import load_catalog

import broker as brokers
from clientproc import until

KEYS = {"AWS_ACCESS_KEY_ID": "interop", "AWS_SECRET_ACCESS_KEY": "interop"}


def cases():
    yield "Bucket", "everything lives in S3, and survives kill -9 with the data directory lost; PyIceberg reads it there", lives
    yield "Bucket", "a journal in the data directory survives kill -9, its records are in S3", kept
    yield "Bucket", "a broker with another journal is refused the bucket of a cluster", refused
    yield "Bucket", "of two brokers on one bucket, the older one that wakes up acknowledges nothing behind the newer one, and ends", replaced
    yield "Bucket", "`floe check` lists the bucket, names an object that is gone, and a start says the same", checked


class Bucket:
    """moto's S3 server with one bucket. It lives as long as the `with` block."""

    def __enter__(self):
        port = brokers.free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the S3 server answers", lambda: self.request("GET", "/") == 200)
        assert self.request("PUT", "/floe-interop") == 200
        os.environ.update(KEYS)
        return self

    def request(self, method, path):
        try:
            with urllib.request.urlopen(urllib.request.Request(self.endpoint + path, method=method), timeout=5) as answer:
                return answer.status
        except OSError as error:
            return str(error)

    def client(self):
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")

    def keys(self, folder):
        listed = self.client().list_objects_v2(Bucket="floe-interop", Prefix=f"some/prefix/{folder}/")
        return [found["Key"] for found in listed["Contents"]]

    def flags(self):
        return ["--store", "s3://floe-interop/some/prefix", "--s3-endpoint", self.endpoint]

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for key in KEYS:
            del os.environ[key]


def produce(broker, records):
    lines = "".join(f'{{"id": {i}, "half": {i / 2}}}\n' for i in records)
    subprocess.run(["kcat", "-P", "-b", broker.bootstrap, "-t", "bucket", "-X", "acks=all"], input=lines, text=True,
                   check=True, timeout=60)


def counted(broker, bucket, count):
    """SQL, a consumer and PyIceberg find so many records."""
    assert broker.sql("SELECT count(*) AS n, sum(id) AS s FROM bucket") == [{"n": count, "s": sum(range(count))}]
    consumed = subprocess.run(["kcat", "-C", "-b", broker.bootstrap, "-t", "bucket", "-e", "-q"],
                              capture_output=True, check=True, timeout=60).stdout.count(b"\n")
    assert consumed == count, consumed
    properties = {"s3.endpoint": bucket.endpoint, "s3.access-key-id": "interop", "s3.region": "us-east-1",
                  "s3.secret-access-key": "interop"}
    catalog = load_catalog("floe", type="rest", uri=f"http://{broker.http}/iceberg", **properties)
    until("the table is there", lambda: catalog.table_exists("default.bucket"))
    rows = lambda: catalog.load_table("default.bucket").scan().to_arrow().num_rows  # noqa: E731
    until(f"PyIceberg counts {count} rows", lambda: rows() == count)
    assert catalog.load_table("default.bucket").metadata_location.startswith("s3://floe-interop/some/prefix/")


def lives(_):
    """Without --journal, a new cluster with a bucket has its journal there."""
    with Bucket() as bucket:
        broker = brokers.Floe(*bucket.flags())
        try:
            broker.create("bucket", 2, floe_table="json")
            for round in range(3):
                produce(broker, range(round * 200, round * 200 + 200))
                broker.kill()
                assert not os.path.exists(f"{broker.dir}/data/journal")
                shutil.rmtree(f"{broker.dir}/data")
                broker.start()
                counted(broker, bucket, round * 200 + 200)
            writers = [key.rsplit("/", 1)[1] for key in bucket.keys("floe/writers")]
            assert writers == ["00000001", "00000002", "00000003", "00000004"], writers
        finally:
            broker.close()


def kept(_):
    with Bucket() as bucket:
        broker = brokers.Floe("--journal", "local", *bucket.flags())
        try:
            broker.create("bucket", 2, floe_table="json")
            produce(broker, range(500))
            broker.kill()
            # The claim says so, too.
            broker.flags = bucket.flags()
            broker.start()
            produce(broker, range(500, 700))
            counted(broker, bucket, 700)
            assert "is on this machine, and not in the bucket" in open(broker.log.name).read()
        finally:
            broker.close()


def serve(bucket, data, *more):
    """A start that ends by itself."""
    return subprocess.run(
        [os.environ["FLOE_BIN"], "serve", "--data", data, "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0",
         *bucket.flags(), *more], capture_output=True, text=True, timeout=60)


def refused(_):
    for journal, other in [("local", "bucket"), ("bucket", "local")]:
        with Bucket() as bucket, tempfile.TemporaryDirectory(prefix="floe-interop-") as scratch:
            broker = brokers.Floe("--journal", journal, *bucket.flags())
            try:
                second = serve(bucket, f"{scratch}/data", "--journal", other)
                assert second.returncode == 1 and "belongs to the cluster" in second.stderr, second
                assert f"--journal {journal}" in second.stderr, second
                if journal == "local":
                    second = serve(bucket, f"{scratch}/data")
                    assert second.returncode == 1 and "there is no metadata in" in second.stderr, second
                assert broker.process.poll() is None, "the first one serves on"
            finally:
                broker.close()


class Writer:
    """Sends numbered records one after the other with acks=all, and remembers which were acknowledged, and where."""

    def __init__(self, broker, name):
        self.producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 0,
                                  "message.timeout.ms": 8000, "enable.idempotence": True, "log_level": 0})
        self.name, self.acknowledged, self.sent = name, {}, 0

    def send(self, count):
        for _ in range(count):
            value = f"{self.name} {self.sent}".encode()
            self.sent += 1
            self.producer.produce("t", value, on_delivery=self.told)
            self.producer.poll(0)

    def told(self, error, message):
        if error is None:
            self.acknowledged[message.offset()] = message.value()


def replaced(_):
    with Bucket() as bucket:
        older = brokers.Floe(*bucket.flags())
        newer = None
        try:
            older.create("t", 1)
            writer = Writer(older, "older")
            writer.send(100)
            writer.producer.flush(20)
            assert len(writer.acknowledged) == 100
            writer.send(50)  # under way when it falls asleep
            older.process.send_signal(signal.SIGSTOP)
            newer = brokers.Floe(*bucket.flags())
            mine = Writer(newer, "newer")
            mine.send(100)
            mine.producer.flush(20)
            assert len(mine.acknowledged) == 100
            older.process.send_signal(signal.SIGCONT)
            writer.send(50)
            assert older.process.wait(60) == 3
            writer.producer.flush(20)
            said = open(older.log.name).read()
            assert "one broker at a time" in said and "It has everything that this broker acknowledged" in said, said
            both = writer.acknowledged | mine.acknowledged
            assert len(both) == len(writer.acknowledged) + len(mine.acknowledged), "an offset was given twice"
            # Every acknowledged record is there, and none of the older broker behind the newer one's first.
            stored = subprocess.run(["kcat", "-C", "-b", newer.bootstrap, "-t", "t", "-e", "-q", "-f", "%o %s\n"],
                                    capture_output=True, check=True, timeout=60).stdout.splitlines()
            stored = {int(offset): value for offset, _, value in (line.partition(b" ") for line in stored)}
            assert all(stored[offset] == value for offset, value in both.items()), (both, stored)
            first = min(mine.acknowledged)
            assert not [value for offset, value in stored.items() if offset > first and value.startswith(b"older")]
        finally:
            if newer:
                newer.close()
            older.log.close()
            shutil.rmtree(older.dir)


def checked(_):
    for journal in ["bucket", "local"]:
        with Bucket() as bucket:
            broker = brokers.Floe("--journal", journal, *bucket.flags())
            try:
                broker.create("bucket", 1)
                produce(broker, range(100))
                broker.kill()

                def check():
                    where = ["--data", f"{broker.dir}/data"] if journal == "local" else []
                    command = [os.environ["FLOE_BIN"], "check", "--json", *where, *bucket.flags()]
                    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
                    return ended.returncode, json.loads(ended.stdout)

                code, found = check()
                assert code == 0 and found["whole"] and not found["refused"] + found["damaged"], found
                gone = bucket.keys("wal")[0]
                bucket.client().delete_object(Bucket="floe-interop", Key=gone)
                code, found = check()
                named = gone.removeprefix("some/prefix/")
                assert code == 1 and not found["refused"] and named in str(found["damaged"]), found
                broker.start()
                log = open(broker.log.name).read()
                assert named in log, log
            finally:
                broker.close()
