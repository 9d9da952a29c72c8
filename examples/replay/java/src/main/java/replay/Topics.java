package replay;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
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

/** Scimtail's topics, read by partition: without a consumer group or offsets in Kafka. */
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

    /** The newest completed sync of an account, null if there is none, and the offset behind its record. */
    record Found(GenericRecord marker, long next) {}

    /** A consumer of partitions, from these offsets; null is the first there is. */
    KafkaConsumer<String, byte[]> reading(Map<TopicPartition, Long> starts) {
        KafkaConsumer<String, byte[]> consumer = consumer(settings);
        consumer.assign(starts.keySet());
        starts.forEach((place, start) -> {
            if (start == null) {
                consumer.seekToBeginning(List.of(place));
            } else {
                consumer.seek(place, start);
            }
        });
        return consumer;
    }

    long start(TopicPartition place) {
        try (KafkaConsumer<String, byte[]> consumer = consumer(settings)) {
            return consumer.beginningOffsets(List.of(place)).get(place);
        }
    }

    /** Behind the last record, which may not be committed yet. */
    long end(TopicPartition place) {
        Map<String, Object> uncommitted = new HashMap<>(settings);
        uncommitted.put("isolation.level", "read_uncommitted");
        try (KafkaConsumer<String, byte[]> consumer = consumer(uncommitted)) {
            return consumer.endOffsets(List.of(place)).get(place);
        }
    }

    /** Whether the topic goes so far, and is not another by its name. */
    boolean reaches(Position position) {
        return end(new TopicPartition(position.topic, position.partition)) >= position.nextOffset;
    }

    List<TopicPartition> partitions(String kind) throws IOException {
        try (KafkaConsumer<String, byte[]> consumer = consumer(settings)) {
            List<PartitionInfo> known = consumer.partitionsFor(name(kind));
            if (known == null || known.isEmpty()) {
                throw new IOException("there is no topic " + name(kind) + "; is the prefix right?");
            }
            return known.stream().map(partition -> place(kind, partition.partition())).toList();
        }
    }

    /** The record of the account's newest completed sync. */
    Found marker(String account) throws IOException, InterruptedException {
        List<TopicPartition> partitions = partitions("syncs");
        Map<TopicPartition, Long> starts = new HashMap<>();
        partitions.forEach(place -> starts.put(place, null));
        try (KafkaConsumer<String, byte[]> consumer = reading(starts)) {
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            Found found = new Found(null, 0);
            while (partitions.stream().anyMatch(place -> consumer.position(place) < ends.get(place))) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(POLL)) {
                    if (record.key().equals(account)) {
                        // A tombstone: the account was retired.
                        found = new Found(record.value() == null ? null : decode(record.value()), record.offset() + 1);
                    }
                }
            }
            return found;
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
        Map<TopicPartition, Long> start = new HashMap<>();
        start.put(place, null);
        try (KafkaConsumer<String, byte[]> consumer = reading(start)) {
            // The consumer's position, because the last record before the marker's may be compacted away.
            while (consumer.position(place) < position.nextOffset) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(POLL)) {
                    // Records behind the position belong to a sync that the marker does not cover.
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

    private static KafkaConsumer<String, byte[]> consumer(Map<String, Object> settings) {
        return new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
    }

    String name(String kind) {
        return prefix + "." + kind;
    }

    TopicPartition place(String kind, int partition) {
        return new TopicPartition(name(kind), partition);
    }
}
