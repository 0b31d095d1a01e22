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
    let mut text = String::with_capacity(bytes + 128);
    text.push('{');
    loop {
        let (order, cents, day) = (next() % 1_000_000, next() % 100_000, next() % 28 + 1);
        let part = format!("\"order\":{order},\"total\":{cents},\"at\":\"2026-11-{day:02}\",\"state\":\"open\",");
        if text.len() + part.len() + "\"note\":\"\"}".len() > bytes {
            break;
        }
        text += &part;
    }
    text += "\"note\":\"";
    while text.len() + "\"}".len() < bytes {
        text += &(next() % 10).to_string();
    }
    text += "\"}";
    // Shorter than a note: no JSON then.
    text.truncate(bytes);
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_of_just_so_many_bytes() {
        for bytes in [11, 12, 99, 100, 1024] {
            for number in 0..100 {
                let value = value(number, bytes);
                assert_eq!(value.len(), bytes);
                assert!(
                    serde_json::from_slice::<serde_json::Value>(&value).is_ok(),
                    "{}",
                    String::from_utf8_lossy(&value)
                );
            }
        }
        assert_eq!(value(0, 3).len(), 3);
    }
}
