"""kafka-python."""

import time

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import CommitFailedError, KafkaError, TopicAlreadyExistsError

import common


def produce(args):
    producer = KafkaProducer(
        bootstrap_servers=args.bootstrap,
        compression_type=None if args.codec == "none" else args.codec,
        enable_idempotence=args.mode == "idempotent", acks="all", max_request_size=2_000_000, linger_ms=5,
        request_timeout_ms=args.patience,
    )
    sent = []
    for i in range(args.count):
        key, value, headers, timestamp = common.record(i, args.count, all_nulls=False)
        time.sleep(args.delay / 1000)
        sent.append(producer.send(args.topic, value, key, headers, partition=0, timestamp_ms=timestamp))
    for future in sent:
        future.get(60)
    producer.close()
    common.say({"event": "produced", "count": args.count})


def recreate(args):
    producer = KafkaProducer(bootstrap_servers=args.bootstrap, enable_idempotence=True, acks="all")
    for i in range(args.count):
        producer.send(args.topic, f"before-{i}".encode(), partition=0).get(60)
    admin = KafkaAdminClient(bootstrap_servers=args.bootstrap)
    admin.delete_topics([args.topic])
    common.insist(lambda: admin.create_topics([NewTopic(args.topic, 1, 1)]), TopicAlreadyExistsError)
    sent = [producer.send(args.topic, f"after-{i}".encode(), partition=0) for i in range(args.count)]
    for future in sent:
        common.say({"event": "delivered", "offset": future.get(60).offset})
    producer.close()


def consumer(args, **more):
    return KafkaConsumer(bootstrap_servers=args.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
                         max_partition_fetch_bytes=2_000_000, **more)


def consume(args):
    reader = consumer(args)
    partition = TopicPartition(args.topic, 0)
    reader.assign([partition])
    reader.seek_to_beginning(partition)
    seen, end = 0, time.monotonic() + 30
    while seen < args.count and time.monotonic() < end:
        for r in sum(reader.poll(500).values(), []):
            common.say(common.normal(r.offset, r.timestamp, r.key, r.value, r.headers))
            seen += 1
    reader.close()


class Listener(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        common.say({"event": "assigned", "partitions": sorted(p.partition for p in assigned)})


def member(args):
    stopping = []
    common.on_terminate(lambda: stopping.append(True))
    reader = consumer(args, group_id=args.group, session_timeout_ms=args.session, heartbeat_interval_ms=500,
                      partition_assignment_strategy=[RangePartitionAssignor])
    reader.subscribe([args.topic], listener=Listener())
    while not stopping:
        records = sum(reader.poll(200).values(), [])
        for r in records:
            common.say({"event": "record", "partition": r.partition, "offset": r.offset})
        if records:
            try:
                reader.commit()
                common.say({"event": "committed", "records": [[r.partition, r.offset] for r in records]})
            except (CommitFailedError, KafkaError):
                pass  # a rebalance is in progress: another member reads these records again
    reader.close()


common.main(produce, consume, member, recreate)
