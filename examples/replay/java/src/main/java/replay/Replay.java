package replay;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/**
 * Who has access to what, in a database of one's own: loaded once, then followed event by event.
 *
 * <pre>java -cp 'target/lib/*' replay.Replay BROKERS REGISTRY PREFIX DATABASE ACCOUNT...</pre>
 *
 * <p>For each account: state as of its newest completed sync (the marker) is read from the compacted topics. From then
 * on its events are applied, beginning with the first that the marker does not cover. The tables and the number of the
 * next event change in one transaction of the database, so a restart, however sudden, goes on at the next event. Later
 * markers are read, too: they say what changed without an event, and how many records there must be.
 * docs/consumers/replay.md explains the pattern.
 *
 * <p>The view {@code access} has direct memberships: a user that is in a group through another group is not in it.
 * {@code scimtail state access} resolves nesting, and docs/consumers/replay.md has a query that does.
 */
public final class Replay {
    private static final Duration BATCH_MAX = Duration.ofMillis(200);
    /**
     * A marker may be replaced by a newer one after `min.compaction.lag.ms` of the topic. A consumer that has read
     * none for longer cannot know the markers in between.
     */
    private static final Duration UNREAD_MAX = Duration.ofHours(6);
    /** If one of these differs in a newer marker, state was written again without events. */
    private static final List<String> SETTINGS = List.of("attributes", "group_pattern", "pseudonym_key_id");
    private static final List<String> TABLES = List.of(
            "CREATE TABLE IF NOT EXISTS progress (account TEXT PRIMARY KEY, partition INTEGER NOT NULL,"
                    + " loaded_marker INTEGER NOT NULL, loaded_sequence INTEGER NOT NULL, loaded_settings TEXT NOT NULL,"
                    + " next_sequence INTEGER NOT NULL, next_event INTEGER NOT NULL, next_marker INTEGER NOT NULL,"
                    + " read_until INTEGER NOT NULL)",
            "CREATE TABLE IF NOT EXISTS users (account TEXT, id TEXT, user_name TEXT, display_name TEXT, active INTEGER,"
                    + " PRIMARY KEY (account, id))",
            "CREATE TABLE IF NOT EXISTS groups (account TEXT, id TEXT, display_name TEXT, PRIMARY KEY (account, id))",
            "CREATE TABLE IF NOT EXISTS memberships (account TEXT, principal_type TEXT, principal_id TEXT, group_id TEXT,"
                    + " PRIMARY KEY (account, principal_type, principal_id, group_id))",
            // Applied events: the primary key refuses to apply an event twice.
            "CREATE TABLE IF NOT EXISTS applied (account TEXT, sequence INTEGER, event_id TEXT, event_type TEXT,"
                    + " PRIMARY KEY (account, sequence))",
            // Direct memberships; none through another group.
            "CREATE VIEW IF NOT EXISTS access AS"
                    + " SELECT m.account, u.user_name, u.active, g.display_name AS group_name FROM memberships m"
                    + " JOIN users u ON u.account = m.account AND u.id = m.principal_id AND m.principal_type = 'user'"
                    + " JOIN groups g ON g.account = m.account AND g.id = m.group_id");

    private final Topics topics;
    private final Connection database;
    private final List<String> accounts;
    /** Accounts that cannot be loaded yet, and the offset that their next marker has at least. */
    private final Map<String, Long> waiting = new HashMap<>();

    /** How far an account is: what its state was loaded with, and what to apply and look at next. */
    private static final class Progress {
        int partition;
        /** Offset behind the marker that state was loaded to, and what it says of SETTINGS. */
        long loadedMarker;
        String settings;
        long nextSequence;
        /** Offsets in the topics of events and syncs. */
        long nextEvent;
        long nextMarker;
        /** Time of the last record read of syncs, milliseconds since 1970. */
        long readUntil;
        /** The newest marker, until its last event is applied, and the records there must be then. */
        GenericRecord marker;
    }

    /**
     * Events do not lead from the tables of this account to its present state; a marker that ends behind {@code after}
     * does.
     */
    private static final class LoadAgain extends Exception {
        final String account;
        final long after;

