//! What a client event is charged beside its socket's own rate: the rate of the app on this node, and its messages of
//! the day.

use jiff::Timestamp;

use super::core::Core;
use super::socket::Socket;
use crate::app::Rated;
use crate::hub::inbox::SocketKey;
use crate::protocol::channel_name::ChannelName;
use crate::protocol::code::CLIENT_EVENT_REFUSED;
use crate::protocol::server;

impl Core {
    /// Counts a client event that its socket's own rate has let pass. If the app may send no more, its sender is told
    /// so, and the answer is `None`.
    pub(super) fn charge_client_event(&mut self, key: SocketKey, channel: &ChannelName) -> Option<()> {
        self.count_limit(key, false);
        let Err(text) = self.charge(self.sockets.get(key)?) else {
            return Some(());
        };
        let text = format!("Client event rejected: {text}");
        let refusal = server::error(Some(CLIENT_EVENT_REFUSED), &text, Some(channel.as_str()));
        self.sockets.reply(key, refusal);
        None
    }

    fn charge(&self, socket: &Socket) -> Result<(), String> {
        let namespace = &socket.session.namespace;
        let (app, metrics) = (&namespace.app, &namespace.metrics);
        let rated = Rated::ClientEvents;
        if let Some(rate) = app.settings().limits.rate(rated)
            && app.bucket(rated).take_many(1, rate, self.node.now_ns()).is_err()
        {
            metrics.rate_limit_triggered_total.inc();
            return Err(format!(
                "over {} messages per second of all connections together",
                rate.burst()
            ));
        }
        app.charge_messages(1, Timestamp::now).map_err(|over| {
            metrics.quota_refused_total.inc();
            format!("the app has used up its {} messages of today", over.max)
        })
    }

    /// Counts that a message was held against rates, and whether it was over its socket's own.
    pub(super) fn count_limit(&self, key: SocketKey, is_over: bool) {
        if let Some(socket) = self.sockets.get(key) {
            let metrics = &socket.session.namespace.metrics;
            metrics.rate_limit_checks_total.inc();
            metrics.rate_limit_triggered_total.inc_by(u64::from(is_over));
        }
    }
}
