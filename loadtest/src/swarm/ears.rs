//! What a client makes of messages without a stamp: its way to being live, and the rest of the protocol. They are rare, so
//! nothing here needs to be fast.

use crate::target::Target;

use super::board::Board;
use super::client::{self, Client, Message, Stage, words};
use super::end::{self, End};
use super::ledger::Ledger;
use super::members::Members;
use super::rally::Role;
use super::{Arrivals, Counts};

/// What of a swarm such messages change.
pub(super) struct Ears<'a> {
    pub(super) ledger: &'a mut Ledger,
    pub(super) board: &'a Board,
    pub(super) target: &'a Target,
    pub(super) counts: &'a mut Counts,
    pub(super) arrivals: &'a mut Arrivals,
    pub(super) members: &'a mut Members,
    pub(super) on_their_way: &'a mut usize,
    pub(super) silence_max_s: &'a mut u32,
}

impl Ears<'_> {
    /// Takes in a message.
    ///
    /// # Errors
    /// It ends the connection.
    #[cold]
    pub(super) fn hear(&mut self, client: &mut Client, text: &[u8], now_ns: u64) -> Result<(), End> {
        let text = String::from_utf8_lossy(text);
        let message = client::message(&text);
        self.counts.other += u64::from(client.is_live());
        self.note(client, &message, &text, now_ns);
        if self.obey(client, &message)? {
            self.counts.live += 1;
            *self.on_their_way -= 1;
            self.arrivals
                .handshakes
                .saturating_record(now_ns - client.began_ns);
        }
        Ok(())
    }

    /// Puts down what is told in the end.
    fn note(&mut self, client: &Client, message: &Message<'_>, text: &str, now_ns: u64) {
        match *message {
            Message::Established {
                activity_timeout_s, ..
            } => {
                if activity_timeout_s > 0 {
                    *self.silence_max_s = activity_timeout_s;
                }
                self.arrivals
                    .greetings
                    .saturating_record(now_ns - client.began_ns);
                if self.target.has_members() {
                    self.members.ask(client.number, now_ns);
                }
            }
            Message::Subscribed { .. } if self.target.has_members() => {
                self.members.answer(client.number, text, now_ns);
            }
            Message::Added { member } => self.members.added(client.number, member, now_ns),
            Message::Removed { member } => self.members.removed(client.number, member, now_ns),
            _ => {}
        }
    }

    /// Does what a message asks for. The answer is whether the client is live with it.
    fn obey(&mut self, client: &mut Client, message: &Message<'_>) -> Result<bool, End> {
        match *message {
            Message::Established { socket_id, .. } => {
                let channels = client.seats.clone().map(|seat| self.ledger.channel_of(seat));
                let texts: Vec<String> = channels
                    .map(|channel| self.target.subscription(channel, socket_id, client.number))
                    .collect();
                client.say(texts.iter().map(String::as_str));
                client.stage = if texts.is_empty() {
                    Stage::Live
                } else {
                    Stage::Subscribing
                };
                Ok(texts.is_empty())
            }
            Message::Subscribed { channel } => {
                let channel = self.target.channel_in(channel);
                let seat = client
                    .seats
                    .clone()
                    .find(|seat| Some(self.ledger.channel_of(*seat)) == channel);
                let Some(seat) = seat else {
                    return Ok(false);
                };
                if !self
                    .ledger
                    .join(seat, self.board.published(self.ledger.channel_of(seat)))
                {
                    return Ok(false);
                }
                client.pending -= 1;
                let is_live = client.pending == 0;
                if is_live {
                    client.stage = Stage::Live;
                }
                Ok(is_live)
            }
            Message::Refused { code, text } => {
                let words = format!("the server refused: {}", words(text.as_bytes()));
                match code {
                    // It would refuse the next one as well.
                    _ if client.is_live() && client.role != Role::Reads => Err(End::Hopeless(format!(
                        "{words} (the app must have client events enabled, and so many of them per second allowed to a \
                         socket as --rate asks for, or as one pair plays without --rate)"
                    ))),
                    // What it says of live sockets does not end them.
                    _ if client.is_live() => Ok(false),
                    4001 => Err(End::Hopeless(format!("{words} (is --key right?)"))),
                    4009 => Err(End::Hopeless(format!("{words} (is --secret right?)"))),
                    _ if end::is_hopeless(code) => Err(End::Hopeless(words)),
                    _ => Err(End::Ended(words)),
                }
            }
            Message::Ping => {
                client.say([r#"{"event":"pusher:pong","data":{}}"#]);
                Ok(false)
            }
            Message::Added { .. } | Message::Removed { .. } | Message::Other => Ok(false),
        }
    }
}
