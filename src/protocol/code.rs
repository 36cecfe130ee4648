//! Every code that a client may be told, with what the official clients do on it.
//!
//! A code is an instruction more than a message: pusher-js never returns after one in 4001-4099 or from 4300
//! on, waits 1 s after 41xx and comes back at once after 42xx. The sentences are for humans, never matched by
//! a client.

/// `pusher:error` for a refused subscription or sign-in. As a close code it would stop pusher-js for good.
pub const UNAUTHORIZED: u16 = 4009;
/// `pusher:error` for a refused client event. Never a close code: pusher-js would stop for good.
pub const CLIENT_EVENT_REFUSED: u16 = 4301;
/// `pusher:error` for a watchlist that was cut. Never a close code.
pub const WATCHLIST_TOO_LONG: u16 = 4302;

/// Why a socket is closed. Several reasons may share a number; 4000 is no default for anything, for it turns
/// a page's pusher-js to TLS for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1001: the server is going down, told quietly; established connections only. Clients come back after 1 s.
    GoingAway,
    /// 1002: broken WebSocket framing. All clients come back, with a delay.
    ProtocolError,
    /// 1003: a binary frame. All clients come back, with a delay.
    UnsupportedData,
    /// 1007: a text frame that is not UTF-8. Clients come back after 1 s.
    InvalidText,
    /// 1009: a message over the limit. Clients come back after 1 s.
    TooBig,
    /// 4000: plain connection to an app that demands TLS. pusher-js turns to wss at once; Swift and Java
    /// stop.
    TlsOnly,
    /// 4001: no app has this key. Clients stop.
    NoSuchApp,
    /// 4003: the app is switched off, now or while connected. Clients stop.
    AppDisabled,
    /// 4004: the app has as many connections as it may. Clients stop.
    OverQuota,
    /// 4005: an upgrade on a path that is not ours. Clients stop.
    NoSuchPath,
    /// 4006: unreadable `version`, strict mode only. Clients stop.
    BadVersion,
    /// 4007: `protocol` is none that is served. Clients stop.
    UnsupportedProtocol,
    /// 4008: no `protocol`, strict mode only. Clients stop.
    NoProtocol,
    /// 4009 at the handshake: the page's origin is not on the app's list. Clients stop.
    OriginNotAllowed,
    /// 4009 when the app's backend ends a user's connections. Clients stop; the page may connect again by
    /// itself.
    Terminated,
    /// 4009 when neither sign-in nor an authorised subscription came in time. Clients stop.
    AuthTimeout,
    /// 4100: this node is full. pusher-js comes back after 1 s, the others with growing delays.
    OverCapacity,
    /// 4100, for handshakes while the server drains: 42xx would bring pusher-js back without any delay, for
    /// ever.
    Draining,
    /// 4100: the client reads more slowly than it is sent to. It comes back as above.
    SlowConsumer,
    /// 4200: drain or forced reconnect, established connections only. pusher-js and Swift come back at once.
    Reconnect,
    /// 4201: no sign of life after a ping. As above.
    NoPong,
    /// 4202: a protocol 4 client, which cannot be asked for a pong, silent for a day. As above.
    Idle,
}

impl CloseCode {
    /// The number in the close frame, and in the `pusher:error` before it.
    pub fn number(self) -> u16 {
        match self {
            CloseCode::GoingAway => 1001,
            CloseCode::ProtocolError => 1002,
            CloseCode::UnsupportedData => 1003,
            CloseCode::InvalidText => 1007,
            CloseCode::TooBig => 1009,
            CloseCode::TlsOnly => 4000,
            CloseCode::NoSuchApp => 4001,
            CloseCode::AppDisabled => 4003,
            CloseCode::OverQuota => 4004,
            CloseCode::NoSuchPath => 4005,
            CloseCode::BadVersion => 4006,
            CloseCode::UnsupportedProtocol => 4007,
            CloseCode::NoProtocol => 4008,
            CloseCode::OriginNotAllowed | CloseCode::Terminated | CloseCode::AuthTimeout => UNAUTHORIZED,
            CloseCode::OverCapacity | CloseCode::Draining | CloseCode::SlowConsumer => 4100,
            CloseCode::Reconnect => 4200,
            CloseCode::NoPong => 4201,
            CloseCode::Idle => 4202,
        }
    }

    /// A sentence for humans, at most 123 bytes: the room of a close frame.
    pub fn reason(self) -> &'static str {
        match self {
            CloseCode::GoingAway => "Server is shutting down",
            CloseCode::ProtocolError => "Broken WebSocket frame",
            CloseCode::UnsupportedData => "Binary frames are not supported",
            CloseCode::InvalidText => "Text frame is not valid UTF-8",
            CloseCode::TooBig => "Message too big",
            CloseCode::TlsOnly => "Application only accepts TLS connections, reconnect using wss://",
            CloseCode::NoSuchApp => "Application does not exist",
            CloseCode::AppDisabled => "Application disabled",
            CloseCode::OverQuota => "Application is over connection quota",
            CloseCode::NoSuchPath => "Path not found",
            CloseCode::BadVersion => "Invalid version string format",
            CloseCode::UnsupportedProtocol => "Unsupported protocol version",
            CloseCode::NoProtocol => "No protocol version supplied",
            CloseCode::OriginNotAllowed => "Origin not allowed",
            CloseCode::Terminated => "You got disconnected by the app",
            CloseCode::AuthTimeout => "Connection not authorized within timeout",
            CloseCode::OverCapacity => "Over capacity, reconnect later",
            CloseCode::Draining => "Server is shutting down, reconnect later",
            CloseCode::SlowConsumer => "Connection reads too slowly",
            CloseCode::Reconnect => "Server asks to reconnect",
            CloseCode::NoPong => "Pong reply not received",
            CloseCode::Idle => "Closed after inactivity",
        }
    }

    /// Whether a `pusher:error` of the same code goes out before the close frame.
    ///
    /// Always during the handshake and to clients that speak a protocol below 6. On an established connection
    /// newer clients read the close code, and an error before it would reach the page once more; only 4009 is
    /// told first, so that the page can show the reason. Codes below 4000 belong to WebSocket alone and are
    /// never told.
    pub fn is_told_first(self, protocol: u8, established: bool) -> bool {
        self.number() >= 4000 && (!established || protocol < 6 || self.number() == UNAUTHORIZED)
    }
}

