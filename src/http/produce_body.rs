//! The body of `POST /producers/{topic}`, parsed in one pass into a type that cannot be wrong.
//!
//! Keys and values stay raw JSON text. Unknown fields are ignored; of a field that stands twice the last one counts; names are
//! camelCase or snake_case. Every complaint names the path of the field at fault. It knows no Kafka and produces nothing.
//! [`ProduceBody`] is its main type.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{error::Category, value::RawValue};

use super::{
    problem::{Fault, Problem},
    scalar,
};
use crate::{config::settings::Format, produce::NewRecord};

#[derive(Debug, Default)]
pub(crate) struct ProduceBody<'a> {
    pub(crate) records: Vec<NewRecord<'a>>,
    pub(crate) key_format: Option<Format>,
    pub(crate) value_format: Option<Format>,
    /// The first field that asks for a schema of the keys, if there is one.
    pub(crate) key_schema_field: Option<&'static str>,
    pub(crate) value_schema_field: Option<&'static str>,
    pub(crate) atomic: bool,
}

/// Parses a whole body; more than `max_records` records are a fault.
pub(crate) fn parse(body: &[u8], max_records: usize) -> Result<ProduceBody<'_>, Problem> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(Problem::new(Fault::MissingBody, "the request has no body; expected {\"records\":[…]}")),
        Some(b'{') => {}
        Some(b'[') => return Err(scalar::expected("body", "an object with records", "an array")),
        Some(_) => return Err(Problem::new(Fault::NotJson, "the body is not a JSON object")),
    }
    let context = Context { max_records, problem: RefCell::new(None) };
    let mut parser = serde_json::Deserializer::from_slice(body);
    let parsed = BodySeed(&context).deserialize(&mut parser).and_then(|body| parser.end().map(|()| body));
    match parsed {
        Ok(Some(body)) => Ok(body),
        Ok(None) => Err(scalar::expected("records", "an array", "nothing")),
        Err(error) => Err(context
            .problem
            .into_inner()
            .unwrap_or_else(|| Problem::new(Fault::NotJson, format!("the body is not JSON: {error}")))),
    }
}

/// What the visitors share: the bound, and the complaint that made them stop.
struct Context {
    max_records: usize,
    problem: RefCell<Option<Problem>>,
}

impl Context {
    /// Stops the parser; the problem is what the caller will see.
    fn stop<E: serde::de::Error>(&self, problem: Problem) -> E {
        self.problem.replace(Some(problem));
        E::custom("refused")
    }

    fn check<T, E: serde::de::Error>(&self, checked: Result<T, Problem>) -> Result<T, E> {
        checked.map_err(|problem| self.stop(problem))
    }
}

/// Visitor methods that complain of every type but the one that is expected.
macro_rules! nothing_but {
    ($what:literal: $($method:ident($ty:ty) $got:expr;)*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($what)
        }
        $(fn $method<E: serde::de::Error>(self, value: $ty) -> Result<Self::Value, E> {
            #[allow(clippy::redundant_closure_call)]
            let got: String = ($got)(value);
            Err(self.complain($what, &got))
        })*
        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Err(self.complain($what, "null"))
        }
    };
}

