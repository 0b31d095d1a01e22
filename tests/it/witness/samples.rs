//! The table of hostile records. Every witness writes and reads rows of this one table.

use std::fmt;

/// A record without its place: what must be the same on both sides, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) timestamp: i64,
}

/// Times that make deltas of every sign and width when they follow each other in one batch. None lies in the future, which
/// brokers refuse.
const TIMESTAMPS: [i64; 11] = [
    1_700_000_000_123,
    0,
    1_700_000_000_122,
    1,
    i32::MAX as i64,
    1_700_000_000_124,
    i32::MAX as i64 + 1,
    999,
    1_600_000_000_000,
    1_600_000_000_064,
    1_600_000_000_000,
];

/// All rows. Those with a header name that is no UTF-8 come last: see [`Sample::has_text_names`].
pub(crate) fn table() -> Vec<Sample> {
    let mut rows = Vec::new();
    let mut row = |key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&[u8], Option<&[u8]>)]| {
        rows.push(Sample {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
            timestamp: TIMESTAMPS[rows.len() % TIMESTAMPS.len()],
        });
    };
    let all_bytes: Vec<u8> = (0..=255).collect();
    let mut random = Random(0x5eed_0000_0000_0001);
    // Null and empty are two things.
    for key in [None, Some(&b""[..]), Some(b"key")] {
        for value in [None, Some(&b""[..]), Some(b"value")] {
            row(key, value, &[]);
        }
    }
    // Headers: order, repetition, null and empty values, bytes, names of every kind.
    row(Some(b"one header"), Some(b"v"), &[(b"name", Some(b"value"))]);
    row(Some(b"repeated"), Some(b"v"), &[(b"h", Some(b"1")), (b"h", Some(b"2")), (b"h", Some(b"1"))]);
    row(Some(b"null header"), Some(b"v"), &[(b"h", None)]);
    row(Some(b"empty header"), Some(b"v"), &[(b"h", Some(b""))]);
    row(Some(b"all three"), Some(b"v"), &[(b"h", None), (b"z", Some(b"")), (b"a", Some(b"x")), (b"h", Some(b"y"))]);
    row(None, None, &[(b"headers", Some(b"alone")), (b"of a", None), (b"tombstone", Some(b""))]);
    row(Some(b"binary header"), None, &[(b"bytes", Some(&all_bytes)), (b"zero", Some(b"\0"))]);
    row(Some(b"empty name"), Some(b"v"), &[(b"", Some(b"value of no name")), (b"", None)]);
    row(Some(b"signs in names"), Some(b"v"), &[(b"a=b,c:d \"e\"", Some(b"=,:\"")), (b"null", Some(b"null"))]);
    row(
        Some(b"names beyond ASCII"),
        Some(b"v"),
        &["ключ", "キー", "🔑", "e\u{301}"].map(|name| (name.as_bytes(), None)),
    );
    row(Some(b"long name"), Some(b"v"), &[(&[b'n'; 300], Some(&[b'v'; 5000]))]);
    // A count and lengths that need two bytes of a varint.
    row(Some(b"many headers"), Some(b"v"), &[(&b"h"[..], Some(&[b'x'; 64][..])); 200]);
    // Text as users have it.
    row(Some("ключ-キー-🔑".as_bytes()), Some("значение 値 🎈".as_bytes()), &[(b"city", Some("Zürich".as_bytes()))]);
    row(Some(b"json"), Some(br#"{"total":3.10,"big":12345678901234567890,"twice":1,"twice":2}"#), &[]);
    row(Some(b"null"), Some(b"null"), &[]);
    row(Some(b" "), Some(b" leading and trailing "), &[(b" ", Some(b" "))]);
    row(Some(b"lines"), Some(b"one\ntwo\r\nthree\tfour"), &[]);
    // Bytes as users do not expect them.
    row(Some(&all_bytes), Some(&all_bytes), &[]);
    row(Some(b"\0"), Some(b"\0\0\0\0\0"), &[]);
    row(Some(b"\xff\xfe\xc0\x80"), Some(b"\xed\xa0\x80"), &[]);
    // Bytes that mean something to a codec: the magics of gzip, xerial snappy, lz4 and zstd.
    for magic in [&b"\x1f\x8b\x08\0"[..], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"]
    {
        row(Some(magic), Some(magic), &[]);
    }
    // Keys of every length of murmur2's tail, values at the edges of a varint.
    for length in 1..=9 {
        row(Some(&all_bytes[250 - length..250]), Some(&all_bytes[..length]), &[]);
    }
    for length in [63, 64, 127, 128, 8191, 8192] {
        row(None, Some(&vec![b'e'; length]), &[]);
    }
    // Larger than a block of xerial snappy (32 KiB) and of lz4 (64 KiB), compressible and not.
    row(Some(b"zeros"), Some(&vec![0; 200_000]), &[]);
    row(Some(b"noise"), Some(&random.bytes(150_000)), &[]);
    row(Some(b"text"), Some("the same words again and again. ".repeat(5000).as_bytes()), &[]);
    for _ in 0..40 {
        let key = random.maybe_bytes(40);
        let value = random.maybe_bytes(2000);
        let headers: Vec<(Vec<u8>, Option<Vec<u8>>)> =
            (0..random.below(5)).map(|_| (format!("h{}", random.below(3)).into(), random.maybe_bytes(30))).collect();
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())).collect();
        row(key.as_deref(), value.as_deref(), &headers);
    }
    row(Some(b"no text"), Some(b"v"), &[(b"\xff", Some(b"a name that is no UTF-8")), (b"a\xfeb", None)]);
    rows
}

/// Keys of every length up to 32, odd ones too, and of every kind: for where they land.
pub(crate) fn keys() -> Vec<Vec<u8>> {
    let mut random = Random(0x5eed_0000_0000_0002);
    let mut keys = vec![Vec::new()];
    for length in 1..=32 {
        keys.push(vec![b'k'; length]);
        keys.push(random.bytes(length));
    }
    keys.extend((0..100).map(|number| format!("customer-{number}").into_bytes()));
    keys.extend(["é", "ключ", "キー", "🔑", "e\u{301}", "\0", "\u{7f}"].map(|key| key.as_bytes().to_vec()));
    keys.extend([vec![0x80], vec![0xff; 3], vec![0xff; 7], (0..=255).collect()]);
    keys
}

impl Sample {
    /// Whether every header name is UTF-8: Java and librdkafka know names as text only.
    pub(crate) fn has_text_names(&self) -> bool {
        self.headers.iter().all(|(name, _)| std::str::from_utf8(name).is_ok())
    }
}

/// A fixed seed gives the same rows for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 32) as u8).collect()
    }

    /// Null in one of eight, else of any length below `bound`.
    fn maybe_bytes(&mut self, bound: u64) -> Option<Vec<u8>> {
        let length = self.below(bound) as usize;
        (self.below(8) > 0).then(|| self.bytes(length))
    }
}

/// Short, so that a difference can be read.
impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<String> =
            self.headers.iter().map(|(name, value)| format!("{}: {}", short(name), maybe(value.as_deref()))).collect();
        let (key, value) = (maybe(self.key.as_deref()), maybe(self.value.as_deref()));
        write!(f, "at {} key {key} value {value} headers {headers:?}", self.timestamp)
    }
}

fn maybe(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), short)
}

fn short(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let start = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    if bytes.len() > SHOWN { format!("\"{start}\"… ({} bytes)", bytes.len()) } else { format!("\"{start}\"") }
}
