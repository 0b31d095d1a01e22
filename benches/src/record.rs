//! Keys and values: the same for both sides, made before anything is measured.

use bytes::Bytes;

/// So many different values, which compress like the JSON of an application.
const VALUES: usize = 1000;

pub(crate) struct Records {
    keys: Vec<Bytes>,
    values: Vec<Bytes>,
}

impl Records {
    pub(crate) fn new(keys: usize, value_bytes: usize) -> Self {
        let keys = (0..keys).map(|number| Bytes::from(format!("key-{number:06}"))).collect();
        let values = (0..VALUES).map(|number| Bytes::from(value(number as u64, value_bytes))).collect();
        Self { keys, values }
    }

    pub(crate) fn get(&self, index: usize) -> (Option<&Bytes>, &Bytes) {
        // Keys run through faster than values, so that each meets all.
        let key = (!self.keys.is_empty()).then(|| &self.keys[index % self.keys.len()]);
        (key, &self.values[(index / 7 + index) % self.values.len()])
    }
}

fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut text = String::with_capacity(bytes + 64);
    text.push('{');
    while text.len() < bytes {
        let (order, cents, day) = (next() % 1_000_000, next() % 100_000, next() % 28 + 1);
        text += &format!("\"order\":{order},\"total\":{cents},\"at\":\"2026-11-{day:02}\",\"state\":\"open\",");
    }
    text.truncate(bytes - 1);
    text.push('}');
    text.into_bytes()
}
