"""Writes the python-* files into the folder given as the first argument."""

import pathlib
import sys

import lz4.frame
import zstandard
from kafka.record.default_records import DefaultRecordBatchBuilder

folder = pathlib.Path(sys.argv[1])
values = [("record %d, " % i).encode() * 400 for i in range(60)]

for name, codec in [("gzip", 1), ("lz4", 3), ("zstd", 4)]:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0,
        producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 24,
    )
    for i, value in enumerate(values):
        headers = [("h", b"\xff\x00"), ("h", b"")]
        assert builder.append(i, 2000 + i, b"k%d" % i, value, headers) is not None
    (folder / f"python-{name}.bin").write_bytes(bytes(builder.build()))

plain = b"".join(values)
(folder / "python-linked.lz4").write_bytes(
    lz4.frame.compress(
        plain, block_linked=True, block_size=lz4.frame.BLOCKSIZE_MAX64KB,
        content_checksum=True, block_checksum=True, store_size=True,
    )
)
(folder / "python-level-19.zst").write_bytes(
    zstandard.ZstdCompressor(level=19, write_content_size=False, write_checksum=True).compress(plain)
)
