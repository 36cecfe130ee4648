//! A presence channel as the page behind one socket sees it: the list that it got, and the news since, each of which
//! must fit.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::client::{Client, data};
use crate::support::soon;

/// Members and their info.
pub(crate) type Members = BTreeMap<String, Value>;

/// A socket that is in a presence channel.
pub(crate) struct Room {
    pub(crate) client: Client,
    pub(crate) user: String,
    channel: String,
    /// Whom it takes for the members, itself included.
    pub(crate) members: Members,
}

impl Room {
    /// Joins as this user.
    pub(crate) async fn enter(mut client: Client, channel: &str, user: &str, info: &Value) -> Room {
        let channel_data = json!({ "user_id": user, "user_info": info }).to_string();
        client.ask_for(channel, &channel_data).await;
        // The list comes first: there is no news of a channel before it.
        let list = data(&client.expect_subscribed(channel).await)["presence"].take();
        let members: Members = serde_json::from_value(list["hash"].clone()).expect("a map");
        let mut ids: Vec<String> = serde_json::from_value(list["ids"].clone()).expect("a list of texts");
        ids.sort();
        assert!(ids.iter().eq(members.keys()), "{list}");
        assert_eq!(list["count"], members.len(), "{list}");
        assert!(members.contains_key(user), "the new member is in it: {list}");
        Room {
            client,
            user: user.to_owned(),
            channel: channel.to_owned(),
            members,
        }
    }

    /// Applies one piece of news.
    pub(crate) fn apply(&mut self, message: &Value) {
        assert_eq!(message["channel"], *self.channel, "{message}");
        let news = data(message);
        let user = news["user_id"].as_str().expect("an id");
        assert_ne!(user, self.user, "nobody is told of itself: {message}");
        match message["event"].as_str().expect("an event") {
            "pusher_internal:member_added" => {
                let before = self.members.insert(user.to_owned(), news["user_info"].clone());
                assert_eq!(before, None, "{user} was there already");
            }
            "pusher_internal:member_removed" => {
                assert!(
                    self.members.remove(user).is_some(),
                    "{user} was not there: {:?}",
                    self.members
                );
            }
            other => panic!("{other} was not asked for: {message}"),
        }
    }

    /// Reads all that has come.
    pub(crate) async fn look(&mut self) {
        for message in self.client.hear_out().await {
            self.apply(&message);
        }
    }

    /// Waits until these are the members, and reads all that has come then.
    pub(crate) async fn becomes(&mut self, users: &[&str]) {
        let what = format!("the members to be {users:?} for {}", self.user);
        let waiting = async {
            while !self.members.keys().eq(users) {
                let message = self.client.next().await;
                self.apply(&message);
            }
        };
        soon(&what, waiting).await;
        self.look().await;
        assert!(
            self.members.keys().eq(users),
            "{:?} are not {users:?}",
            self.members
        );
    }

    /// Leaves; what it was sent until then still has to fit.
    pub(crate) async fn leave(mut self) -> Client {
        self.client.unsubscribe(&self.channel).await;
        self.look().await;
        self.client
    }
}
