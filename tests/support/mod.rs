//! What the tests at the edge share: a server in this process, clients that speak bytes or messages, signatures made
//! by the book, and waiting with a deadline. Shares no code with the server beyond its configuration and its start.

pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod http;
pub(crate) mod raw;
#[allow(dead_code, reason = "not every test asks a back end for all of it")]
pub(crate) mod receiver;
pub(crate) mod server;
pub(crate) mod sign;

use std::time::{Duration, Instant};

/// Nothing that a test waits for takes so long, however busy the machine is.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for something that must happen by the deadline; `what` says what did not.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}

/// Asks again and again until the answer is `Some`.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
