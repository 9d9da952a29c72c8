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

/**
 * Who has access to what, in a database of one's own: loaded once, then followed event by event.
 *
 * <pre>java -cp 'target/lib/*' replay.Replay BROKERS REGISTRY PREFIX DATABASE ACCOUNT...</pre>
 *
 * <p>For each account: state as of its newest completed sync (the marker) is read from the compacted topics. From then
 * on its events are applied, beginning with the first that the marker does not cover. What is known and which event
 * comes next change in one transaction of the database, so a restart, however sudden, goes on at the next event.
 * docs/consumers/replay.md explains the pattern.
 *
 * <p>The view {@code access} has direct memberships: whoever is in a group through another group is not in it.
 * {@code scimtail state access} resolves nesting, and docs/consumers/replay.md has a query that does.
 */
public final class Replay {
    private static final Duration BATCH_MAX = Duration.ofMillis(200);
    private static final List<String> TABLES = List.of(
            "CREATE TABLE IF NOT EXISTS progress (account TEXT PRIMARY KEY, partition INTEGER NOT NULL,"
                    + " loaded_sequence INTEGER NOT NULL, next_sequence INTEGER NOT NULL, next_offset INTEGER NOT NULL)",
            "CREATE TABLE IF NOT EXISTS users (account TEXT, id TEXT, user_name TEXT, display_name TEXT, active INTEGER,"
                    + " PRIMARY KEY (account, id))",
            "CREATE TABLE IF NOT EXISTS groups (account TEXT, id TEXT, display_name TEXT, PRIMARY KEY (account, id))",
            "CREATE TABLE IF NOT EXISTS memberships (account TEXT, principal_type TEXT, principal_id TEXT, group_id TEXT,"
                    + " PRIMARY KEY (account, principal_type, principal_id, group_id))",
            // What was applied: the primary key refuses to apply an event twice.
            "CREATE TABLE IF NOT EXISTS applied (account TEXT, sequence INTEGER, event_id TEXT, event_type TEXT,"
                    + " PRIMARY KEY (account, sequence))",
            // Direct memberships; not who is in a group through another group.
            "CREATE VIEW IF NOT EXISTS access AS"
                    + " SELECT m.account, u.user_name, u.active, g.display_name AS group_name FROM memberships m"
                    + " JOIN users u ON u.account = m.account AND u.id = m.principal_id AND m.principal_type = 'user'"
                    + " JOIN groups g ON g.account = m.account AND g.id = m.group_id");

    private final Topics topics;
    private final Connection database;
    private final List<String> accounts;

    /** How far an account is: the event to apply next, and where in the events topic to go on reading. */
    private record Progress(int partition, long nextSequence, long nextOffset) {}

    /** The next event of this account is not the one after the last: load it again. */
    private static final class Gap extends Exception {
        final String account;

        Gap(String account) {
            this.account = account;
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
                if (!canGoOn(account)) {
                    load(account);
                }
            }
            try {
                follow();
            } catch (Gap gap) {
                database.rollback();
                System.err.println(gap.account + ": events are missing; state is loaded again");
                load(gap.account);
            }
        }
    }

    /** Whether state was loaded, and Kafka still has the events since, in the same topic as then. */
    private boolean canGoOn(String account) throws SQLException {
        Progress progress = progress().get(account);
        // Beyond the end, that one was deleted, and this is another by its name.
        return progress != null
                && progress.nextOffset >= topics.startOfEvents(progress.partition)
                && progress.nextOffset <= topics.endOfEvents(progress.partition);
    }

    /** Replaces what is known of the account by its state as of its newest completed sync. */
    private void load(String account) throws Exception {
        GenericRecord marker = topics.marker(account);
        Map<String, Topics.Position> positions = topics.positions(marker);
        List<GenericRecord> users = topics.state(account, positions.get("users"));
        List<GenericRecord> groups = topics.state(account, positions.get("groups"));
        List<GenericRecord> memberships = topics.state(account, positions.get("memberships"));
        long loaded = users.size() + groups.size() + memberships.size();
        if (loaded != (Long) marker.get("state_records")) {
            // Only if the marker is older than the compaction lag, and a newer sync has replaced records.
            throw new IllegalStateException(account + ": " + loaded + " records instead of "
                    + marker.get("state_records") + "; try the next marker");
        }
        Topics.Position events = positions.get("events");
        long sequence = (Long) marker.get("sequence");
        for (String table : List.of("users", "groups", "memberships", "applied")) {
            execute("DELETE FROM " + table + " WHERE account = ?", account);
        }
        for (GenericRecord user : users) {
            putUser(account, user);
        }
        for (GenericRecord group : groups) {
            putGroup(account, group);
        }
        for (GenericRecord membership : memberships) {
            putMembership(membership);
        }
        // Events of other accounts may be all that Kafka still had there, and be gone by now.
        long nextOffset = Math.max(events.nextOffset(), topics.startOfEvents(events.partition()));
        execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?)",
                account, events.partition(), sequence, sequence + 1, nextOffset);
        database.commit();
        System.err.println(account + ": " + loaded + " records as of sync " + marker.get("sync"));
    }

    /** Applies the events of these accounts, for ever. */
    private void follow() throws Exception {
        Map<String, Progress> following = progress();
        following.keySet().retainAll(accounts);
        Map<Integer, Long> starts = new HashMap<>();
        following.values().forEach(progress -> starts.merge(progress.partition, progress.nextOffset, Math::min));
        database.commit();
        try (KafkaConsumer<String, byte[]> consumer = topics.reading("events", starts)) {
            while (true) {
                ConsumerRecords<String, byte[]> batch = consumer.poll(BATCH_MAX);
                for (ConsumerRecord<String, byte[]> record : batch) {
                    apply(following, record);
                }
                if (!batch.isEmpty()) {
                    for (Map.Entry<String, Progress> entry : following.entrySet()) {
                        execute("UPDATE progress SET next_sequence = ?, next_offset = ? WHERE account = ?",
                                entry.getValue().nextSequence, entry.getValue().nextOffset, entry.getKey());
                    }
                    database.commit();
                }
            }
        }
    }

    private void apply(Map<String, Progress> following, ConsumerRecord<String, byte[]> record) throws Exception {
        GenericRecord event = topics.decode(record.value());
        String account = text(event, "account");
        Progress progress = following.get(account);
        // Several accounts share a partition: this one may be another's, or further than the others.
        if (progress == null || record.offset() < progress.nextOffset) {
            return;
        }
        long sequence = (Long) event.get("sequence");
        if (sequence != progress.nextSequence) {
            throw new Gap(account);
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
        following.put(account, new Progress(progress.partition, sequence + 1, record.offset() + 1));
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
        Map<String, Progress> progress = new HashMap<>();
        try (Statement statement = database.createStatement();
                ResultSet row = statement.executeQuery(
                        "SELECT account, partition, next_sequence, next_offset FROM progress")) {
            while (row.next()) {
                progress.put(row.getString(1), new Progress(row.getInt(2), row.getLong(3), row.getLong(4)));
            }
        }
        return progress;
    }

    private void execute(String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = database.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            statement.execute();
        }
    }

    /** A text, which Avro reads as something of its own, or null. */
    private static String text(GenericRecord record, String field) {
        Object value = record.get(field);
        return value == null ? null : value.toString();
    }
}
