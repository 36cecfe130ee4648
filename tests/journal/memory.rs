//! The queue in this process.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fanwire::webhook::queue::memory::Store;
use fanwire::webhook::queue::{OpenJournal, Room};

use crate::ground::Ground;
use crate::suite::suite;

/// A store for each prefix, as a broker keeps clusters apart.
#[derive(Default)]
struct Stores(Mutex<BTreeMap<String, Store>>);

impl Stores {
    fn of(&self, prefix: &str) -> Store {
        let mut stores = self.0.lock().expect("no check panics in between");
        stores.entry(prefix.to_owned()).or_default().clone()
    }

    fn set_up(&self, is_up: bool) {
        let stores = self.0.lock().expect("no check panics in between");
        stores.values().for_each(|store| store.set_up(is_up));
    }
}

impl Ground for Stores {
    async fn open(&self, prefix: &str, room: Room) -> OpenJournal {
        self.of(prefix).open(room)
    }

    fn stop(&mut self) {
        self.set_up(false);
    }

    fn start(&mut self) {
        self.set_up(true);
    }

    fn freeze(&mut self) {
        self.set_up(false);
    }

    fn thaw(&mut self) {
        self.set_up(true);
    }

    async fn left(&self, prefix: &str) -> (usize, Vec<String>) {
        (self.of(prefix).len(), Vec::new())
    }
}

suite!(Stores::default());