/// The whole body; None if it has no records.
struct BodySeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Option<ProduceBody<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = Option<ProduceBody<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut body = ProduceBody::default();
        let mut records = None;
        while let Some(field) = map.next_key_seed(FieldSeed(BODY_FIELDS))? {
            let context = self.0;
            match field {
                Some("records") => records = Some(map.next_value_seed(RecordsSeed(context))?),
                Some(name @ "keyFormat") => body.key_format = context.check(scalar::format(map.next_value()?, name))?,
                Some(name @ "valueFormat") => {
                    body.value_format = context.check(scalar::format(map.next_value()?, name))?;
                }
                Some("atomic") => {
                    body.atomic = context.check(scalar::boolean(map.next_value()?, "atomic"))?.unwrap_or(false);
                }
                Some(schema_field) => {
                    let raw: &RawValue = map.next_value()?;
                    if raw.get() != "null" {
                        let side = if schema_field.starts_with("key") {
                            &mut body.key_schema_field
                        } else {
                            &mut body.value_schema_field
                        };
                        side.get_or_insert(schema_field);
                    }
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(records.map(|records| ProduceBody { records, ..body }))
    }
}

/// Spellings of the body's fields and the name that each stands for.
const BODY_FIELDS: &[(&str, &str)] = &[
    ("records", "records"),
    ("keyFormat", "keyFormat"),
    ("key_format", "keyFormat"),
    ("valueFormat", "valueFormat"),
    ("value_format", "valueFormat"),
    ("atomic", "atomic"),
    ("keySchemaId", "keySchemaId"),
    ("key_schema_id", "keySchemaId"),
    ("valueSchemaId", "valueSchemaId"),
    ("value_schema_id", "valueSchemaId"),
    ("keySchemaVersion", "keySchemaVersion"),
    ("key_schema_version", "keySchemaVersion"),
    ("valueSchemaVersion", "valueSchemaVersion"),
    ("value_schema_version", "valueSchemaVersion"),
    ("keySchemaSubject", "keySchemaSubject"),
    ("key_schema_subject", "keySchemaSubject"),
    ("valueSchemaSubject", "valueSchemaSubject"),
    ("value_schema_subject", "valueSchemaSubject"),
    ("keySchema", "keySchema"),
    ("key_schema", "keySchema"),
    ("valueSchema", "valueSchema"),
    ("value_schema", "valueSchema"),
];

/// Spellings of a record's fields and the name that each stands for.
const RECORD_FIELDS: &[(&str, &str)] = &[
    ("key", "key"),
    ("value", "value"),
    ("partition", "partition"),
    ("timestamp", "timestamp"),
    ("headers", "headers"),
    ("traceabilityId", "traceabilityId"),
    ("traceability_id", "traceabilityId"),
    ("correlationId", "correlationId"),
    ("correlation_id", "correlationId"),
];

/// A field's name; None if it is unknown.
struct FieldSeed(&'static [(&'static str, &'static str)]);

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldSeed {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(spelling, _)| *spelling == name).map(|(_, field)| *field))
    }
}

struct RecordsSeed<'c>(&'c Context);

impl RecordsSeed<'_> {
    fn complain<E: serde::de::Error>(&self, what: &str, got: &str) -> E {
        self.0.stop(scalar::expected("records", what, got))
    }
}

impl<'de> DeserializeSeed<'de> for RecordsSeed<'_> {
    type Value = Vec<NewRecord<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RecordsSeed<'_> {
    type Value = Vec<NewRecord<'de>>;

    nothing_but! { "an array":
        visit_bool(bool) |value: bool| value.to_string();
        visit_i64(i64) |value: i64| value.to_string();
        visit_u64(u64) |value: u64| value.to_string();
        visit_f64(f64) |value: f64| value.to_string();
        visit_str(&str) |value: &str| format!("{value:?}");
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.complain("an array", "an object"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let context = self.0;
        let mut records = Vec::new();
        while let Some(record) = sequence.next_element_seed(RecordSeed { context, index: records.len() })? {
            records.push(record);
        }
        Ok(records)
    }
}

struct RecordSeed<'c> {
    context: &'c Context,
    index: usize,
}

