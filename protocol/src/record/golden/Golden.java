import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.utils.BufferSupplier;

public class Golden {
  static final Header[] NONE = new Header[0];
  static byte[] b(String s) { return s.getBytes(StandardCharsets.UTF_8); }
  static Path out;
  static void write(String name, ByteBuffer buf) throws Exception {
    byte[] bytes = new byte[buf.remaining()]; buf.duplicate().get(bytes);
    Files.write(out.resolve(name), bytes); System.out.println(name + " " + bytes.length);
  }
  static Compression codec(String n) {
    switch (n) { case "none": return Compression.NONE; case "gzip": return Compression.gzip().build();
      case "snappy": return Compression.snappy().build(); case "lz4": return Compression.lz4().build(); default: return Compression.zstd().build(); }
  }
  static MemoryRecordsBuilder builder(Compression c, TimestampType t, long base, boolean tx) {
    return new MemoryRecordsBuilder(ByteBuffer.allocate(1 << 20), (byte) 2, c, t, base, 999_000L, 77L, (short) 3, 1234, tx, false, 5, 1 << 20);
  }
  static void small(MemoryRecordsBuilder m) {
    m.append(1005L, b("key"), b("value"), NONE);
    m.append(1000L, b("tombstone"), null, NONE);
    m.append(1001L, b(""), b(""), NONE);
    m.append(1009L, null, b("headers"), new Header[] { new RecordHeader("a", b("1")), new RecordHeader("ä", null), new RecordHeader("a", b("")), new RecordHeader("", b("2")) });
    m.append(1002L, (byte[]) null, (byte[]) null, NONE);
    m.append(1_700_000_000_000L, b("late"), b("x".repeat(200)), NONE);
  }
  static void large(MemoryRecordsBuilder m) {
    for (int i = 0; i < 60; i++) m.append(2000L + i, b("k" + i), b(("record " + i + ", ").repeat(400)), NONE);
  }
  public static void main(String[] a) throws Exception {
    out = Path.of(a[0]);
    for (String n : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
      MemoryRecordsBuilder m = builder(codec(n), TimestampType.CREATE_TIME, 100L, false); small(m); write("java-" + n + ".bin", m.build().buffer());
      if (!n.equals("none")) { m = builder(codec(n), TimestampType.CREATE_TIME, 100L, true); large(m); write("java-large-" + n + ".bin", m.build().buffer()); }
    }
    MemoryRecordsBuilder m = builder(codec("lz4"), TimestampType.LOG_APPEND_TIME, 100L, false); small(m); write("java-log-append-time.bin", m.build().buffer());
    // One transaction aborted, one committed: data, abort, data, commit.
    ByteBuffer all = ByteBuffer.allocate(1 << 16);
    m = builder(codec("none"), TimestampType.CREATE_TIME, 100L, true); small(m); all.put(m.build().buffer());
    all.put(MemoryRecords.withEndTransactionMarker(106L, 3000L, 5, 77L, (short) 3, new EndTransactionMarker(ControlRecordType.ABORT, 9)).buffer());
    m = builder(codec("none"), TimestampType.CREATE_TIME, 107L, true); small(m); all.put(m.build().buffer());
    all.put(MemoryRecords.withEndTransactionMarker(113L, 3000L, 5, 77L, (short) 3, new EndTransactionMarker(ControlRecordType.COMMIT, 9)).buffer());
    all.flip(); write("java-transactions.bin", all);
    // Compaction: of the first batch the records 2 and 5 go, of the second all.
    ByteBuffer two = ByteBuffer.allocate(1 << 16);
    m = builder(codec("zstd"), TimestampType.CREATE_TIME, 100L, false); small(m); two.put(m.build().buffer());
    m = new MemoryRecordsBuilder(ByteBuffer.allocate(1 << 16), (byte) 2, codec("gzip"), TimestampType.CREATE_TIME, 106L, 0L, 77L, (short) 3, 1240, false, false, 5, 1 << 16); small(m); two.put(m.build().buffer());
    two.flip();
    ByteBuffer kept = ByteBuffer.allocate(1 << 16);
    MemoryRecords.FilterResult r = MemoryRecords.readableRecords(two).filterTo(new MemoryRecords.RecordFilter(0L, 0L) {
      protected BatchRetentionResult checkBatchRetention(RecordBatch batch) { return new BatchRetentionResult(BatchRetention.RETAIN_EMPTY, false); }
      protected boolean shouldRetainRecord(RecordBatch batch, org.apache.kafka.common.record.Record record) { return record.offset() < 105 && record.offset() != 102; }
    }, kept, BufferSupplier.NO_CACHING);
    write("java-compacted.bin", r.outputBuffer().duplicate().flip());
    for (byte magic = 0; magic < 2; magic++) {
      m = new MemoryRecordsBuilder(ByteBuffer.allocate(1 << 16), magic, Compression.NONE, TimestampType.CREATE_TIME, 42L, RecordBatch.NO_TIMESTAMP, -1L, (short) -1, -1, false, false, -1, 1 << 16);
      m.append(magic == 0 ? RecordBatch.NO_TIMESTAMP : 1000L, b("key"), b("value"), NONE);
      write("java-magic-" + magic + ".bin", m.build().buffer());
    }
  }
}
