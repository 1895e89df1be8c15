"""Changes under a live producer."""

import common
from clientproc import NAMES, OTHERS, run

COUNT = 20


def cases():
    for client in [*NAMES, *OTHERS]:
        what = f"{client}: a topic is deleted and created again under a live idempotent producer"
        yield "Producers", what, recreated(client)


def recreated(client):
    """The partition does not know the producer. The client goes on and delivers every record once, in order."""
    def check(broker):
        topic = f"producers-recreated-{client}"
        broker.create(topic)
        events = run(client, "recreate", broker, topic, count=COUNT)
        offsets = [event["offset"] for event in events if event["event"] == "delivered"]
        assert offsets == list(range(COUNT)), offsets
        values = [event["value"] for event in run("librdkafka", "consume", broker, topic, count=COUNT)]
        assert values == [common.digest(f"after-{i}".encode()) for i in range(COUNT)], values
    return check
