//! A node as far as a durable queue goes: its journal, and what is given to it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use fanwire::webhook::queue::{Journal, OpenJournal, Partition, Partitions, Put, Room, Taken};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Nothing that is waited for takes longer, on the busiest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A broker of one kind, as the suite sees it. Each check has a prefix of its own.
pub(crate) trait Ground {
    /// A node's journal.
    async fn open(&self, prefix: &str, room: Room) -> OpenJournal;

    /// Kills the broker. What it was given is kept.
    fn stop(&mut self);

    /// Starts it again.
    fn start(&mut self);

    /// Lets it answer nobody, its connections up.
    fn freeze(&mut self);

    /// Lets it go on.
    fn thaw(&mut self);

    /// How many entries it holds, and of nodes that are gone something else that is left.
    async fn left(&self, prefix: &str) -> (usize, Vec<String>);

    async fn node(&self, prefix: &str) -> Node {
        self.node_with(prefix, Room::default()).await
    }

    async fn node_with(&self, prefix: &str, room: Room) -> Node {
        Node::over(self.open(prefix, room).await)
    }

    /// Waits until no entry is left, and nothing else.
    async fn is_bare(&self, prefix: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (entries, traces) = self.left(prefix).await;
            assert_eq!(
                traces,
                Vec::<String>::new(),
                "of nodes that are gone nothing is left"
            );
            if entries == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{entries} entries are left");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Ends, as a killed process would, when it is dropped.
pub(crate) struct Node {
    pub(crate) journal: Arc<dyn Journal>,
    taken: mpsc::Receiver<Taken>,
}

pub(crate) fn at(index: u8) -> Partition {
    Partition::at(index).expect("a partition")
}

pub(crate) fn set(indices: impl IntoIterator<Item = u8>) -> Partitions {
    indices.into_iter().map(at).collect()
}

impl Node {
    pub(crate) fn over((journal, taken): OpenJournal) -> Node {
        Node { journal, taken }
    }

    pub(crate) fn put(&self, partition: u8, entry: impl Into<Bytes>) {
        assert_eq!(self.journal.put(at(partition), entry.into()), Put::Queued);
    }

    /// Puts the entry as soon as there is room.
    pub(crate) async fn put_soon(&self, partition: u8, entry: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self
            .journal
            .put(at(partition), Bytes::copy_from_slice(entry.as_bytes()))
            == Put::Full
        {
            assert!(Instant::now() < deadline, "there is no room for {entry}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the broker knows everything.
    pub(crate) async fn sent(&self) {
        let deadline = Instant::now() + DEADLINE;
        while self.journal.unsent() > 0 {
            assert!(
                Instant::now() < deadline,
                "{} are not at the broker",
                self.journal.unsent()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn take(&mut self) -> Taken {
        let taken = timeout(DEADLINE, self.taken.recv()).await;
        taken.expect("an entry comes").expect("the journal lives")
    }

    /// The next entry, if there is one within a moment.
    pub(crate) async fn take_soon(&mut self, moment: Duration) -> Option<Taken> {
        timeout(moment, self.taken.recv()).await.ok().flatten()
    }

    /// What comes next, as text.
    pub(crate) async fn text(&mut self) -> String {
        text(&self.take().await)
    }

    /// Takes texts until each of those expected was there, and gives them in the order in which each came first.
    pub(crate) async fn texts(&mut self, expected: usize) -> Vec<String> {
        let (mut seen, mut texts) = (BTreeSet::new(), Vec::new());
        while texts.len() < expected {
            let taken = self.take().await;
            self.journal.done(taken.receipt.clone());
            let text = text(&taken);
            if seen.insert(text.clone()) {
                texts.push(text);
            }
        }
        texts
    }

    /// Nothing comes: whatever was put has had the time to.
    pub(crate) async fn silent(&mut self, moment: Duration) {
        if let Some(taken) = self.take_soon(moment).await {
            panic!("{} came, of {:?}", text(&taken), taken.receipt);
        }
    }
}

pub(crate) fn text(taken: &Taken) -> String {
    String::from_utf8(taken.entry.to_vec()).expect("text")
}
