// The Java client as a line-oriented tool: produce, consume, member, recreate. The other clients in this folder do the
// same.
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

public class Client {
    static Map<String, String> flags = new HashMap<>();

    public static void main(String[] args) throws Exception {
        for (int i = 1; i + 1 < args.length; i += 2) flags.put(args[i].substring(2), args[i + 1]);
        switch (args[0]) {
            case "produce" -> produce();
            case "consume" -> consume();
            case "member" -> member();
            case "recreate" -> recreate();
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static byte[] bytes(String text) { return text.getBytes(StandardCharsets.UTF_8); }

    static void produce() throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", flags.get("bootstrap"));
        p.put("compression.type", flags.get("codec"));
        String mode = flags.getOrDefault("mode", "idempotent");
        p.put("acks", mode.equals("unacknowledged") ? "0" : "all");
        p.put("enable.idempotence", mode.equals("idempotent"));
        p.put("max.request.size", "2000000");
        if (flags.containsKey("patience")) p.put("request.timeout.ms", flags.get("patience"));
        int count = Integer.parseInt(flags.get("count"));
        try (var producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < count; i++) {
                byte[] key = i % 5 == 0 ? null : bytes("key-" + i);
                byte[] value = i % 7 == 3 ? null : bytes(("value-" + i + "-").repeat(1 + i % 50));
                if (i == count - 1) { value = new byte[1000000]; for (int b = 0; b < value.length; b++) value[b] = (byte) (b * 31 % 251); }
                List<Header> headers = i % 3 == 0
                    ? List.of(new RecordHeader("h1", bytes("a")), new RecordHeader("h1", bytes("b")),
                              new RecordHeader("empty", new byte[0]), new RecordHeader("nul", (byte[]) null))
                    : List.of();
                if (flags.containsKey("delay")) Thread.sleep(Long.parseLong(flags.get("delay")));
                sent.add(producer.send(new ProducerRecord<>(flags.get("topic"), 0, 1700000000000L + i * 1000L, key, value, headers)));
            }
            for (var s : sent) s.get();
        }
        System.out.println("{\"event\":\"produced\",\"count\":" + count + "}");
    }

    /** Writes, deletes the topic and makes it anew, and goes on writing with the same idempotent producer. */
    static void recreate() throws Exception {
        String topic = flags.get("topic");
        int count = Integer.parseInt(flags.get("count"));
        Map<String, Object> p = Map.of("bootstrap.servers", flags.get("bootstrap"), "acks", "all", "enable.idempotence", "true",
            "delivery.timeout.ms", "40000", "request.timeout.ms", "10000", "linger.ms", "0");
        try (var producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
             var admin = Admin.create(Map.of("bootstrap.servers", flags.get("bootstrap")))) {
            for (int i = 0; i < count; i++) producer.send(new ProducerRecord<>(topic, 0, null, bytes("before-" + i))).get();
            admin.deleteTopics(List.of(topic)).all().get(20, TimeUnit.SECONDS);
            long end = System.currentTimeMillis() + 20000;
            while (true) {
                try {
                    admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get(20, TimeUnit.SECONDS);
                    break;
                } catch (java.util.concurrent.ExecutionException e) {
                    // In Apache Kafka the name becomes free only after a moment.
                    if (System.currentTimeMillis() > end) throw e;
                    Thread.sleep(200);
                }
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < count; i++) sent.add(producer.send(new ProducerRecord<>(topic, 0, null, bytes("after-" + i))));
            for (var s : sent) System.out.println("{\"event\":\"delivered\",\"offset\":" + s.get().offset() + "}");
        }
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, String> more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", flags.get("bootstrap"));
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "earliest");
        p.putAll(more);
        return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static void consume() throws Exception {
        int count = Integer.parseInt(flags.get("count"));
        try (var consumer = consumer(Map.of())) {
            var partition = new TopicPartition(flags.get("topic"), 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            int seen = 0;
            long end = System.currentTimeMillis() + 30000;
            while (seen < count && System.currentTimeMillis() < end) {
                for (var record : consumer.poll(Duration.ofMillis(500))) { System.out.println(json(record)); seen++; }
            }
        }
    }

    static void member() throws Exception {
        var consumer = consumer(Map.of("group.id", flags.get("group"), "session.timeout.ms", flags.getOrDefault("session", "6000"), "heartbeat.interval.ms", "500",
            "group.protocol", "classic", "partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor"));
        var main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try { main.join(5000); } catch (InterruptedException e) { Thread.currentThread().interrupt(); }
        }));
        try (consumer) {
            consumer.subscribe(List.of(flags.get("topic")), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> p) { }
                public void onPartitionsAssigned(Collection<TopicPartition> p) {
                    var owned = p.stream().map(TopicPartition::partition).sorted().toList();
                    System.out.println("{\"event\":\"assigned\",\"partitions\":" + owned + "}");
                }
            });
            while (true) {
                var records = consumer.poll(Duration.ofMillis(200));
                for (var r : records) System.out.println("{\"event\":\"record\",\"partition\":" + r.partition() + ",\"offset\":" + r.offset() + "}");
                if (!records.isEmpty()) try {
                    consumer.commitSync();
                    StringJoiner done = new StringJoiner(",");
                    for (var r : records) done.add("[" + r.partition() + "," + r.offset() + "]");
                    System.out.println("{\"event\":\"committed\",\"records\":[" + done + "]}");
                } catch (CommitFailedException | org.apache.kafka.common.errors.RebalanceInProgressException e) { /* another member reads these records again */ }
            }
        } catch (org.apache.kafka.common.errors.WakeupException e) { /* asked to stop */ }
    }

    static String json(ConsumerRecord<byte[], byte[]> r) throws Exception {
        StringBuilder h = new StringBuilder();
        for (Header header : r.headers()) {
            if (h.length() > 0) h.append(",");
            h.append("[\"").append(header.key()).append("\",").append(digest(header.value())).append("]");
        }
        return "{\"event\":\"record\",\"offset\":" + r.offset() + ",\"timestamp\":" + r.timestamp() + ",\"key\":" + digest(r.key())
            + ",\"value\":" + digest(r.value()) + ",\"headers\":[" + h + "]}";
    }

    static String digest(byte[] b) throws Exception {
        if (b == null) return "null";
        return "\"" + HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(b)).substring(0, 16) + "\"";
    }
}
