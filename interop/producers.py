"""Changes under a live producer."""

import common
from clientproc import run

COUNT = 20


def cases():
    yield "Producers", "a topic is deleted and created again under a live idempotent Java producer", recreated


def recreated(broker):
    """The partition does not know the producer. The client goes on and delivers every record once."""
    topic = "producers-recreated"
    broker.create(topic)
    events = run("java", "recreate", broker, topic, count=COUNT)
    offsets = [event["offset"] for event in events if event["event"] == "delivered"]
    assert offsets == list(range(COUNT)), offsets
    values = [event["value"] for event in run("java", "consume", broker, topic, count=COUNT)]
    assert values == [common.digest(f"after-{i}".encode()) for i in range(COUNT)], values
