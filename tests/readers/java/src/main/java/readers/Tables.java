package readers;

import io.apicurio.registry.serde.SerdeConfig;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.avro.LogicalTypes;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.GlobalKTable;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TableJoined;
import org.apache.kafka.streams.processor.StreamPartitioner;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;

/**
 * Kafka Streams over the compacted topics: tables of users, groups and memberships, and who has
 * access to what, joined in three ways. Prints the content of each store when all is read, one
 * line of JSON a key.
 *
 * <p>The arguments: brokers, URL of Apicurio's own API, topic prefix, a directory for state.
 */
public final class Tables {
    private static final Duration CAUGHT_UP_MAX = Duration.ofSeconds(90);
    private static final Duration POLL = Duration.ofMillis(200);

    private final String prefix;
    private final Serde<GenericRecord> avro;

    private Tables(String registry, String prefix) {
        this.prefix = prefix;
        this.avro = avro(registry);
    }

    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0];
        Tables tables = new Tables(arguments[1], arguments[2]);
        Path state = Files.createDirectories(Path.of(arguments[3]));
        List<String> stores = List.of("users", "groups", "memberships", "access-naive", "access-partitioned");
        run(brokers, tables.prefix + "-joined", state, tables.joined(), stores);
        run(brokers, tables.prefix + "-global", state, tables.global(), List.of("access-global"));
    }

    /** Tables, and foreign-key joins of them. */
    private StreamsBuilder joined() {
        StreamsBuilder builder = new StreamsBuilder();
        KTable<String, String> users = table(builder, "users");
        KTable<String, String> groups = table(builder, "groups");
        KTable<String, String> memberships = table(builder, "memberships");

        // A foreign-key join sends each membership to the partition that its user's key hashes to. The user is
        // not there but where the account's name hashes to: this finds a user only by chance.
        memberships
                .join(users, (key, membership) -> principal(key), Tables::pair)
                .join(groups, (key, pair) -> group(key), Tables::pair, named("access-naive"));

        // Told how the topics are partitioned, it finds every user, and follows every rename and removal.
        StreamPartitioner<String, Void> byAccount = (topic, key, value, partitions) ->
                Optional.of(Set.of(partition(key, partitions)));
        TableJoined<String, String> partitioned = TableJoined.with(byAccount, byAccount);
        memberships
                .join(users, (key, membership) -> principal(key), Tables::pair, partitioned)
                .join(groups, (key, pair) -> group(key), Tables::pair, partitioned, named("access-partitioned"));
        return builder;
    }

    /** Memberships as they come, each with the principal and group as known at that time. */
    private StreamsBuilder global() {
        StreamsBuilder builder = new StreamsBuilder();
        GlobalKTable<String, GenericRecord> users = builder.globalTable(prefix + ".users", consumed());
        GlobalKTable<String, GenericRecord> groups = builder.globalTable(prefix + ".groups", consumed());
        KStream<String, GenericRecord> memberships = builder.stream(prefix + ".memberships", consumed());
        KStream<String, String> access = memberships
                .mapValues(Tables::line)
                .join(users, (key, membership) -> principal(key), (membership, user) -> pair(membership, line(user)))
                .join(groups, (key, pair) -> group(key), (pair, group) -> pair(pair, line(group)));
        // A join passes over tombstones.
        KStream<String, String> removed =
                memberships.filter((key, membership) -> membership == null).mapValues(membership -> null);
        access.merge(removed).toTable(named("access-global"));
        return builder;
    }

    /**
     * As text before it becomes a table: then Streams writes no Avro to its stores, and no schema to the registry.
     * A null value, a tombstone, stays one: it takes the key out of the table.
     */
    private KTable<String, String> table(StreamsBuilder builder, String name) {
        return builder.stream(prefix + "." + name, consumed()).mapValues(Tables::line).toTable(named(name));
    }

    private Consumed<String, GenericRecord> consumed() {
        return Consumed.with(Serdes.String(), avro);
    }

    private static Materialized<String, String, KeyValueStore<Bytes, byte[]>> named(String store) {
        return Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as(store)
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.String());
    }

    /** The key of a membership begins with the key of its principal, and ends with the path of its group. */
    private static String principal(String key) {
        String[] parts = key.split("/");
        return String.join("/", parts[0], parts[1], parts[2]);
    }

    private static String group(String key) {
        String[] parts = key.split("/");
        return String.join("/", parts[0], parts[3], parts[4]);
    }

    /** Where scimtail puts every record: by the name of the account, with which every key begins. */
    private static int partition(String key, int partitions) {
        byte[] account = key.split("/")[0].getBytes(StandardCharsets.UTF_8);
        return Utils.toPositive(Utils.murmur2(account)) % partitions;
    }

    private static String pair(String left, String right) {
        return "[" + left + "," + right + "]";
    }

    /** Only for reading: values derived from the records are text. */
    private static Serde<GenericRecord> avro(String registry) {
        Deserializer<GenericRecord> deserializer = new AvroKafkaDeserializer<>();
        Map<String, Object> settings = new HashMap<>();
        settings.put(SerdeConfig.REGISTRY_URL, registry);
        // Confluent's framing: four bytes of id, and the id of the content, as Apicurio's Confluent API gives it.
        settings.put(SerdeConfig.ENABLE_CONFLUENT_ID_HANDLER, true);
        settings.put(SerdeConfig.USE_ID, "contentId");
        deserializer.configure(settings, false);
        return Serdes.serdeFrom(
                (topic, record) -> {
                    throw new IllegalStateException("Avro is only read here");
                },
                deserializer);
    }

    private static String line(GenericRecord record) {
        return record == null ? null : Line.of(plain(record.getSchema(), record));
    }

    private static Object plain(Schema schema, Object value) {
        return switch (schema.getType()) {
            case UNION -> value == null ? null : plain(schema.getTypes().get(1), value);
            case RECORD -> {
                Map<String, Object> fields = new LinkedHashMap<>();
                for (Schema.Field field : schema.getFields()) {
                    fields.put(field.name(), plain(field.schema(), ((GenericRecord) value).get(field.pos())));
                }
                yield fields;
            }
            case ARRAY ->
                ((List<?>) value)
                        .stream().map(element -> plain(schema.getElementType(), element)).collect(Collectors.toList());
            case MAP -> {
                Map<String, Object> entries = new LinkedHashMap<>();
                ((Map<?, ?>) value)
                        .forEach((key, entry) -> entries.put(key.toString(), plain(schema.getValueType(), entry)));
                yield entries;
            }
            case LONG ->
                schema.getLogicalType() instanceof LogicalTypes.TimestampMillis
                        ? Line.time(Instant.ofEpochMilli((Long) value))
                        : value;
            case STRING -> value.toString();
            case INT, BOOLEAN -> value;
            default -> throw new IllegalStateException("no record of scimtail has a " + schema.getType());
        };
    }

    private static void run(String brokers, String application, Path state, StreamsBuilder builder, List<String> stores)
            throws Exception {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        settings.put(StreamsConfig.consumerPrefix("isolation.level"), "read_committed");
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, POLL.toMillis());
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        // The serde of values derived from the records.
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        try (KafkaStreams streams = new KafkaStreams(builder.build(), settings);
                Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            streams.start();
            long deadline = System.nanoTime() + CAUGHT_UP_MAX.toNanos();
            // Twice, because records of one topic may be written to the next.
            for (int times = 0; times < 2; times = caughtUp(streams, admin, application) ? times + 1 : 0) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(application + " has not read everything after " + CAUGHT_UP_MAX);
                }
                Thread.sleep(POLL.toMillis());
            }
            for (String store : stores) {
                print(streams, store);
            }
        }
    }

    /** Whether the group's offsets are at the ends of all topics that it reads, its own included. */
    private static boolean caughtUp(KafkaStreams streams, Admin admin, String application) throws Exception {
        if (streams.state() == KafkaStreams.State.ERROR) {
            throw new IllegalStateException(application + " has failed");
        }
        if (streams.state() != KafkaStreams.State.RUNNING) {
            return false;
        }
        Map<TopicPartition, OffsetSpec> read = streams.metadataForLocalThreads().stream()
                .flatMap(thread -> thread.activeTasks().stream())
                .flatMap(task -> task.topicPartitions().stream())
                .collect(Collectors.toMap(partition -> partition, partition -> OffsetSpec.latest()));
        var committed = admin.listConsumerGroupOffsets(application).partitionsToOffsetAndMetadata().get();
        var ends = admin.listOffsets(read, new ListOffsetsOptions(IsolationLevel.READ_COMMITTED)).all().get();
        return !ends.isEmpty()
                && ends.entrySet().stream().allMatch(end -> end.getValue().offset() == 0
                        || committed.get(end.getKey()) != null
                                && committed.get(end.getKey()).offset() >= end.getValue().offset());
    }

    private static void print(KafkaStreams streams, String store) {
        try (KeyValueIterator<String, String> entries = streams
                .store(StoreQueryParameters.fromNameAndType(store, QueryableStoreTypes.<String, String>keyValueStore()))
                .all()) {
            entries.forEachRemaining(entry -> System.out.println(
                    Line.of(Map.of("store", store, "key", entry.key, "value", entry.value))));
        }
    }
}
