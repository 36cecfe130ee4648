//! Whether a socket is alive: when it is asked, and when it is given up. Pure; times are whole seconds since the
//! shard began, looked at when the wheel says so, so there is no timer per connection.
//!
//! Only what is received proves life. What is sent does not: a reader that died would live as long as traffic flows.

use crate::app::PingMode;
use crate::protocol::code::CloseCode;

/// Protocol 4 clients need not answer; they are closed after a day without a message. Seconds.
const IDLE_MAX_S: u32 = 24 * 60 * 60;

/// How long a socket is given to end the closing handshake. Seconds.
pub(super) const CLOSING_S: u32 = 5;

/// What the app allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct PulseLimits {
    /// Silence after which a socket is asked. Seconds.
    pub(super) activity_timeout_s: u32,
    /// Further silence after which it is given up. Seconds.
    pub(super) pong_wait_s: u32,
    /// Time to become authorised, if that is demanded. Seconds.
    pub(super) auth_timeout_s: Option<u32>,
    /// How it is asked.
    pub(super) ping_mode: PingMode,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Look again then.
    Wait(u32),
    /// Ask the socket, and look again then.
    Ping(u32),
    /// Give it up.
    Close(CloseCode),
    /// The closing handshake has taken too long: drop it.
    Drop,
}

/// When one socket was last heard of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    born: u32,
    heard: u32,
    /// The last whole message, pongs left out; for protocol 4.
    spoke: u32,
    asked: Option<u32>,
    closing: Option<u32>,
}

impl Pulse {
    /// A socket that was accepted now.
    pub(super) fn new(now: u32) -> Pulse {
        Pulse {
            born: now,
            heard: now,
            spoke: now,
            asked: None,
            closing: None,
        }
    }

    /// Bytes arrived, or the socket is not being read and so cannot be heard.
    pub(super) fn hear(&mut self, now: u32) {
        self.heard = now;
        self.asked = None;
    }

    /// A message arrived.
    pub(super) fn speak(&mut self, now: u32) {
        self.spoke = now;
    }

    /// A close frame was sent.
    pub(super) fn close(&mut self, now: u32) {
        self.closing = Some(now);
    }

    /// When a look is due first.
    pub(super) fn first(&self, limits: PulseLimits) -> u32 {
        self.born
            + limits
                .auth_timeout_s
                .unwrap_or(u32::MAX)
                .min(limits.activity_timeout_s)
    }

    /// What is due now.
    pub(super) fn beat(&mut self, now: u32, limits: PulseLimits, is_authorized: bool, protocol: u8) -> Beat {
        if let Some(since) = self.closing {
            return if now >= since + CLOSING_S {
                Beat::Drop
            } else {
                Beat::Wait(since + CLOSING_S)
            };
        }
        let mut next = self.heard + limits.activity_timeout_s;
        if let Some(timeout) = limits.auth_timeout_s.filter(|_| !is_authorized) {
            if now >= self.born + timeout {
                return Beat::Close(CloseCode::AuthTimeout);
            }
            next = next.min(self.born + timeout);
        }
        if protocol < 5 && now >= self.spoke + IDLE_MAX_S {
            return Beat::Close(CloseCode::Idle);
        }
        match self.asked {
            Some(asked) if now >= asked + limits.pong_wait_s => Beat::Close(CloseCode::NoPong),
            Some(asked) => Beat::Wait(asked + limits.pong_wait_s),
            None if now >= self.heard + limits.activity_timeout_s => {
                self.asked = Some(now);
                let mut next = now + limits.pong_wait_s;
                if let Some(timeout) = limits.auth_timeout_s.filter(|_| !is_authorized) {
                    next = next.min(self.born + timeout);
                }
                Beat::Ping(next)
            }
            None => Beat::Wait(next),
        }
    }
}
