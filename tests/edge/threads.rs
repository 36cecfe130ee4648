//! The threads of the server: which of them give way to those that serve sockets.

use crate::support::eventually;
use crate::support::server::{TestServer, app, config};

/// The niceness of all threads of this name, in this process.
fn niceness(name: &str) -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    let name = format!(" ({name}) ");
    let niceness = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        // proc(5): the name stands in parentheses, and 16 fields behind it the niceness.
        let (_, fields) = stat.split_once(&name)?;
        fields.split(' ').nth(16)?.parse::<i32>().ok()
    });
    niceness.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_delivers_webhooks_or_shakes_hands_gives_way_to_all_others() {
    let mut config = config([app()]);
    config.server.trusted_proxies = vec!["127.0.0.1".into()];
    config.server.proxy_protocol = true;
    let _server = TestServer::with_config(config).await;
    for name in ["webhooks", "porch"] {
        // Other tests have servers in this process, too.
        eventually(&format!("the threads named {name} to stand back"), async || {
            let niceness = niceness(name);
            (!niceness.is_empty() && niceness.iter().all(|nice| *nice == 10)).then_some(())
        })
        .await;
    }
    assert!(niceness("shard-0").iter().all(|nice| *nice == 0));
}
