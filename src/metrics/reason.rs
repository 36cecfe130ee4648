//! Why sockets end and connections fail: the closed lists behind the labels `reason` and `error_type`.
//!
//! An enum, so that no text from outside can become a label, and every value is there at 0 from the start.
//! Not here: what the client is told (`protocol/code.rs`).

use crate::protocol::CloseCode;

/// Declares an enum whose variants are label values.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)*
                }
            }
        }
    };
}

labels! {
    /// Why a socket ended: one reason for each, the first that was true.
    CloseReason {
        /// The client said goodbye.
        Client = "client",
        /// The connection broke off without a word.
        Lost = "lost",
        /// Its outbox overflowed: it reads slower than it is sent to.
        Slow = "slow",
        /// The outboxes of the whole process were beyond their mark, and this one was among the fullest.
        Memory = "memory",
        /// No answer to a ping.
        PongTimeout = "pong_timeout",
        /// A client too old to answer pings, silent for a day.
        Idle = "idle",
        /// It broke the rules of WebSocket, text encoding included.
        ProtocolError = "protocol_error",
        /// A message beyond the size limit.
        TooBig = "too_big",
        /// The app's back end terminated the user's connections.
        Terminated = "terminated",
        /// The app's back end asked the user's connections to come again.
        Reconnect = "reconnect",
        /// The node is going down.
        Drain = "drain",
        /// An operator had the node shed some of its sockets, for others to take them.
        Shed = "shed",
        /// It neither signed in nor subscribed with a signature in time.
        AuthTimeout = "auth_timeout",
        /// Refused: the app accepts TLS only.
        TlsOnly = "tls_only",
        /// Refused: no app has this key.
        NoSuchApp = "no_such_app",
        /// Refused, or closed later: the app is switched off.
        AppDisabled = "app_disabled",
        /// Refused: the app has as many sockets as it may.
        OverQuota = "over_quota",
        /// Refused: this node has as many sockets, or as little memory, as it bears.
        OverCapacity = "over_capacity",
        /// Refused: too many connections or handshakes of its address.
        AddressLimit = "address_limit",
        /// Refused: no such path.
        NoSuchPath = "no_such_path",
        /// Refused: a protocol version that is missing, malformed or not spoken here.
        UnsupportedProtocol = "unsupported_protocol",
        /// Refused: the app does not allow this `Origin`.
        OriginNotAllowed = "origin_not_allowed",
        /// Our own fault: its session panicked.
        Internal = "internal",
    }
}

labels! {
    /// How a connection failed before it was a socket. One that was upgraded only to be closed with a code is none
    /// of these: it counts as closed.
    ConnectionError {
        /// The listener could not accept it, for want of descriptors as a rule.
        Accept = "accept",
        /// What it was to say first did not come in time: the head of a request, or what is before it.
        Timeout = "timeout",
        /// It had not asked for anything yet, longest of too many such.
        Pending = "pending",
        /// Its address had too many connections; sockets that are told so count as closed.
        AddressLimit = "address_limit",
        /// It did not begin with a header of the PROXY protocol, or came from nobody who may send one.
        ProxyHeader = "proxy_header",
        /// What arrived was not HTTP, or beyond its limits.
        Http = "http",
        /// A TLS handshake that failed, or something else than TLS where TLS is spoken.
        Tls = "tls",
        /// An upgrade that RFC 6455 does not allow.
        Upgrade = "upgrade",
    }
}

labels! {
    /// What about the node stood against a newcomer who did nothing wrong.
    RefusedFor {
        /// It is going down.
        Draining = "draining",
        /// It has as many sockets as it bears.
        Sockets = "sockets",
        /// Its memory is beyond the mark.
        Memory = "memory",
        /// The store of apps does not say whose socket it would be.
        Store = "store",
        /// As many HTTP connections as it bears are at work. The newcomer is an API call.
        HttpConnections = "http_connections",
    }
}

impl From<CloseCode> for CloseReason {
    /// The reason for a close that we began with `code`. One code does not say enough: a drain tells
    /// established sockets [`CloseCode::Reconnect`], and is to be counted as [`CloseReason::Drain`].
    fn from(code: CloseCode) -> CloseReason {
        match code {
            CloseCode::ProtocolError | CloseCode::UnsupportedData | CloseCode::InvalidText => {
                CloseReason::ProtocolError
            }
            CloseCode::TooBig => CloseReason::TooBig,
            CloseCode::TlsOnly => CloseReason::TlsOnly,
            CloseCode::NoSuchApp => CloseReason::NoSuchApp,
            CloseCode::AppDisabled => CloseReason::AppDisabled,
            CloseCode::OverQuota => CloseReason::OverQuota,
            CloseCode::NoSuchPath => CloseReason::NoSuchPath,
            CloseCode::BadVersion | CloseCode::UnsupportedProtocol | CloseCode::NoProtocol => {
                CloseReason::UnsupportedProtocol
            }
            CloseCode::OriginNotAllowed => CloseReason::OriginNotAllowed,
            CloseCode::Terminated => CloseReason::Terminated,
            CloseCode::AuthTimeout => CloseReason::AuthTimeout,
            CloseCode::OverCapacity => CloseReason::OverCapacity,
            CloseCode::Draining | CloseCode::GoingAway => CloseReason::Drain,
            CloseCode::SlowConsumer => CloseReason::Slow,
            CloseCode::Reconnect => CloseReason::Reconnect,
            CloseCode::NoPong => CloseReason::PongTimeout,
            CloseCode::Idle => CloseReason::Idle,
        }
    }
}
