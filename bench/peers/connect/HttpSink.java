import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.sink.SinkConnector;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;

/**
 * A sink connector that does what the naive bridge does: the JSON converter has decoded
 * the event, the task takes the columns from its map and posts what one poll brought.
 * The worker commits offsets of what put returned for. No retries: an error ends the task.
 */
public class HttpSink extends SinkConnector {
    private Map<String, String> config;

    @Override public void start(Map<String, String> props) { config = props; }
    @Override public Class<? extends Task> taskClass() { return PostTask.class; }
    @Override public List<Map<String, String>> taskConfigs(int most) { return Collections.nCopies(most, config); }
    @Override public void stop() { }
    @Override public String version() { return "1"; }
    @Override public ConfigDef config() {
        return new ConfigDef()
            .define("url", ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "where rows are posted")
            .define("token", ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "bearer token")
            .define("table", ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "catalog.schema.table");
    }

    public static class PostTask extends SinkTask {
        private final ObjectMapper mapper = new ObjectMapper();
        private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        private Map<String, String> config;

        @Override public void start(Map<String, String> props) { config = props; }
        @Override public void stop() { }
        @Override public String version() { return "1"; }

        @Override public void put(Collection<SinkRecord> records) {
            if (records.isEmpty()) {
                return;
            }
            List<Map<String, Object>> rows = new ArrayList<>(records.size());
            for (SinkRecord record : records) {
                rows.add(row((Map<?, ?>) record.value()));
            }
            Map<String, Object> body = new LinkedHashMap<>();
            body.put("table", config.get("table"));
            body.put("records", rows);
            try {
                HttpRequest request = HttpRequest.newBuilder(URI.create(config.get("url")))
                    .header("Authorization", "Bearer " + config.get("token"))
                    .header("Content-Type", "application/json")
                    .POST(HttpRequest.BodyPublishers.ofByteArray(mapper.writeValueAsBytes(body)))
                    .build();
                HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                if (answer.statusCode() != 200) {
                    throw new ConnectException("the workspace answered " + answer.statusCode() + ": " + answer.body());
                }
            } catch (IOException e) {
                throw new ConnectException("posting rows", e);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new ConnectException("posting rows", e);
            }
        }

        private static Map<String, Object> row(Map<?, ?> e) {
            Map<?, ?> context = map(e.get("context"));
            Map<?, ?> page = map(context.get("page"));
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("event_name", e.get("event"));
            row.put("event_type", e.get("type"));
            row.put("message_id", either(e, "message_id", "messageId"));
            Object user = either(e, "user_id", "userId");
            row.put("user_id", user == null ? null : user.toString());
            row.put("anonymous_id", either(e, "anonymous_id", "anonymousId"));
            row.put("event_timestamp", micros(e.get("timestamp")));
            row.put("ip_address", context.get("ip"));
            row.put("user_agent", either(context, "user_agent", "userAgent"));
            row.put("locale", context.get("locale"));
            row.put("timezone", context.get("timezone"));
            row.put("page_url", page.get("url"));
            row.put("page_referrer", page.get("referrer"));
            row.put("source_id", either(e, "source_id", "sourceId"));
            return row;
        }

        private static Map<?, ?> map(Object value) { return value instanceof Map<?, ?> m ? m : Map.of(); }

        private static Object either(Map<?, ?> from, String key, String other) {
            Object value = from.get(key);
            return value != null ? value : from.get(other);
        }

        private static Long micros(Object at) {
            if (at instanceof String text) {
                java.time.Instant i = OffsetDateTime.parse(text).toInstant();
                return i.getEpochSecond() * 1_000_000 + i.getNano() / 1000;
            }
            return at instanceof Number millis ? millis.longValue() * 1000 : null;
        }
    }
}
