//! Apps come, change and go while they are served, and what follows for who is connected.
//!
//! A change counts for what happens from then on: who is connected stays, over a smaller quota or without its key too.
//! Only where nobody may be connected any more are the sockets closed, and each shard closes its own, some in each turn.
//! Knows nothing of where the change comes from.

use std::sync::Arc;

use super::Node;
use crate::app::{App, Settings};
use crate::hub::inbox::{Entry, ShardIndex};

impl Node {
    /// Takes in an app, or the settings that it has from now on. Of one that is disabled the sockets are closed with
    /// 4003. The answer is that app.
    pub fn apply_app(&self, settings: Settings) -> Arc<App> {
        let app = self.apps.put(settings);
        self.close_sockets_of(&app);
        app
    }

    /// The apps of which there is something to tell: those of the configuration, and of those of a store such as somebody
    /// has connected to or asked for anything. There may be very many others.
    pub fn apps_with_figures(&self) -> Vec<Arc<App>> {
        let mut apps = self.apps.all();
        apps.retain(|app| !app.is_stored() || self.hub.has(app.id()));
        apps
    }

    /// Takes an app out: its sockets are closed with 4001. False if there is none with this id.
    pub fn remove_app(&self, id: &str) -> bool {
        let Some(app) = self.apps.remove(id) else {
            return false;
        };
        self.close_sockets_of(&app);
        self.webhooks.forget(id);
        true
    }

    /// Closes the sockets of an app to which nobody may be connected. Who is let in at this very moment is found to be
    /// too many when it becomes a socket.
    pub(super) fn close_sockets_of(&self, app: &Arc<App>) {
        if app.closed().is_none() || app.connections() == 0 {
            return;
        }
        let mut delivery = self.inboxes().deliver();
        for shard in 0..self.inboxes().all().len() {
            delivery.push(shard as ShardIndex, Entry::CloseApp(app.clone()));
        }
    }

    /// Forgets what is kept of apps that are not served and of which nothing is left, here or on other nodes.
    pub(super) fn forget_unserved_apps(&self) {
        self.hub
            .forget_unserved(&self.metrics, |namespace| self.is_usage_saved(namespace));
        self.apps.forget_unserved();
    }
}