impl RecordSeed<'_> {
    fn complain<E: serde::de::Error>(&self, what: &str, got: &str) -> E {
        self.context.stop(scalar::expected(&format!("records[{}]", self.index), what, got))
    }
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = NewRecord<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.index >= self.context.max_records {
            let limit = self.context.max_records;
            let description = format!("records: a request has at most {limit} records (sidecar.maxRecordsPerRequest)");
            return Err(self.context.stop(Problem::new(Fault::TooManyRecords, description)));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = NewRecord<'de>;

    nothing_but! { "an object":
        visit_bool(bool) |value: bool| value.to_string();
        visit_i64(i64) |value: i64| value.to_string();
        visit_u64(u64) |value: u64| value.to_string();
        visit_f64(f64) |value: f64| value.to_string();
        visit_str(&str) |value: &str| format!("{value:?}");
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.complain("an object", "an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut record = NewRecord::default();
        while let Some(field) = map.next_key_seed(FieldSeed(RECORD_FIELDS))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &'de RawValue = map.next_value()?;
            match field {
                "key" => record.key = Some(raw),
                "value" => record.value = Some(raw),
                // A null stands for nothing, whatever the type.
                _ if raw.get() == "null" => unset(&mut record, field),
                _ => set(&mut record, field, raw, self.index)
                    .map_err(|problem| self.context.stop::<A::Error>(problem))?,
            }
        }
        Ok(record)
    }
}

fn unset(record: &mut NewRecord<'_>, field: &str) {
    match field {
        "partition" => record.partition = None,
        "timestamp" => record.timestamp = None,
        "headers" => record.headers.clear(),
        "traceabilityId" => record.traceability_id = None,
        _ => record.correlation_id = None,
    }
}

fn set(record: &mut NewRecord<'_>, field: &str, raw: &RawValue, index: usize) -> Result<(), Problem> {
    let path = format!("records[{index}].{field}");
    match field {
        "partition" => {
            let number = scalar::integer(raw, &path)?;
            let partition = number.map(i32::try_from).transpose().ok().flatten().filter(|number| *number >= 0);
            record.partition =
                Some(partition.ok_or_else(|| scalar::expected(&path, "a partition number of 0 or more", raw.get()))?);
        }
        // As the old system: what is not positive is no timestamp.
        "timestamp" => record.timestamp = scalar::timestamp(raw, &path)?.filter(|milliseconds| *milliseconds > 0),
        "headers" => record.headers = headers(raw, &path)?,
        "traceabilityId" => record.traceability_id = scalar::text(raw, &path)?.filter(|id| !id.is_empty()),
        _ => record.correlation_id = scalar::text(raw, &path)?.filter(|id| !id.is_empty()),
    }
    Ok(())
}

fn headers(raw: &RawValue, path: &str) -> Result<Vec<(String, Option<String>)>, Problem> {
    let entries: Entries<'_> = match raw.get().as_bytes().first() {
        Some(b'{') => {
            // The body is JSON as a whole, so what cannot be read here is half of a surrogate pair in a name, or too many of them.
            serde_json::from_str(raw.get()).map_err(|error: serde_json::Error| match error.classify() {
                Category::Data => Problem::new(Fault::Schema, format!("{path}: {error}")),
                Category::Io | Category::Syntax | Category::Eof => {
                    scalar::expected(path, "names of Unicode characters", raw.get())
                }
            })?
        }
        _ => return Err(scalar::expected(path, "an object of strings", raw.get())),
    };
    let mut headers: Vec<(String, Option<String>)> = Vec::with_capacity(entries.0.len());
    // Places of the names, sorted: a name that stands twice keeps its first place and takes the last value.
    let mut places = std::collections::BTreeMap::<String, usize>::new();
    for (name, value) in entries.0 {
        let value = scalar::text(value, &format!("{path}.{}", scalar::shortened(&name)))?;
        match places.get(&name).and_then(|place| headers.get_mut(*place)) {
            Some(header) => header.1 = value,
            None => {
                places.insert(name.clone(), headers.len());
                headers.push((name, value));
            }
        }
    }
    Ok(headers)
}

/// The fields of an object, in order, repeated ones too.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MAX_HEADERS {
                        return Err(A::Error::custom(format_args!("a record has at most {MAX_HEADERS} headers")));
                    }
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(EntriesVisitor).map(Entries)
    }
}

/// The most headers that a caller may give one record.
const MAX_HEADERS: usize = 1000;

#[cfg(test)]
mod tests;
