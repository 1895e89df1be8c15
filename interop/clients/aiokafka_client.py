"""aiokafka."""

import asyncio
import signal
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

import common


def producer(args, **more):
    acks = 0 if args.mode == "unacknowledged" else "all"
    return AIOKafkaProducer(bootstrap_servers=args.bootstrap, enable_idempotence=args.mode == "idempotent", acks=acks,
                            request_timeout_ms=args.patience, max_request_size=2_000_000, **more)


async def produce(args):
    async with producer(args, compression_type=None if args.codec == "none" else args.codec, linger_ms=5) as sender:
        sent = []
        for i in range(args.count):
            key, value, headers, timestamp = common.record(i, args.count, all_nulls=False)
            await asyncio.sleep(args.delay / 1000)
            sent.append(await sender.send(args.topic, value, key, 0, timestamp, headers))
        for future in sent:
            await asyncio.wait_for(future, 60)
    common.say({"event": "produced", "count": args.count})


async def anew(args):
    """Deletes the topic and creates it again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=args.bootstrap)
    await admin.start()
    await admin.delete_topics([args.topic])
    end = time.monotonic() + common.FREE_S
    while True:
        answer = await admin.create_topics([NewTopic(args.topic, 1, 1)])
        codes = [error[1] for error in answer.topic_errors]
        if codes == [0]:
            break
        if time.monotonic() > end:
            raise SystemExit(f"the topic cannot be created again: {answer}")
        await asyncio.sleep(0.2)
    await admin.close()


async def recreate(args):
    async with producer(args) as sender:
        for i in range(args.count):
            await sender.send_and_wait(args.topic, f"before-{i}".encode(), partition=0)
        await anew(args)
        sent = [await sender.send(args.topic, f"after-{i}".encode(), partition=0) for i in range(args.count)]
        for future in sent:
            common.say({"event": "delivered", "offset": (await asyncio.wait_for(future, 60)).offset})


def consumer(args, *topics, **more):
    return AIOKafkaConsumer(*topics, bootstrap_servers=args.bootstrap, enable_auto_commit=False,
                            auto_offset_reset="earliest", max_partition_fetch_bytes=2_000_000, **more)


async def consume(args):
    async with consumer(args) as reader:
        partition = TopicPartition(args.topic, 0)
        reader.assign([partition])
        await reader.seek_to_beginning(partition)
        seen, end = 0, time.monotonic() + 30
        while seen < args.count and time.monotonic() < end:
            for r in sum((await reader.getmany(timeout_ms=500)).values(), []):
                common.say(common.normal(r.offset, r.timestamp, r.key, r.value, r.headers))
                seen += 1


class Listener(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        common.say({"event": "assigned", "partitions": sorted(p.partition for p in assigned)})


async def member(args):
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    reader = consumer(args, group_id=args.group, session_timeout_ms=args.session, heartbeat_interval_ms=500,
                      partition_assignment_strategy=[RangePartitionAssignor])
    reader.subscribe([args.topic], listener=Listener())
    async with reader:
        while not stopping.is_set():
            records = sum((await reader.getmany(timeout_ms=200)).values(), [])
            for r in records:
                common.say({"event": "record", "partition": r.partition, "offset": r.offset})
            if records:
                try:
                    await reader.commit()
                    common.say({"event": "committed", "records": [[r.partition, r.offset] for r in records]})
                except KafkaError:
                    pass  # a rebalance is in progress: another member reads these records again


def blocking(action):
    return lambda args: asyncio.run(action(args))


common.main(blocking(produce), blocking(consume), blocking(member), blocking(recreate))
