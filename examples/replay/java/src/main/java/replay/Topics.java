package replay;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Scimtail's topics, read by partition: there is no consumer group, and no offset in Kafka. */
final class Topics {
    private static final Duration POLL = Duration.ofMillis(200);

    private final String registry;
    private final String prefix;
    private final Map<String, Object> settings;
    private final HttpClient http = HttpClient.newHttpClient();
    private final Map<Integer, Schema> schemas = new HashMap<>();

    /** How far a topic was written as of a marker. */
    record Position(String topic, int partition, long nextOffset) {}

    Topics(String brokers, String registry, String prefix) {
        this.registry = registry;
        this.prefix = prefix;
        this.settings = Map.of(
                "bootstrap.servers", brokers,
                // Not the default of this client, which shows the records of aborted transactions.
                "isolation.level", "read_committed",
                "enable.auto.commit", false,
                // A prefix that is misspelt makes no topics.
                "allow.auto.create.topics", false,
                // The next event is gone: better ended than passed over. The restart loads state again.
                "auto.offset.reset", "none");
    }

    /** A consumer of partitions, from these offsets. */
    KafkaConsumer<String, byte[]> reading(String kind, Map<Integer, Long> starts) {
        KafkaConsumer<String, byte[]> consumer = consumer();
        consumer.assign(starts.keySet().stream().map(partition -> place(kind, partition)).toList());
        starts.forEach((partition, start) -> consumer.seek(place(kind, partition), start));
        return consumer;
    }

    long startOfEvents(int partition) {
        try (KafkaConsumer<String, byte[]> consumer = consumer()) {
            return consumer.beginningOffsets(List.of(place("events", partition))).get(place("events", partition));
        }
    }

    /** Behind the last record, which may not be committed yet. */
    long endOfEvents(int partition) {
        Map<String, Object> uncommitted = new HashMap<>(settings);
        uncommitted.put("isolation.level", "read_uncommitted");
        TopicPartition place = place("events", partition);
        try (KafkaConsumer<String, byte[]> consumer =
                new KafkaConsumer<>(uncommitted, new StringDeserializer(), new ByteArrayDeserializer())) {
            return consumer.endOffsets(List.of(place)).get(place);
        }
    }

    /** The record of the account's newest completed sync; waits for the first one. */
    GenericRecord marker(String account) throws IOException, InterruptedException {
        try (KafkaConsumer<String, byte[]> consumer = consumer()) {
            List<TopicPartition> partitions = new ArrayList<>();
            List<PartitionInfo> known = consumer.partitionsFor(prefix + ".syncs");
            if (known == null || known.isEmpty()) {
                throw new IOException("there is no topic " + prefix + ".syncs; is the prefix right?");
            }
            for (PartitionInfo partition : known) {
                partitions.add(place("syncs", partition.partition()));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            GenericRecord marker = null;
            boolean isWaiting = false;
            while (true) {
                boolean isRead = partitions.stream().allMatch(place -> consumer.position(place) >= ends.get(place));
                if (isRead && marker != null) {
                    return marker;
                }
                if (isRead && !isWaiting) {
                    isWaiting = true;
                    System.err.println(account + ": no sync of this account is complete in " + prefix
                            + ".syncs; waiting for the first. Is the name right?");
                }
                for (ConsumerRecord<String, byte[]> record : consumer.poll(POLL)) {
                    if (record.key().equals(account)) {
                        // A tombstone: the account was retired.
                        marker = record.value() == null ? null : decode(record.value());
                    }
                }
            }
        }
    }

    /** By what they are of: events, users, groups, memberships. */
    Map<String, Position> positions(GenericRecord marker) {
        Map<String, Position> positions = new HashMap<>();
        for (Object element : (List<?>) marker.get("positions")) {
            GenericRecord position = (GenericRecord) element;
            String topic = position.get("topic").toString();
            positions.put(
                    topic.substring(prefix.length() + 1),
                    new Position(topic, (Integer) position.get("partition"), (Long) position.get("next_offset")));
        }
        return positions;
    }

    /** The account's live records of a compacted topic up to the marker's position. */
    List<GenericRecord> state(String account, Position position) throws IOException, InterruptedException {
        Map<String, GenericRecord> records = new HashMap<>();
        TopicPartition place = new TopicPartition(position.topic, position.partition);
        try (KafkaConsumer<String, byte[]> consumer = consumer()) {
            consumer.assign(List.of(place));
            consumer.seekToBeginning(List.of(place));
            // The consumer's position, because the last record before the marker's may be compacted away.
            while (consumer.position(place) < position.nextOffset) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(POLL)) {
                    // What lies behind the position belongs to a sync that the marker does not cover.
                    if (record.offset() >= position.nextOffset || !record.key().startsWith(account + "/")) {
                        continue;
                    }
                    if (record.value() == null) {
                        records.remove(record.key());
                    } else {
                        records.put(record.key(), decode(record.value()));
                    }
                }
            }
        }
        return List.copyOf(records.values());
    }

    /** A value: a zero byte, the id of its schema in four bytes, and the datum. */
    GenericRecord decode(byte[] value) throws IOException, InterruptedException {
        ByteBuffer bytes = ByteBuffer.wrap(value);
        if (bytes.get() != 0) {
            throw new IOException("the value does not begin with the id of a schema");
        }
        int id = bytes.getInt();
        Schema schema = schemas.get(id);
        if (schema == null) {
            schema = fetch(id);
            schemas.put(id, schema);
        }
        return new GenericDatumReader<GenericRecord>(schema)
                .read(null, DecoderFactory.get().binaryDecoder(value, bytes.position(), bytes.remaining(), null));
    }

    private Schema fetch(int id) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).build();
        HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new IOException("the registry answers " + response.statusCode() + " for schema " + id);
        }
        return new Schema.Parser().parse(new ObjectMapper().readTree(response.body()).get("schema").asText());
    }

    private KafkaConsumer<String, byte[]> consumer() {
        return new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
    }

    private TopicPartition place(String kind, int partition) {
        return new TopicPartition(prefix + "." + kind, partition);
    }
}
