package readers;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/**
 * Runs the statements of files in a cluster inside this process, and prints what the queries among them give: one
 * object of JSON for each change of a row. A query of topics does not end, and so this does not.
 *
 * <p>The arguments: files of one statement each.
 */
public final class Flink {
    /** As the other readers print times. Flink's have no zone, and those of the topics are in UTC. */
    private static final DateTimeFormatter TIME = DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'");

    private Flink() {}

    public static void main(String[] arguments) throws Exception {
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        // More than one, because the topics and the joins are partitioned in different ways.
        environment.setParallelism(2);
        StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
        for (String file : arguments) {
            String statement = Files.readString(Path.of(file));
            TableResult result = tables.executeSql(statement);
            if (statement.startsWith("SELECT")) {
                new Thread(() -> print(statement, result)).start();
            }
        }
    }

    private static void print(String query, TableResult result) {
        ObjectMapper json = new ObjectMapper();
        try (CloseableIterator<Row> rows = result.collect()) {
            while (rows.hasNext()) {
                Row row = rows.next();
                Map<String, Object> values = new LinkedHashMap<>();
                values.put("query", query);
                values.put("kind", row.getKind().shortString());
                for (String name : row.getFieldNames(true)) {
                    Object value = row.getField(name);
                    values.put(name, value instanceof LocalDateTime time ? TIME.format(time) : value);
                }
                System.out.println(json.writeValueAsString(values));
            }
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
    }
}
