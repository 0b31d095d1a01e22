import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Java's own clients as a witness: one JSON order per line on stdin, one JSON answer per line on stdout, until stdin ends.
 * Keys, values, header names and header values are base64, so that every byte can be told; null is null.
 * Run by the source launcher with Kafka's jars on the class path; the only argument is bootstrap.servers.
 */
public final class Witness {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long PATIENCE_MS = 60_000;
    private static String bootstrap;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, false, "UTF-8");
        for (String line = orders.readLine(); line != null; line = orders.readLine()) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                JsonNode order = JSON.readTree(line);
                String name = order.get("order").asText();
                if (name.equals("create")) {
                    create(order);
                } else if (name.equals("reassign")) {
                    reassign(order);
                } else if (name.equals("elect")) {
                    elect(order);
                } else if (name.equals("write")) {
                    answer.set("receipts", write(order));
                } else if (name.equals("read")) {
                    answer.set("records", read(order));
                } else {
                    throw new IllegalArgumentException("no such order: " + name);
                }
            } catch (Exception fault) {
                answer.put("fault", fault.toString() + " caused by " + fault.getCause());
            }
            answers.println(JSON.writeValueAsString(answer));
            answers.flush();
        }
    }

    /** Creates a topic: topic, partitions, configs. */
    private static void create(JsonNode order) throws Exception {
        try (Admin admin = Admin.create(settings(order))) {
            Map<String, String> configs = new HashMap<>();
            order.path("configs").fields().forEachRemaining(entry -> configs.put(entry.getKey(), entry.getValue().asText()));
            NewTopic topic =
                new NewTopic(order.get("topic").asText(), Optional.of(order.get("partitions").asInt()), Optional.empty());
            admin.createTopics(List.of(topic.configs(configs))).all().get(PATIENCE_MS, TimeUnit.MILLISECONDS);
        }
    }

    /** Moves a topic to other replicas and waits until they have it: topic, replicas by partition. */
    private static void reassign(JsonNode order) throws Exception {
        Map<TopicPartition, Optional<NewPartitionReassignment>> moves = new HashMap<>();
        for (JsonNode replicas : order.get("replicas")) {
            List<Integer> nodes = new ArrayList<>();
            replicas.forEach(node -> nodes.add(node.asInt()));
            TopicPartition partition = new TopicPartition(order.get("topic").asText(), moves.size());
            moves.put(partition, Optional.of(new NewPartitionReassignment(nodes)));
        }
        try (Admin admin = Admin.create(settings(order))) {
            admin.alterPartitionReassignments(moves).all().get(PATIENCE_MS, TimeUnit.MILLISECONDS);
            long until = System.currentTimeMillis() + PATIENCE_MS;
            while (!admin.listPartitionReassignments(moves.keySet()).reassignments().get().isEmpty()) {
                if (System.currentTimeMillis() > until) {
                    throw new IllegalStateException("the replicas are not moved");
                }
                Thread.sleep(50);
            }
        }
    }

    /** Has each partition's preferred replica elected: topic, partitions. */
    private static void elect(JsonNode order) throws Exception {
        Set<TopicPartition> partitions = new HashSet<>();
        while (partitions.size() < order.get("partitions").asInt()) {
            partitions.add(new TopicPartition(order.get("topic").asText(), partitions.size()));
        }
        try (Admin admin = Admin.create(settings(order))) {
            Map<TopicPartition, Optional<Throwable>> elected = admin.electLeaders(ElectionType.PREFERRED, partitions)
                .partitions().get(PATIENCE_MS, TimeUnit.MILLISECONDS);
            for (Optional<Throwable> fault : elected.values()) {
                if (fault.isPresent() && !(fault.get() instanceof ElectionNotNeededException)) {
                    throw new IllegalStateException(fault.get());
                }
            }
        }
    }

    /** Writes records in order; a transactional.id among the settings makes them one transaction, ended as `end` says. */
    private static ArrayNode write(JsonNode order) throws Exception {
        Map<String, Object> settings = settings(order);
        boolean transactional = settings.containsKey("transactional.id");
        ArrayNode receipts = JSON.createArrayNode();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            if (transactional) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : order.get("records")) {
                List<Header> headers = new ArrayList<>();
                for (JsonNode header : record.get("headers")) {
                    String name = new String(bytes(header.get(0)), StandardCharsets.UTF_8);
                    headers.add(new RecordHeader(name, bytes(header.get(1))));
                }
                sent.add(producer.send(new ProducerRecord<>(
                    order.get("topic").asText(),
                    order.path("partition").isInt() ? order.get("partition").asInt() : null,
                    record.get("timestamp").asLong(),
                    bytes(record.get("key")),
                    bytes(record.get("value")),
                    headers)));
            }
            producer.flush();
            for (Future<RecordMetadata> future : sent) {
                RecordMetadata written = future.get(PATIENCE_MS, TimeUnit.MILLISECONDS);
                receipts.addObject()
                    .put("partition", written.partition())
                    .put("offset", written.offset())
                    .put("timestamp", written.timestamp());
            }
            if (transactional && order.get("end").asText().equals("abort")) {
                producer.abortTransaction();
            } else if (transactional) {
                producer.commitTransaction();
            }
        }
        return receipts;
    }

    /** Reads topics from their beginnings to the ends that they have now. */
    private static ArrayNode read(JsonNode order) {
        ArrayNode records = JSON.createArrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings(order), new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (JsonNode topic : order.get("topics")) {
                consumer.partitionsFor(topic.asText()).forEach(
                    partition -> partitions.add(new TopicPartition(partition.topic(), partition.partition())));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long until = System.currentTimeMillis() + PATIENCE_MS;
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                if (System.currentTimeMillis() > until) {
                    throw new IllegalStateException("the ends were not reached: " + ends);
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    ObjectNode told = records.addObject()
                        .put("topic", record.topic())
                        .put("partition", record.partition())
                        .put("offset", record.offset())
                        .put("timestamp", record.timestamp())
                        .put("timestampType", record.timestampType().toString())
                        .put("key", record.key())
                        .put("value", record.value());
                    ArrayNode headers = told.putArray("headers");
                    for (Header header : record.headers()) {
                        headers.addArray().add(text(header.key().getBytes(StandardCharsets.UTF_8))).add(text(header.value()));
                    }
                }
            }
        }
        return records;
    }

    private static Map<String, Object> settings(JsonNode order) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        order.path("settings").fields().forEachRemaining(entry -> settings.put(entry.getKey(), entry.getValue().asText()));
        return settings;
    }

    private static byte[] bytes(JsonNode node) {
        return node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }
}
