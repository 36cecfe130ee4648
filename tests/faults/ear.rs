//! A socket that writes down all it hears, and when.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::node::Node;
use crate::support::client::data;

/// The name of the numbered events.
pub(crate) const TICK: &str = "tick";
/// An acknowledgement takes no longer: the server's own bound is two seconds.
const SUBSCRIBED_MAX: Duration = Duration::from_secs(10);

/// One thing that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A publisher's event of this number.
    Number {
        publisher: u32,
        channel: String,
        number: u32,
    },
    /// The acknowledgement of a subscription, with the members' ids where there are such.
    Subscribed { channel: String, members: Vec<String> },
    /// A user came.
    Added(String),
    /// A user left.
    Removed(String),
    /// Something that these tests have no use for.
    Other(String),
    /// The connection ended.
    Ended(String),
}

/// What was heard, and when.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) what: What,
}

/// A socket that listens until it is dropped.
pub(crate) struct Ear {
    /// For messages: on which node, and whose.
    pub(crate) name: String,
    /// The node that it is connected to.
    pub(crate) node: String,
    /// When all of its subscriptions were acknowledged.
    pub(crate) since: Instant,
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ear {
    /// Subscribes to channels, all at once as clients do after a reconnect.
    pub(crate) async fn open(node: &Node, channels: &[String]) -> Ear {
        let wishes: Vec<_> = channels
            .iter()
            .map(|channel| (channel.as_str(), String::new()))
            .collect();
        Ear::listen(node, format!("an ear on {}", node.name), &wishes).await
    }

    /// Joins a presence channel as this user.
    pub(crate) async fn join(node: &Node, channel: &str, user_id: &str) -> Ear {
        let channel_data = json!({ "user_id": user_id, "user_info": { "name": user_id } }).to_string();
        Ear::listen(
            node,
            format!("{user_id} on {}", node.name),
            &[(channel, channel_data)],
        )
        .await
    }

    async fn listen(node: &Node, name: String, wishes: &[(&str, String)]) -> Ear {
        let mut client = node.connect().await;
        for (channel, channel_data) in wishes {
            client.ask_for(channel, channel_data).await;
        }
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut stream = client.stream;
        let into = heard.clone();
        let task = tokio::spawn(async move {
            loop {
                let what = match stream.next().await {
                    Some(Ok(Message::Text(text))) => understood(&text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(end)) => What::Ended(format!("{end:?}")),
                    Some(Err(error)) => What::Ended(error.to_string()),
                    None => What::Ended("the end".to_owned()),
                };
                let is_end = matches!(what, What::Ended(_));
                let at = Instant::now();
                locked(&into).push(Heard { at, what });
                if is_end {
                    return;
                }
            }
        });
        let mut ear = Ear {
            name,
            node: node.name.clone(),
            since: Instant::now(),
            heard,
            task,
        };
        ear.wait_for_subscriptions(wishes.len()).await;
        ear
    }

    async fn wait_for_subscriptions(&mut self, wanted: usize) {
        let asked = Instant::now();
        loop {
            let answered = self
                .heard()
                .iter()
                .filter(|heard| matches!(heard.what, What::Subscribed { .. }))
                .count();
            if answered == wanted {
                break;
            }
            assert!(
                asked.elapsed() < SUBSCRIBED_MAX,
                "{}: {answered} of {wanted} subscriptions after {SUBSCRIBED_MAX:?}; heard {:?}",
                self.name,
                self.heard().iter().take(20).collect::<Vec<_>>()
            );
            sleep(Duration::from_millis(2)).await;
        }
        self.since = Instant::now();
    }

    /// All that was heard until now.
    pub(crate) fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        locked(&self.heard)
    }

    /// Why the connection ended, if it has.
    pub(crate) fn end(&self) -> Option<String> {
        match self.heard().last() {
            Some(Heard {
                what: What::Ended(why),
                ..
            }) => Some(why.clone()),
            _ => None,
        }
    }

    /// What of a user's coming and going was heard since a moment.
    pub(crate) fn news_since(&self, since: Instant) -> Vec<What> {
        self.heard()
            .iter()
            .filter(|heard| heard.at >= since)
            .filter(|heard| matches!(heard.what, What::Added(_) | What::Removed(_)))
            .map(|heard| heard.what.clone())
            .collect()
    }

    /// Who is there, as this socket was told: the list of its acknowledgement, and every change since. Whoever comes
    /// twice, or leaves without being there, is a fault.
    pub(crate) fn members(&self) -> Result<BTreeSet<String>, String> {
        let mut members = BTreeSet::new();
        for Heard { what, .. } in self.heard().iter() {
            let is_sound = match what {
                What::Subscribed { members: first, .. } => {
                    members.extend(first.iter().cloned());
                    true
                }
                What::Added(user) => members.insert(user.clone()),
                What::Removed(user) => members.remove(user),
                _ => true,
            };
            if !is_sound {
                return Err(format!(
                    "{} heard {what:?} against what it had heard before",
                    self.name
                ));
            }
        }
        Ok(members)
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn understood(text: &str) -> What {
    let message: Value = serde_json::from_str(text).expect("the server speaks JSON");
    let channel = || message["channel"].as_str().expect("a channel").to_owned();
    let user = || {
        data(&message)["user_id"]
            .as_str()
            .expect("a user's id")
            .to_owned()
    };
    match message["event"].as_str().expect("an event") {
        TICK => {
            let text = message["data"].as_str().expect("data is a string");
            let mut words = text.split(' ').map_while(|word| word.parse().ok());
            What::Number {
                publisher: words.next().expect("the publisher"),
                channel: channel(),
                number: words.next().expect("the number"),
            }
        }
        "pusher_internal:subscription_succeeded" => {
            let members = data(&message)["presence"]["ids"].clone();
            What::Subscribed {
                channel: channel(),
                members: serde_json::from_value(members).unwrap_or_default(),
            }
        }
        "pusher_internal:member_added" => What::Added(user()),
        "pusher_internal:member_removed" => What::Removed(user()),
        _ => What::Other(text.to_owned()),
    }
}
