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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PulseLimits = PulseLimits {
        activity_timeout_s: 120,
        pong_wait_s: 30,
        auth_timeout_s: None,
        ping_mode: PingMode::Frame,
    };

    #[test]
    fn a_silent_socket_is_asked_and_then_given_up() {
        let mut pulse = Pulse::new(0);
        assert_eq!(pulse.first(LIMITS), 120);
        assert_eq!(pulse.beat(119, LIMITS, false, 7), Beat::Wait(120));
        assert_eq!(pulse.beat(120, LIMITS, false, 7), Beat::Ping(150));
        assert_eq!(pulse.beat(149, LIMITS, false, 7), Beat::Wait(150));
        assert_eq!(pulse.beat(150, LIMITS, false, 7), Beat::Close(CloseCode::NoPong));
    }

    #[test]
    fn whatever_is_heard_proves_life() {
        let mut pulse = Pulse::new(0);
        assert_eq!(pulse.beat(120, LIMITS, false, 7), Beat::Ping(150));
        pulse.hear(149);
        assert_eq!(pulse.beat(150, LIMITS, false, 7), Beat::Wait(269));
        assert_eq!(pulse.beat(269, LIMITS, false, 7), Beat::Ping(299));
    }

    #[test]
    fn who_is_not_authorised_in_time_is_closed_however_lively() {
        let limits = PulseLimits {
            auth_timeout_s: Some(30),
            ..LIMITS
        };
        let mut pulse = Pulse::new(10);
        assert_eq!(pulse.first(limits), 40);
        pulse.hear(39);
        assert_eq!(pulse.beat(39, limits, false, 7), Beat::Wait(40));
        assert_eq!(
            pulse.beat(40, limits, false, 7),
            Beat::Close(CloseCode::AuthTimeout)
        );
        assert_eq!(pulse.beat(40, limits, true, 7), Beat::Wait(159));
    }

    #[test]
    fn a_protocol_4_client_that_only_answers_pings_is_closed_after_a_day() {
        let mut pulse = Pulse::new(0);
        pulse.hear(IDLE_MAX_S - 1);
        assert_eq!(
            pulse.beat(IDLE_MAX_S, LIMITS, true, 4),
            Beat::Close(CloseCode::Idle)
        );
        assert_eq!(
            pulse.beat(IDLE_MAX_S, LIMITS, true, 5),
            Beat::Wait(IDLE_MAX_S - 1 + 120)
        );
        pulse.speak(IDLE_MAX_S - 1);
        assert_eq!(
            pulse.beat(IDLE_MAX_S, LIMITS, true, 4),
            Beat::Wait(IDLE_MAX_S - 1 + 120)
        );
    }

    #[test]
    fn a_closing_socket_has_five_seconds() {
        let mut pulse = Pulse::new(0);
        pulse.close(7);
        assert_eq!(pulse.beat(8, LIMITS, true, 7), Beat::Wait(12));
        assert_eq!(pulse.beat(12, LIMITS, true, 7), Beat::Drop);
    }
}
