//! What the demo's records hold.

use serde::{Deserialize, Serialize};

/// An order. The demo's backend refuses those with a negative total.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) number: u32,
    pub(super) total: i64,
}

impl Order {
    /// Every 40th order has a negative total.
    pub(super) fn numbered(number: u32) -> Self {
        let total = if number % 40 == 39 { -1 } else { i64::from(number % 90) + 10 };
        Self { number, total }
    }

    /// Whose order it is: the record's key, so that one customer's orders stay in one partition and in their order.
    pub(super) fn customer(&self) -> String {
        format!("customer-{}", self.number % 23)
    }
}
