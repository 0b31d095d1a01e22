//! Asks a part again and again whether it works, and tells [`health`](crate::health).
//!
//! It knows no part: the question is given. [`watch`] is a task's whole life.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::health::Part;

/// A question that bounds its own time.
pub(crate) type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Until the first OK the question is asked often, so that a start is quick.
const FIRST_DELAY: Duration = Duration::from_millis(20);
/// While the answer is bad.
const FAILING_DELAY: Duration = Duration::from_secs(1);
/// While it is good.
const HEALTHY_DELAY: Duration = Duration::from_secs(5);

/// Asks until told to stop. Changes are logged once, under `name`.
pub(crate) async fn watch(name: &'static str, part: Part, check: Check, stop: CancellationToken) -> Result<(), String> {
    let mut known: Option<bool> = None;
    let mut delay = FIRST_DELAY;
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            answer = check() => answer,
        };
        let ok = answer.is_ok();
        match answer {
            Ok(()) => {
                part.ok();
                if known != Some(true) {
                    tracing::info!(part = name, "works");
                }
                delay = HEALTHY_DELAY;
            }
            Err(reason) => {
                if known != Some(false) {
                    tracing::warn!(part = name, %reason, "does not work; asking again until it does");
                }
                delay = if known == Some(true) { FAILING_DELAY } else { (delay * 2).min(FAILING_DELAY) };
                part.failing(reason);
            }
        }
        known = Some(ok);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures_util::FutureExt as _;

    use super::*;
    use crate::health::Health;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_comes_and_goes_is_followed() {
        let health = Health::new(Duration::from_secs(30));
        let (up, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let check: Check = Arc::new({
            let (up, asked) = (up.clone(), asked.clone());
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = if up.load(Ordering::Relaxed) { Ok(()) } else { Err("away".to_owned()) };
                std::future::ready(answer).boxed()
            }
        });
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch("brokers", health.gate("brokers"), check, stop.clone()));

        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(asked.load(Ordering::Relaxed) >= 2, "asked often at the start");
        assert!(!health.is_ready());
        up.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(health.is_ready());
        up.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(health.is_ready(), "within the grace");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!health.is_ready());
        assert_eq!(health.snapshot().parts[0].reason.as_deref(), Some("away"));

        stop.cancel();
        assert_eq!(watching.await.expect("no panic"), Ok(()));
    }
}