        LoadAgain(String account, String why, long after) {
            super(account + ": " + why + "; loading again");
            this.account = account;
            this.after = after;
        }

        LoadAgain(String account, String why) {
            this(account, why, 0);
        }
    }

    private Replay(Topics topics, Connection database, List<String> accounts) {
        this.topics = topics;
        this.database = database;
        this.accounts = accounts;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 5) {
            System.err.println("usage: replay.Replay BROKERS REGISTRY PREFIX DATABASE ACCOUNT...");
            System.exit(2);
        }
        Topics topics = new Topics(arguments[0], arguments[1], arguments[2]);
        List<String> accounts = List.of(arguments).subList(4, arguments.length);
        try (Connection database = DriverManager.getConnection("jdbc:sqlite:" + arguments[3])) {
            new Replay(topics, database, accounts).run();
        }
    }

    private void run() throws Exception {
        for (String table : TABLES) {
            execute(table);
        }
        // From here on transactions end where this says commit.
        database.setAutoCommit(false);
        while (true) {
            for (String account : accounts) {
                if (!waiting.containsKey(account) && !canGoOn(account)) {
                    load(account, 0);
                }
            }
            try {
                follow();
            } catch (LoadAgain reason) {
                database.rollback();
                System.err.println(reason.getMessage());
                load(reason.account, reason.after);
            }
        }
    }

    /** Whether state was loaded, and Kafka still has all that came since, in the same topics as then. */
    private boolean canGoOn(String account) throws SQLException {
        Progress progress = progress().get(account);
        return progress != null
                && isThere(topics.place("events", progress.partition), progress.nextEvent)
                && isThere(topics.place("syncs", progress.partition), progress.nextMarker);
    }

    private boolean isThere(TopicPartition place, long offset) {
        // Beyond the end: the topic was deleted, and this is another by its name.
        return offset >= topics.start(place) && offset <= topics.end(place);
    }

    /**
     * Replaces the account's rows by its state as of its newest completed sync. If that cannot be read, it waits for
     * the next one; the old rows stay, because old rows are better than none.
     */
    private void load(String account, long after) throws Exception {
        long now = System.currentTimeMillis();
        Topics.Found found = topics.marker(account);
        GenericRecord marker = found.marker();
        waiting.put(account, found.next());
        if (marker == null) {
            // Retired, or never there.
            forget(account);
            database.commit();
            System.err.println(account + ": no sync of this account is complete in " + topics.name("syncs")
                    + "; waiting for the first. Is the name right?");
            return;
        }
        Map<String, Topics.Position> positions = topics.positions(marker);
        if (found.next() <= after || !positions.values().stream().allMatch(topics::reaches)) {
            System.err.println(account + ": written records are gone; waiting for the next sync");
            return;
        }
        List<GenericRecord> users = topics.state(account, positions.get("users"));
        List<GenericRecord> groups = topics.state(account, positions.get("groups"));
        List<GenericRecord> memberships = topics.state(account, positions.get("memberships"));
        long loaded = users.size() + groups.size() + memberships.size();
        if (loaded != (Long) marker.get("state_records")) {
            // Only if the marker is older than the compaction lag, and a newer sync has replaced records.
            System.err.println(account + ": " + loaded + " records instead of " + marker.get("state_records")
                    + "; waiting for the next sync");
            return;
        }
        forget(account);
        for (GenericRecord user : users) {
            putUser(account, user);
        }
        for (GenericRecord group : groups) {
            putGroup(account, group);
        }
        for (GenericRecord membership : memberships) {
            putMembership(membership);
        }
        Topics.Position events = positions.get("events");
        // Events of other accounts may be all that Kafka still had there, and be gone by now.
        long nextEvent = Math.max(events.nextOffset(), topics.start(topics.place("events", events.partition())));
        long sequence = (Long) marker.get("sequence");
        execute("INSERT INTO progress (account, partition, loaded_marker, loaded_sequence, loaded_settings,"
                        + " next_sequence, next_event, next_marker, read_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                account, events.partition(), found.next(), sequence, settings(marker),
                sequence + 1, nextEvent, found.next(), now);
        database.commit();
        waiting.remove(account);
        System.err.println(account + ": " + loaded + " records as of sync " + marker.get("sync"));
    }

    private static String settings(GenericRecord marker) {
        return SETTINGS.stream().map(name -> String.valueOf(marker.get(name))).toList().toString();
    }

    private void forget(String account) throws SQLException {
        for (String table : List.of("users", "groups", "memberships", "applied", "progress")) {
            execute("DELETE FROM " + table + " WHERE account = ?", account);
        }
    }

    /** Applies the events of these accounts, and looks at their markers, for ever. */
    private void follow() throws Exception {
        Map<String, Progress> following = progress();
        following.keySet().retainAll(accounts);
        following.keySet().removeAll(waiting.keySet());
        database.commit();
        Map<TopicPartition, Long> starts = new HashMap<>();
        for (Progress progress : following.values()) {
            starts.merge(topics.place("events", progress.partition), progress.nextEvent, Math::min);
            starts.merge(topics.place("syncs", progress.partition), progress.nextMarker, Math::min);
        }
        if (!waiting.isEmpty()) {
            // Their next marker may come in any partition, and have come since it was looked for.
            topics.partitions("syncs").forEach(place -> starts.put(place, null));
        }
        try (KafkaConsumer<String, byte[]> consumer = topics.reading(starts)) {
            while (true) {
                ConsumerRecords<String, byte[]> batch = consumer.poll(BATCH_MAX);
                if (batch.isEmpty()) {
                    continue;
                }
                for (ConsumerRecord<String, byte[]> record : batch) {
                    if (record.topic().equals(topics.name("syncs"))) {
                        lookAt(following, record);
                    } else {
                        apply(following, record);
                    }
                }
                for (Map.Entry<String, Progress> entry : following.entrySet()) {
                    Progress progress = entry.getValue();
                    execute("UPDATE progress SET next_sequence = ?, next_event = ?, next_marker = ?, read_until = ?"
                                    + " WHERE account = ?",
                            progress.nextSequence, progress.nextEvent, progress.nextMarker, progress.readUntil,
                            entry.getKey());
                }
                database.commit();
            }
        }
    }

    /** A newer marker says what events do not: that state was written without them, or is retired. */
    private void lookAt(Map<String, Progress> following, ConsumerRecord<String, byte[]> record) throws Exception {
        String account = record.key().split("/")[0];
        boolean isLatest = !record.key().equals(account);
        if (waiting.containsKey(account)) {
            if (record.offset() >= waiting.get(account) && !isLatest) {
                throw new LoadAgain(account, record.value() == null ? "retired" : "a sync is complete");
            }
            return;
        }
        Progress progress = following.get(account);
        if (progress == null || record.offset() < progress.nextMarker) {
            return;
        }
        boolean isUnread = System.currentTimeMillis() - progress.readUntil > UNREAD_MAX.toMillis();
        progress.nextMarker = record.offset() + 1;
        if (!isUnread) {
            progress.readUntil = record.timestamp();
        }
        // The record of the newest attempt, completed or not: one more that was not missed.
        if (isLatest) {
            return;
        }
        if (record.value() == null) {
            throw new LoadAgain(account, "retired");
        }
        if (isUnread) {
            throw new LoadAgain(account, "markers may have gone unread");
        }
        GenericRecord marker = topics.decode(record.value());
        if ("repair".equals(text(marker, "reason_code"))) {
            throw new LoadAgain(account, "state was lost, and repaired without events");
        }
        if (!settings(marker).equals(progress.settings)) {
            throw new LoadAgain(account, "attributes were configured again, which makes no events");
        }
        progress.marker = marker;
        count(account, progress);
    }

    /** With the last event that the newest marker covers, there must be as many records as it says. */
    private void count(String account, Progress progress) throws Exception {
        if (progress.marker == null || progress.nextSequence <= (Long) progress.marker.get("sequence")) {
            return;
        }
        if (progress.nextSequence == (Long) progress.marker.get("sequence") + 1) {
            long known = 0;
            for (String table : List.of("users", "groups", "memberships")) {
                known += rows(table, account);
            }
            if (known != (Long) progress.marker.get("state_records")) {
                throw new LoadAgain(
                        account, known + " records instead of " + progress.marker.get("state_records"));
            }
        }
        // Counted, or events of a later sync were read before the marker.
        progress.marker = null;
    }

    private void apply(Map<String, Progress> following, ConsumerRecord<String, byte[]> record) throws Exception {
        GenericRecord event = topics.decode(record.value());
        String account = text(event, "account");
        Progress progress = following.get(account);
        // Several accounts share a partition: this one may be another's, or further than the others.
        if (progress == null || record.offset() < progress.nextEvent) {
            return;
        }
        long sequence = (Long) event.get("sequence");
        if (sequence != progress.nextSequence) {
            throw new LoadAgain(account, "events are missing", progress.loadedMarker);
        }
        String type = text(event, "event_type");
        switch (type) {
            case "user.removed" ->
                execute("DELETE FROM users WHERE account = ? AND id = ?", account, text(event, "principal_id"));
            case "group.removed" ->
                execute("DELETE FROM groups WHERE account = ? AND id = ?", account, text(event, "group_id"));
            case "membership.added" -> putMembership(event);
            case "membership.removed" ->
                execute("DELETE FROM memberships WHERE account = ? AND principal_type = ? AND principal_id = ?"
                                + " AND group_id = ?",
                        account, text(event, "principal_type"), text(event, "principal_id"), text(event, "group_id"));
            case "user.added", "user.updated", "user.disabled", "user.enabled" ->
                putUser(account, (GenericRecord) event.get("user"));
            case "group.added", "group.updated" -> putGroup(account, (GenericRecord) event.get("group"));
            default -> System.err.println(account + ": event " + sequence + " is of the unknown type " + type);
        }
        execute("INSERT INTO applied VALUES (?, ?, ?, ?)", account, sequence, text(event, "event_id"), type);
        progress.nextSequence = sequence + 1;
        progress.nextEvent = record.offset() + 1;
        count(account, progress);
    }

    private void putUser(String account, GenericRecord user) throws SQLException {
        execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?, ?)",
                account, text(user, "id"), text(user, "user_name"), text(user, "display_name"), user.get("active"));
    }

    private void putGroup(String account, GenericRecord group) throws SQLException {
        execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)",
                account, text(group, "id"), text(group, "display_name"));
    }

    private void putMembership(GenericRecord membership) throws SQLException {
        execute("INSERT OR REPLACE INTO memberships VALUES (?, ?, ?, ?)",
                text(membership, "account"), text(membership, "principal_type"), text(membership, "principal_id"),
                text(membership, "group_id"));
    }

    private Map<String, Progress> progress() throws SQLException {
        Map<String, Progress> all = new HashMap<>();
        try (Statement statement = database.createStatement();
                ResultSet row = statement.executeQuery("SELECT * FROM progress")) {
            while (row.next()) {
                Progress progress = new Progress();
                progress.partition = row.getInt("partition");
                progress.loadedMarker = row.getLong("loaded_marker");
                progress.settings = row.getString("loaded_settings");
                progress.nextSequence = row.getLong("next_sequence");
                progress.nextEvent = row.getLong("next_event");
                progress.nextMarker = row.getLong("next_marker");
                progress.readUntil = row.getLong("read_until");
                all.put(row.getString("account"), progress);
            }
        }
        return all;
    }

    private long rows(String table, String account) throws SQLException {
        String sql = "SELECT count(*) FROM " + table + " WHERE account = ?";
        try (PreparedStatement statement = database.prepareStatement(sql)) {
            statement.setString(1, account);
            try (ResultSet row = statement.executeQuery()) {
                row.next();
                return row.getLong(1);
            }
        }
    }

    private void execute(String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = database.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            statement.execute();
        }
    }

    /** A text, which Avro reads as its own string type, or null. */
    private static String text(GenericRecord record, String field) {
        Object value = record.get(field);
        return value == null ? null : value.toString();
    }
}
