//! Produces by HTTP as a backend would, and keeps what the sidecar answered.

use std::{collections::BTreeSet, net::SocketAddr};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{order::Order, tally::Place};
use crate::cli::http_client;

/// Orders in one request.
const BATCH: u32 = 10;
/// Base64 of bytes that are neither UTF-8 nor JSON.
const NO_JSON: &str = "/v/+AA==";

/// A caller of `POST /producers/{topic}`.
pub(super) struct Producer {
    client: reqwest::Client,
    url: String,
    next: u32,
    acknowledged: BTreeSet<Place>,
    undecodable: BTreeSet<Place>,
}

#[derive(Deserialize)]
struct Answer {
    offsets: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    partition: Option<i32>,
    offset: Option<i64>,
    error: Option<String>,
}

impl Producer {
    pub(super) fn new(sidecar: SocketAddr, topic: &str) -> Result<Self, String> {
        Ok(Self {
            client: http_client()?,
            url: format!("http://{sidecar}/producers/{topic}"),
            next: 0,
            acknowledged: BTreeSet::new(),
            undecodable: BTreeSet::new(),
        })
    }

    /// Every record that was acknowledged.
    pub(super) fn acknowledged(&self) -> &BTreeSet<Place> {
        &self.acknowledged
    }

    /// Those of them that are no JSON.
    pub(super) fn undecodable(&self) -> &BTreeSet<Place> {
        &self.undecodable
    }

    /// Produces so many orders more, in requests of ten.
    pub(super) async fn orders(&mut self, count: u32) -> Result<(), String> {
        let end = self.next + count;
        while self.next < end {
            let numbers = self.next..end.min(self.next + BATCH);
            self.next = numbers.end;
            let records: Vec<Value> =
                numbers.map(Order::numbered).map(|order| json!({"key": order.customer(), "value": order})).collect();
            self.post(json!({ "records": records }), records.len()).await?;
        }
        Ok(())
    }

    /// Produces one record that the sidecar cannot decode where it expects JSON.
    pub(super) async fn bytes_that_are_no_json(&mut self) -> Result<(), String> {
        let body = json!({"valueFormat": "binary", "records": [{"key": "customer-0", "value": NO_JSON}]});
        let places = self.post(body, 1).await?;
        self.undecodable.extend(places);
        Ok(())
    }

    async fn post(&mut self, body: Value, records: usize) -> Result<Vec<Place>, String> {
        let request = self.client.post(&self.url).header("Content-Type", "application/json").body(body.to_string());
        let answer = request.send().await.map_err(|error| format!("producing: {error}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("producing: {error}"))?;
        let answer: Answer =
            serde_json::from_str(&text).map_err(|error| format!("producing was answered {status} {text}: {error}"))?;
        let mut places = Vec::with_capacity(records);
        for entry in answer.offsets {
            match (entry.partition, entry.offset) {
                (Some(partition), Some(offset)) => places.push((partition, offset)),
                _ => return Err(format!("a record was not produced: {:?}", entry.error)),
            }
        }
        if places.len() != records {
            return Err(format!("{records} records were answered with {} entries", places.len()));
        }
        self.acknowledged.extend(&places);
        Ok(places)
    }
}
