"""Records in a bucket: Floe on a foreign S3 server is killed and started again, and PyIceberg reads from the bucket."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

import boto3
from pyiceberg.catalog import load_catalog

import broker as brokers
from clientproc import until

KEYS = {"AWS_ACCESS_KEY_ID": "interop", "AWS_SECRET_ACCESS_KEY": "interop"}


def cases():
    yield "Bucket", "records and tables live in S3, survive kill -9, and are read from there by PyIceberg", lives
    yield "Bucket", "a broker with other metadata is refused the bucket of a cluster", refused
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


def lives(_):
    with Bucket() as bucket:
        broker = brokers.Floe(*bucket.flags())
        try:
            broker.create("bucket", 2, floe_table="json")
            produce(broker, range(500))
            broker.kill()
            broker.start()
            produce(broker, range(500, 700))
            assert broker.sql("SELECT count(*) AS n, sum(id) AS s FROM bucket") == [{"n": 700, "s": sum(range(700))}]
            consumed = subprocess.run(["kcat", "-C", "-b", broker.bootstrap, "-t", "bucket", "-e", "-q"],
                                      capture_output=True, check=True, timeout=60).stdout.count(b"\n")
            assert consumed == 700, consumed
            properties = {"s3.endpoint": bucket.endpoint, "s3.access-key-id": "interop", "s3.region": "us-east-1",
                          "s3.secret-access-key": "interop"}
            catalog = load_catalog("floe", type="rest", uri=f"http://{broker.http}/iceberg", **properties)
            until("the table is there", lambda: catalog.table_exists("default.bucket"))
            rows = lambda: catalog.load_table("default.bucket").scan().to_arrow().num_rows  # noqa: E731
            until("PyIceberg counts 700 rows", lambda: rows() == 700)
            assert catalog.load_table("default.bucket").metadata_location.startswith("s3://floe-interop/some/prefix/")
        finally:
            broker.close()


def refused(_):
    with Bucket() as bucket, tempfile.TemporaryDirectory(prefix="floe-interop-") as scratch:
        broker = brokers.Floe(*bucket.flags())
        try:
            second = subprocess.run(
                [os.environ["FLOE_BIN"], "serve", "--data", f"{scratch}/data", "--kafka", "127.0.0.1:0", "--http",
                 "127.0.0.1:0", *bucket.flags()], capture_output=True, text=True, timeout=60)
            assert second.returncode == 1 and "belongs to the cluster" in second.stderr, second
        finally:
            broker.close()


def checked(_):
    with Bucket() as bucket:
        broker = brokers.Floe(*bucket.flags())
        try:
            broker.create("bucket", 1)
            produce(broker, range(100))
            broker.kill()

            def check():
                command = [os.environ["FLOE_BIN"], "check", f"{broker.dir}/data", "--json", *bucket.flags()]
                ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
                return ended.returncode, json.loads(ended.stdout)

            code, found = check()
            assert code == 0 and found["whole"] and not found["refused"] + found["damaged"], found
            gone = bucket.keys("wal")[0]
            bucket.client().delete_object(Bucket="floe-interop", Key=gone)
            code, found = check()
            assert code == 1 and not found["refused"] and gone.removeprefix("some/prefix/") in str(found["damaged"]), found
            broker.start()
            log = open(broker.log.name).read()
            assert gone.removeprefix("some/prefix/") in log, log
        finally:
            broker.close()