/// Why a subscription is refused. The socket stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Signature missing or wrong, no member data, unreadable member data, or another user's channel.
    Auth,
    /// The channel's name is longer than the app allows.
    NameTooLong,
    /// The presence channel has as many members as it may.
    PresenceFull,
    /// The member's id or info is larger than the app allows.
    MemberTooLarge,
    /// The socket has as many subscriptions as it may.
    TooManyChannels,
    /// No legal channel name.
    InvalidChannel,
}

impl RefusalKind {
    /// `type` in `pusher:subscription_error`.
    pub fn type_name(self) -> &'static str {
        match self {
            RefusalKind::Auth => "AuthError",
            RefusalKind::NameTooLong
            | RefusalKind::PresenceFull
            | RefusalKind::MemberTooLarge
            | RefusalKind::TooManyChannels => "LimitReached",
            RefusalKind::InvalidChannel => "InvalidChannel",
        }
    }

    /// `status` in `pusher:subscription_error`.
    pub fn status(self) -> u16 {
        match self {
            RefusalKind::Auth => 401,
            RefusalKind::NameTooLong => UNAUTHORIZED,
            RefusalKind::PresenceFull | RefusalKind::TooManyChannels => 4100,
            RefusalKind::MemberTooLarge => 4301,
            RefusalKind::InvalidChannel => 400,
        }
    }

    /// `code` in the `pusher:error` that goes with it: `None` is sent as `null`.
    pub fn error_code(self) -> Option<u16> {
        match self {
            RefusalKind::Auth => Some(UNAUTHORIZED),
            kind => Some(kind.status()).filter(|&status| status >= 4000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CloseCode; 21] = [
        CloseCode::ProtocolError,
        CloseCode::UnsupportedData,
        CloseCode::InvalidText,
        CloseCode::TooBig,
        CloseCode::TlsOnly,
        CloseCode::NoSuchApp,
        CloseCode::AppDisabled,
        CloseCode::OverQuota,
        CloseCode::NoSuchPath,
        CloseCode::BadVersion,
        CloseCode::UnsupportedProtocol,
        CloseCode::NoProtocol,
        CloseCode::OriginNotAllowed,
        CloseCode::Terminated,
        CloseCode::AuthTimeout,
        CloseCode::OverCapacity,
        CloseCode::Draining,
        CloseCode::SlowConsumer,
        CloseCode::Reconnect,
        CloseCode::NoPong,
        CloseCode::Idle,
    ];

    #[test]
    fn every_reason_fits_and_no_number_stops_pusher_js_by_accident() {
        for code in ALL {
            assert!(code.reason().len() <= 123, "{code:?}");
            assert!(
                (1002..=1009).contains(&code.number()) || (4000..4300).contains(&code.number()),
                "{code:?}"
            );
            assert_eq!(code.number() == 4000, code == CloseCode::TlsOnly);
        }
        // A client may come back for as long as the server drains: never without delay.
        assert_eq!(CloseCode::Draining.number(), 4100);
    }

    #[test]
    fn an_error_goes_before_the_close_where_the_client_reads_it() {
        for (code, protocol, established, told) in [
            (CloseCode::NoSuchApp, 7, false, true),
            (CloseCode::OriginNotAllowed, 7, false, true),
            (CloseCode::Draining, 5, false, true),
            (CloseCode::Reconnect, 7, true, false),
            (CloseCode::Reconnect, 6, true, false),
            (CloseCode::Reconnect, 5, true, true),
            (CloseCode::AppDisabled, 7, true, false),
            (CloseCode::Terminated, 7, true, true),
            (CloseCode::AuthTimeout, 7, true, true),
            (CloseCode::TooBig, 5, true, false),
        ] {
            assert_eq!(
                code.is_told_first(protocol, established),
                told,
                "{code:?} {protocol} {established}"
            );
        }
    }

    #[test]
    fn refusals_have_the_codes_of_the_protocol() {
        for (kind, name, status, code) in [
            (RefusalKind::Auth, "AuthError", 401, Some(4009)),
            (RefusalKind::NameTooLong, "LimitReached", 4009, Some(4009)),
            (RefusalKind::PresenceFull, "LimitReached", 4100, Some(4100)),
            (RefusalKind::TooManyChannels, "LimitReached", 4100, Some(4100)),
            (RefusalKind::MemberTooLarge, "LimitReached", 4301, Some(4301)),
            (RefusalKind::InvalidChannel, "InvalidChannel", 400, None),
        ] {
            assert_eq!(
                (kind.type_name(), kind.status(), kind.error_code()),
                (name, status, code)
            );
        }
    }
}
