//! What a caller meets at every door of the binary when something is wrong with the request. No broker is needed for that.

use anyhow::{Context as _, Result};

use crate::support::{
    kafka::free_ports,
    process::{Sidecar, complaints},
    raw::{address, exchange},
};

/// A sidecar whose brokers are away, with its probes on that port.
fn without_brokers(probes: u16, more: &[(&str, &str)]) -> Result<Sidecar> {
    let probes = probes.to_string();
    let mut settings = vec![
        ("kafka-producer.bootstrap.servers", "127.0.0.1:1"),
        ("kafka-producer.auditEnabled", "false"),
        ("sidecar.probesIp", "127.0.0.1"),
        ("sidecar.probesPort", &probes),
    ];
    settings.extend_from_slice(more);
    Sidecar::start(&settings)
}

fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n{body}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_at_every_door_gets_a_status_with_its_code() -> Result<()> {
    let probes = *free_ports(1)?.first().context("a port")?;
    let sidecar = without_brokers(probes, &[("server.maxTransferFileSize", "100000")])?;
    let data = address(&sidecar.url).to_owned();
    let probes = format!("127.0.0.1:{probes}");
    let json = "Content-Type: application/json\r\n";
    let (large, many) = ("x".repeat(200_000), "x: y\r\n".repeat(200));
    let long = format!("X-Long: {}\r\n", "x".repeat(40_000));
    let endless = format!("X-Endless: {}\r\n", "x".repeat(2_000_000));
    let post = |headers: &str, body: &str| request("POST /producers/t", headers, body);
    for (door, bytes, status, code) in [
        (&data, request("GET /nowhere", "", ""), 404, "ERR10007"),
        (&data, request("POST /producers/", json, "{}"), 404, "ERR10007"),
        (&data, request("POST /nowhere", json, &large), 404, "ERR10007"),
        (&data, request("GET /producers/t", "", ""), 405, "ERR10008"),
        (&data, request("BREW /health/liveness", "", ""), 405, "ERR10008"),
        (&data, request("OPTIONS *", "", ""), 404, "ERR10007"),
        (&data, request("POST /producers/%FF", json, "{}"), 400, "ERR30001"),
        (&data, request("POST /producers/a%2Fb", json, &large), 400, "ERR30001"),
        (&data, post("", "{\"records\":[]}"), 415, "ERR10015"),
        (&data, post("Content-Type: text/plain\r\n", "{\"records\":[]}"), 415, "ERR10015"),
        (&data, post(&format!("{json}Content-Encoding: gzip\r\n"), "{\"records\":[]}"), 415, "ERR10015"),
        (&data, post(json, ""), 400, "ERR11014"),
        (&data, post(json, "{\"records\":"), 400, "ERR10015"),
        (&data, post(json, "{\"records\":[{\"timestamp\":\"x\"}]}"), 400, "ERR11004"),
        (&data, post(json, &large), 413, "ERR12601"),
        (
            &data,
            post(&format!("{json}Transfer-Encoding: chunked\r\n"), "").into_iter().chain(*b"zz\r\n").collect(),
            400,
            "ERR10015",
        ),
        (&data, post(&long, "{}"), 431, "ERR12602"),
        (&data, post(&endless, "{}"), 431, "ERR12602"),
        (&data, post(&many, "{}"), 431, "ERR12602"),
        (&data, b"nonsense\r\n\r\n".to_vec(), 400, "ERR12608"),
        (&data, b"GET / HTTP/1.1\r\nbad header\r\n\r\n".to_vec(), 400, "ERR12608"),
        // A client that begins with TLS.
        (&data, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400, "ERR12608"),
        (&probes, request("POST /producers/t", json, "{}"), 404, "ERR10007"),
        (&probes, request("POST /metrics", "", ""), 405, "ERR10008"),
        (&probes, request("GET /health/%FF", "", ""), 404, "ERR10007"),
        (&probes, request("GET /health/liveness", &many, ""), 431, "ERR12602"),
        (&probes, b"nonsense\r\n\r\n".to_vec(), 400, "ERR12608"),
    ] {
        let shown = String::from_utf8_lossy(&bytes).chars().take(80).collect::<String>();
        let answer = exchange(door, &bytes).await.with_context(|| shown.clone())?;
        assert_eq!(answer.status, status, "{shown}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{shown}: {answer:?}");
        let body = answer.json()?;
        assert_eq!((body["statusCode"].as_u64(), &body["code"]), (Some(u64::from(status)), &code.into()), "{shown}");
        for field in ["message", "description", "severity"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{shown}: {body}");
        }
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{shown}: {answer:?}");
        }
    }
    let head = exchange(&data, &request("HEAD /health/liveness", "", "")).await?;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let log = sidecar.stop()?;
    // That there is no broker is said; what callers do wrong is not the operator's concern.
    let others = complaints(&log).into_iter().filter(|line| !line.contains("127.0.0.1:1"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_cost_a_503_with_retry_after_or_the_old_200() -> Result<()> {
    for (compatible, status) in [("false", 503), ("true", 200)] {
        let sidecar = without_brokers(
            0,
            &[
                ("kafka-producer.delivery.timeout.ms", "700"),
                ("kafka-producer.request.timeout.ms", "500"),
                ("kafka-producer.compatibleStatus", compatible),
            ],
        )?;
        let json = "Content-Type: application/json\r\nX-Traceability-Id: t-1\r\n";
        let body = r#"{"records":[{"value":1},{"value":2}]}"#;
        let answer = exchange(address(&sidecar.url), &request("POST /producers/t", json, body)).await?;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("x-traceability-id"), Some("t-1"));
        let json = answer.json()?;
        let entries = json["offsets"].as_array().context("entries")?;
        assert!(entries.len() == 2 && entries.iter().all(|entry| entry["errorCode"] == 50003), "{json}");
        if status == 503 {
            assert_eq!(json["code"], "ERR12615");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
        sidecar.stop()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_answer_while_brokers_are_away() -> Result<()> {
    let probes = *free_ports(1)?.first().context("a port")?;
    let sidecar = without_brokers(probes, &[("health.useJson", "true"), ("server.serviceId", "my {service}")])?;
    let probes = format!("127.0.0.1:{probes}");
    for door in [probes.as_str(), address(&sidecar.url)] {
        let live = exchange(door, &request("GET /health/liveness", "", "")).await?;
        assert_eq!((live.status, live.body.as_str()), (200, "{\"status\":\"OK\"}"));
        for path in ["/health/readiness", "/health/my%20%7Bservice%7D", "/adm/health/my%20%7Bservice%7D"] {
            let ready = exchange(door, &request(&format!("GET {path}"), "", "")).await?;
            let json = ready.json()?;
            assert_eq!((ready.status, &json["status"], &json["phase"]), (400, &"ERROR".into(), &"starting".into()));
            assert_eq!(json["parts"][0]["name"], "brokers");
        }
        let metrics = exchange(door, &request("GET /metrics", "", "")).await?;
        assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        for line in ["# TYPE http_server_requests_total counter", "# TYPE process_resident_memory_bytes gauge"] {
            assert!(metrics.body.lines().any(|found| found == line), "{line} in {}", metrics.body);
        }
    }
    let healthcheck = |url: String| {
        std::process::Command::new(env!("CARGO_BIN_EXE_kafka-sidecar"))
            .args(["healthcheck", "--url", &url])
            .env_clear()
            .status()
            .map(|status| status.code())
    };
    assert_eq!(healthcheck(format!("http://{probes}/health/liveness"))?, Some(0));
    assert_eq!(healthcheck(format!("http://{probes}/health/readiness"))?, Some(1));
    sidecar.stop()?;
    Ok(())
}
