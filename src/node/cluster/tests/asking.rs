//! Asking another node for all that it has.

use super::news::among_others;
use super::*;
use crate::adapter::Topic;
use crate::adapter::config::AdapterConfig;
use crate::node::cluster::peers::Work;
use crate::node::cluster::tasks;
use crate::relay::parcel::{Beat, Content, Parcel};

const PEER: NodeId = NodeId(77);

fn beat() -> Bytes {
    let beat = Beat {
        is_starting: true,
        is_leaving: false,
        is_ready: true,
        asks_heads: false,
        has_all_heads: false,
        topics: AdapterConfig::default().topics,
        hash: 1,
        number: 1,
        roster_digest: None,
        heads: Vec::new(),
    };
    let parcel = Parcel {
        sender: PEER,
        content: Content::Beat(beat),
    };
    parcel.encode()
}

#[tokio::test(start_paused = true)]
async fn a_share_that_does_not_come_is_asked_for_anew_however_much_the_node_announces() {
    let (machine, sink, incoming) = among_others();
    let node = Arc::new(machine.node);
    let heart = tokio::spawn(tasks(&node, incoming).heart);
    sink.heard(Topic::Beats, beat());
    let peers = &node.cluster().expect("it is among others").peers;
    // Three seconds: a share that makes no progress for two is asked for anew.
    for number in 1..=30 {
        peers.hand(PEER, Work::Announced(number, Bytes::new()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(peers.asked(), 2);
    heart.abort();
}
