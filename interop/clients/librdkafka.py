"""librdkafka, through confluent-kafka."""

import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka import TIMESTAMP_CREATE_TIME
from confluent_kafka.admin import AdminClient, NewTopic

import common


def produce(args):
    failed = []
    producer = Producer({
        "bootstrap.servers": args.bootstrap,
        "compression.type": args.codec,
        "enable.idempotence": args.mode == "idempotent",
        "message.max.bytes": 2_000_000,
        "socket.timeout.ms": args.patience,
        "request.timeout.ms": args.patience,
    })
    for i in range(args.count):
        time.sleep(args.delay / 1000)
        key, value, headers, timestamp = common.record(i, args.count)
        producer.produce(args.topic, value, key, partition=0, timestamp=timestamp, headers=headers,
                         on_delivery=lambda error, _: failed.append(str(error)) if error else None)
        producer.poll(0)
    left = producer.flush(60)
    if failed or left:
        raise SystemExit(f"not delivered: {failed[:3]}, {left} left")
    common.say({"event": "produced", "count": args.count})


def recreate(args):
    delivered = []
    producer = Producer({"bootstrap.servers": args.bootstrap, "enable.idempotence": True})

    def send(tag):
        for i in range(args.count):
            producer.produce(args.topic, f"{tag}-{i}".encode(), partition=0,
                             on_delivery=lambda error, message: delivered.append(error or message.offset()))
        producer.flush(60)

    send("before")
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    admin.delete_topics([args.topic])[args.topic].result(20)
    common.insist(lambda: admin.create_topics([NewTopic(args.topic, 1, 1)])[args.topic].result(20), KafkaException)
    delivered.clear()
    send("after")
    for offset in delivered:
        common.say({"event": "delivered", "offset": offset if isinstance(offset, int) else str(offset)})


def consume(args):
    consumer = Consumer({"bootstrap.servers": args.bootstrap, "group.id": "unused", "enable.auto.commit": False,
                         "fetch.message.max.bytes": 2_000_000})
    consumer.assign([TopicPartition(args.topic, 0, 0)])
    seen, end = 0, time.monotonic() + 30
    while seen < args.count and time.monotonic() < end:
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        kind, timestamp = message.timestamp()
        assert kind == TIMESTAMP_CREATE_TIME, kind
        common.say(common.normal(message.offset(), timestamp, message.key(), message.value(), message.headers() or []))
        seen += 1
    consumer.close()


def member(args):
    stopping = []
    common.on_terminate(lambda: stopping.append(True))
    consumer = Consumer({
        "bootstrap.servers": args.bootstrap, "group.id": args.group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "session.timeout.ms": args.session, "heartbeat.interval.ms": 500,
        "partition.assignment.strategy": "range",
    })
    consumer.subscribe([args.topic], on_assign=lambda _, partitions: common.say(
        {"event": "assigned", "partitions": sorted(p.partition for p in partitions)}))
    while not stopping:
        message = consumer.poll(0.2)
        if message is None or message.error():
            continue
        common.say({"event": "record", "partition": message.partition(), "offset": message.offset()})
        try:
            consumer.commit(message, asynchronous=False)
            common.say({"event": "committed", "records": [[message.partition(), message.offset()]]})
        except KafkaException:
            pass  # a rebalance is in progress: another member reads this record again
    consumer.close()


common.main(produce, consume, member, recreate)
