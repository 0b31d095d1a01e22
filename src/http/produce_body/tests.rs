use super::*;

fn check(body: &str) -> ProduceBody<'_> {
    parse(body.as_bytes(), 10).unwrap_or_else(|problem| panic!("{body}: {}", problem.description))
}

#[test]
fn every_bad_body_is_told_its_code_and_its_path() {
    let nested = format!("{{\"records\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let eleven = format!("{{\"records\":[{}{{}}]}}", "{},".repeat(10));
    let many_headers = format!(
        "{{\"records\":[{{\"headers\":{{{}\"last\":1}}}}]}}",
        (0..MAX_HEADERS).map(|n| format!("\"h{n}\":1,")).collect::<String>()
    );
    for (body, fault, start) in [
        ("", Fault::MissingBody, "the request has no body"),
        (" \r\n\t", Fault::MissingBody, "the request has no body"),
        ("[]", Fault::Schema, "body: expected an object with records, got an array"),
        ("hello", Fault::NotJson, "the body is not a JSON object"),
        ("\"records\"", Fault::NotJson, "the body is not a JSON object"),
        ("{\"records\":[}", Fault::NotJson, "the body is not JSON: "),
        ("{\"records\":[{}]", Fault::NotJson, "the body is not JSON: EOF"),
        ("{\"records\":[]} x", Fault::NotJson, "the body is not JSON: trailing characters"),
        ("{\"records\":[{\"key\":01}]}", Fault::NotJson, "the body is not JSON: "),
        ("{\"records\":[{\"key\":\"\u{1}\"}]}", Fault::NotJson, "the body is not JSON: "),
        ("{}", Fault::Schema, "records: expected an array, got nothing"),
        ("{\"Records\":[]}", Fault::Schema, "records: expected an array, got nothing"),
        ("{\"records\":null}", Fault::Schema, "records: expected an array, got null"),
        ("{\"records\":{}}", Fault::Schema, "records: expected an array, got an object"),
        ("{\"records\":\"x\"}", Fault::Schema, "records: expected an array, got \"x\""),
        ("{\"records\":true}", Fault::Schema, "records: expected an array, got true"),
        ("{\"records\":-1}", Fault::Schema, "records: expected an array, got -1"),
        ("{\"records\":[{},null]}", Fault::Schema, "records[1]: expected an object, got null"),
        ("{\"records\":[{},[]]}", Fault::Schema, "records[1]: expected an object, got an array"),
        ("{\"records\":[1.5]}", Fault::Schema, "records[0]: expected an object, got 1.5"),
        (
            "{\"records\":[{},{},{},{\"partition\":\"x\"}]}",
            Fault::Schema,
            "records[3].partition: expected an integer, got \"x\"",
        ),
        ("{\"records\":[{\"partition\":1.5}]}", Fault::Schema, "records[0].partition: expected an integer, got 1.5"),
        (
            "{\"records\":[{\"partition\":-1}]}",
            Fault::Schema,
            "records[0].partition: expected a partition number of 0 or more, got -1",
        ),
        (
            "{\"records\":[{\"partition\":2147483648}]}",
            Fault::Schema,
            "records[0].partition: expected a partition number of 0 or more, got 2147483648",
        ),
        (
            "{\"records\":[{\"timestamp\":\"noon\"}]}",
            Fault::Schema,
            "records[0].timestamp: expected milliseconds or an RFC 3339 time, got \"noon\"",
        ),
        (
            "{\"records\":[{\"headers\":[]}]}",
            Fault::Schema,
            "records[0].headers: expected an object of strings, got []",
        ),
        (
            "{\"records\":[{\"headers\":{\"a\":\"b\",\"c\":{\"d\":1}}}]}",
            Fault::Schema,
            "records[0].headers.c: expected a string, got {\"d\":1}",
        ),
        (
            "{\"records\":[{\"headers\":{\"a\":[1]}}]}",
            Fault::Schema,
            "records[0].headers.a: expected a string, got [1]",
        ),
        (
            "{\"records\":[{\"correlation_id\":{}}]}",
            Fault::Schema,
            "records[0].correlationId: expected a string, got {}",
        ),
        (
            "{\"records\":[{\"traceabilityId\":[]}]}",
            Fault::Schema,
            "records[0].traceabilityId: expected a string, got []",
        ),
        ("{\"keyFormat\":\"xml\",\"records\":[]}", Fault::InvalidFormat, "keyFormat: expected one of binary, json"),
        ("{\"records\":[],\"value_format\":6}", Fault::InvalidFormat, "valueFormat: expected one of binary, json"),
        ("{\"records\":[],\"atomic\":1}", Fault::Schema, "atomic: expected true or false, got 1"),
        (&nested, Fault::Schema, "records[0]: expected an object, got an array"),
        (&eleven, Fault::TooManyRecords, "records: a request has at most 10 records"),
        (
            "{\"records\":[{\"headers\":{\"\\ud800\":\"x\"}}]}",
            Fault::Schema,
            "records[0].headers: expected names of Unicode characters, got {\"\\ud800\":\"x\"}",
        ),
        (&many_headers, Fault::Schema, "records[0].headers: a record has at most 1000 headers"),
    ] {
        let problem = parse(body.as_bytes(), 10).expect_err(body);
        assert_eq!(problem.fault, fault, "{body}: {}", problem.description);
        assert!(problem.description.starts_with(start), "{body}\n found {}\n for {start}", problem.description);
    }
}

#[test]
fn bytes_that_are_no_utf_8_are_no_json() {
    let problem = parse(b"{\"records\":[{\"key\":\"\xff\"}]}", 10).expect_err("no text");
    assert_eq!(problem.fault, Fault::NotJson);
}

#[test]
fn keys_and_values_keep_their_text_to_the_byte() {
    let texts = [
        "null",
        "0",
        "false",
        "\"\"",
        "{}",
        "1.0",
        "1e400",
        "123456789012345678901234567890",
        "{ \"b\":1,  \"a\":2 , \"b\":3 }",
        "\"\\u00e9\\/\\ud800\"",
        "[1,[2,[3]]]",
    ];
    for text in texts {
        let json = format!("{{\"records\":[{{\"key\": {text} ,\"value\":{text}}}]}}");
        let body = check(&json);
        assert_eq!(body.records[0].key.expect("key").get(), text);
        assert_eq!(body.records[0].value.expect("value").get(), text);
    }
    let body = check("{\"records\":[{}]}");
    assert!(body.records[0].key.is_none() && body.records[0].value.is_none(), "absent is not null");
}

#[test]
fn a_value_may_be_nested_as_deep_as_it_likes() {
    let json = format!("{{\"x\":{0}{1},\"records\":[{{\"value\":{0}{1}}}]}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(check(&json).records[0].value.expect("value").get().len(), 200_000);
}

#[test]
fn both_spellings_unknown_fields_and_repeated_fields_are_accepted() {
    let body = check(
        "{\"key_format\":\"string\",\"valueFormat\":0,\"unknown\":{\"a\":[1]},\"records\":[{\"partition\":\"2\",\"more\":1,
          \"timestamp\":\"1970-01-01T00:00:01Z\",\"traceability_id\":\"t\",\"correlationId\":17,
          \"headers\":{\"a\":\"x\",\"b\":1.50,\"c\":true,\"d\":null,\"a\":\"last\"},\"key\":1,\"key\":2}]}",
    );
    assert_eq!((body.key_format, body.value_format), (Some(Format::String), Some(Format::Binary)));
    let record = &body.records[0];
    assert_eq!(record.partition, Some(2));
    assert_eq!(record.timestamp, Some(1000));
    assert_eq!(record.traceability_id.as_deref(), Some("t"));
    assert_eq!(record.correlation_id.as_deref(), Some("17"));
    assert_eq!(record.key.expect("key").get(), "2", "the last one counts");
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        record.headers,
        [
            ("a".to_owned(), some("last")),
            ("b".to_owned(), some("1.50")),
            ("c".to_owned(), some("true")),
            ("d".to_owned(), None),
        ]
    );
}

#[test]
fn what_is_null_or_not_positive_is_as_if_it_were_absent() {
    let body = check(
        "{\"keyFormat\":null,\"atomic\":null,\"valueSchemaId\":null,\"records\":[{\"partition\":null,\"timestamp\":0,
          \"headers\":null,\"correlationId\":\"\",\"traceabilityId\":null},{\"timestamp\":-5}]}",
    );
    assert_eq!((body.key_format, body.atomic, body.value_schema_field), (None, false, None));
    assert_eq!(body.records[0].partition, None);
    assert_eq!(body.records[0].timestamp, None);
    assert_eq!(body.records[0].correlation_id, None);
    assert_eq!(body.records[1].timestamp, None);
}

#[test]
fn schema_fields_and_atomic_are_noticed() {
    let body = check("{\"value_schema_id\":7,\"keySchema\":\"x\",\"atomic\":\"true\",\"records\":[]}");
    assert_eq!((body.key_schema_field, body.value_schema_field), (Some("keySchema"), Some("valueSchemaId")));
    assert!(body.atomic);
}
