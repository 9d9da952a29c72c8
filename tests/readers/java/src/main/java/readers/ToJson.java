package readers;

import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Timestamp;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Connect's last step before a sink: makes a line of JSON of everything that the sink would get,
 * because the file sink prints values only, and these without nulls and milliseconds.
 */
public class ToJson implements Transformation<SinkRecord> {
    @Override
    public SinkRecord apply(SinkRecord record) {
        Map<String, Object> headers = new LinkedHashMap<>();
        for (Header header : record.headers()) {
            headers.put(header.key(), plain(header.schema(), header.value()));
        }
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("topic", record.topic());
        line.put("partition", record.kafkaPartition());
        line.put("offset", record.kafkaOffset());
        line.put("key", plain(record.keySchema(), record.key()));
        line.put("headers", headers);
        line.put("value", plain(record.valueSchema(), record.value()));
        return record.newRecord(
                record.topic(), record.kafkaPartition(), null, null, Schema.STRING_SCHEMA, Line.of(line),
                record.timestamp());
    }

    private static Object plain(Schema schema, Object value) {
        if (value == null) {
            return null;
        }
        if (Timestamp.LOGICAL_NAME.equals(schema.name())) {
            return Line.time(((Date) value).toInstant());
        }
        return switch (schema.type()) {
            case STRUCT -> {
                Map<String, Object> fields = new LinkedHashMap<>();
                for (Field field : schema.fields()) {
                    fields.put(field.name(), plain(field.schema(), ((Struct) value).get(field)));
                }
                yield fields;
            }
            case ARRAY ->
                ((List<?>) value)
                        .stream().map(element -> plain(schema.valueSchema(), element)).collect(Collectors.toList());
            case MAP -> {
                Map<String, Object> entries = new LinkedHashMap<>();
                ((Map<?, ?>) value)
                        .forEach((key, entry) -> entries.put((String) key, plain(schema.valueSchema(), entry)));
                yield entries;
            }
            case STRING, BOOLEAN, INT32, INT64 -> value;
            default -> throw new DataException("no record of scimtail has a " + schema.type());
        };
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef();
    }

    @Override
    public void configure(Map<String, ?> configuration) {}

    @Override
    public void close() {}
}
