//! What a node announces: a list of entries, each of which says how something is now.
//!
//! An announcement may be lost, come twice or be cut into pieces: no entry depends on another. A channel with more
//! changed members than fit into a piece is said in several entries. Knows nothing of how they travel.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::adapter::NodeId;
use crate::relay::wire::{Malformed, Reader, put_bytes, put_number};
use crate::relay::{Origin, Stamp};

/// No piece is larger, unless a single cached event is. Bytes.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

/// How something is now on the node that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A channel.
    Channel {
        /// The app's id.
        app: Arc<str>,
        /// The channel's name.
        channel: Arc<str>,
        /// Sockets subscribed there.
        count: u32,
        /// Members that have changed. Those that are not named are as they were.
        members: Vec<MemberEntry>,
    },
    /// The last event of a cache channel.
    Cached {
        /// The app's id.
        app: Arc<str>,
        /// The channel's name.
        channel: Arc<str>,
        /// The event as it was broadcast.
        frame: Bytes,
        /// When it was published, and on which node: not always the one that says so.
        origin: Origin,
        /// For so long it is still shown. Milliseconds.
        left_ms: u64,
    },
    /// The sockets connected to an app.
    Connections {
        /// The app's id.
        app: Arc<str>,
        /// So many.
        count: u32,
    },
    /// The back end of the app was told of a channel, or of a member of it.
    Told {
        /// The app's id.
        app: Arc<str>,
        /// The channel's name.
        channel: Arc<str>,
        /// The member's user id. `None`: the channel itself.
        member: Option<Arc<str>>,
        /// What it was told: occupied or added, and not vacated or removed.
        is_there: bool,
    },
}

/// How one user is now in a presence channel, on the node that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEntry {
    /// Who.
    pub user_id: Arc<str>,
    /// The `user_info` and since when the user is there. `None` if the user is not.
    pub claim: Option<(Arc<str>, Stamp)>,
}

const END: u8 = 0;
const APP: u8 = 1;
const CHANNEL: u8 = 2;
const CACHED: u8 = 3;
const CONNECTIONS: u8 = 4;
/// From 16 on what is said is behind its length, so that what a later version says can be passed over.
const TOLD: u8 = 16;
const LATER: u8 = 17;

/// In what was told: it is there, and it is a member.
const TOLD_THERE: u8 = 0b01;
const TOLD_MEMBER: u8 = 0b10;

const HERE: u8 = 1;
const GONE: u8 = 2;

/// Writes entries into pieces, each of which can be read alone.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The app that the piece speaks of at its end.
    app: Option<Arc<str>>,
    piece: BytesMut,
    finished: Vec<Bytes>,
}

impl Pieces {
    /// Writes one entry.
    pub fn push(&mut self, entry: &Entry) {
        let mut bytes = BytesMut::new();
        match entry {
            Entry::Channel {
                app,
                channel,
                count,
                members,
            } => self.push_channel(app, channel, *count, members),
            Entry::Cached {
                app,
                channel,
                frame,
                origin,
                left_ms,
            } => {
                bytes.put_u8(CACHED);
                put_bytes(&mut bytes, channel.as_bytes());
                put_number(&mut bytes, origin.stamp.0);
                bytes.put_u64(origin.node.0);
                put_number(&mut bytes, *left_ms);
                put_bytes(&mut bytes, frame);
                self.begin(app, bytes.len());
                self.piece.put_slice(&bytes);
            }
            Entry::Connections { app, count } => {
                bytes.put_u8(CONNECTIONS);
                put_number(&mut bytes, (*count).into());
                self.begin(app, bytes.len());
                self.piece.put_slice(&bytes);
            }
            Entry::Told {
                app,
                channel,
                member,
                is_there,
            } => {
                let there = if *is_there { TOLD_THERE } else { 0 };
                bytes.put_u8(there | member.as_ref().map_or(0, |_| TOLD_MEMBER));
                put_bytes(&mut bytes, channel.as_bytes());
                if let Some(user_id) = member {
                    put_bytes(&mut bytes, user_id.as_bytes());
                }
                self.begin(app, bytes.len() + 4);
                self.piece.put_u8(TOLD);
                put_bytes(&mut self.piece, &bytes);
            }
        }
    }

    fn push_channel(&mut self, app: &Arc<str>, channel: &str, count: u32, members: &[MemberEntry]) {
        let mut head = BytesMut::new();
        head.put_u8(CHANNEL);
        put_bytes(&mut head, channel.as_bytes());
        put_number(&mut head, count.into());
        self.begin(app, head.len() + 1);
        self.piece.put_slice(&head);
        let mut bytes = BytesMut::new();
        for member in members {
            bytes.clear();
            bytes.put_u8(if member.claim.is_some() { HERE } else { GONE });
            put_bytes(&mut bytes, member.user_id.as_bytes());
            if let Some((user_info, since)) = &member.claim {
                put_number(&mut bytes, since.0);
                put_bytes(&mut bytes, user_info.as_bytes());
            }
            if self.piece.len() + bytes.len() + 1 > PIECE_BYTES_MAX {
                self.piece.put_u8(END);
                self.cut();
                self.begin(app, 0);
                self.piece.put_slice(&head);
            }
            self.piece.put_slice(&bytes);
        }
        self.piece.put_u8(END);
    }

    /// Makes room for so many bytes about an app.
    fn begin(&mut self, app: &Arc<str>, length: usize) {
        // With the app's id before them, should it have to be named anew.
        if !self.piece.is_empty() && self.piece.len() + length + app.len() + 4 > PIECE_BYTES_MAX {
            self.cut();
        }
        if self.app.as_ref() != Some(app) {
            self.piece.put_u8(APP);
            put_bytes(&mut self.piece, app.as_bytes());
            self.app = Some(app.clone());
        }
    }

    fn cut(&mut self) {
        self.finished.push(self.piece.split().freeze());
        self.app = None;
    }

    /// The pieces that are full by now, so that not all have to be held at once.
    pub fn take_full(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.finished)
    }

    /// All that is left. No piece is empty.
    pub fn finish(mut self) -> Vec<Bytes> {
        if !self.piece.is_empty() {
            self.cut();
        }
        self.finished
    }
}

/// Reads one piece. What is said of an app comes with one `Arc` of its id.
pub fn read(piece: Bytes) -> Result<Vec<Entry>, Malformed> {
    let mut reader = Reader::new(piece);
    let mut entries = Vec::new();
    let mut app: Option<Arc<str>> = None;
    while !reader.is_done() {
        let what = reader.byte()?;
        if what == APP {
            app = Some(text(&mut reader)?);
            continue;
        }
        let app = app.clone().ok_or(Malformed)?;
        entries.push(match what {
            CHANNEL => Entry::Channel {
                app,
                channel: text(&mut reader)?,
                count: count(&mut reader)?,
                members: members(&mut reader)?,
            },
            CACHED => Entry::Cached {
                app,
                channel: text(&mut reader)?,
                origin: Origin {
                    stamp: Stamp(reader.number()?),
                    node: NodeId(reader.fixed()?),
                },
                left_ms: reader.number()?,
                frame: reader.bytes()?,
            },
            CONNECTIONS => Entry::Connections {
                app,
                count: count(&mut reader)?,
            },
            TOLD => told(app, Reader::new(reader.bytes()?))?,
            LATER.. => {
                reader.bytes()?;
                continue;
            }
            _ => return Err(Malformed),
        });
    }
    Ok(entries)
}

fn told(app: Arc<str>, mut reader: Reader) -> Result<Entry, Malformed> {
    let flags = reader.byte()?;
    let channel = text(&mut reader)?;
    let is_member = flags & TOLD_MEMBER != 0;
    Ok(Entry::Told {
        app,
        channel,
        member: is_member.then(|| text(&mut reader)).transpose()?,
        is_there: flags & TOLD_THERE != 0,
    })
}

fn members(reader: &mut Reader) -> Result<Vec<MemberEntry>, Malformed> {
    let mut members = Vec::new();
    loop {
        let claimed = match reader.byte()? {
            END => return Ok(members),
            HERE => true,
            GONE => false,
            _ => return Err(Malformed),
        };
        let user_id = text(reader)?;
        let claim = if claimed {
            let since = Stamp(reader.number()?);
            Some((text(reader)?, since))
        } else {
            None
        };
        members.push(MemberEntry { user_id, claim });
    }
}

fn text(reader: &mut Reader) -> Result<Arc<str>, Malformed> {
    Ok((*reader.text()?).into())
}

fn count(reader: &mut Reader) -> Result<u32, Malformed> {
    u32::try_from(reader.number()?).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let name = || "[a-z]{0,12}".prop_map(Arc::from);
        let app = || prop_oneof![Just("1"), Just("2")].prop_map(Arc::from);
        let claim = proptest::option::of((name(), any::<u64>().prop_map(Stamp)));
        let member = (name(), claim).prop_map(|(user_id, claim)| MemberEntry { user_id, claim });
        let members = proptest::collection::vec(member, 0..5);
        let origin = (any::<u64>(), any::<u64>()).prop_map(|(stamp, node)| Origin {
            stamp: Stamp(stamp),
            node: NodeId(node),
        });
        let frame = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            (app(), name(), any::<u32>(), members).prop_map(|(app, channel, count, members)| {
                Entry::Channel {
                    app,
                    channel,
                    count,
                    members,
                }
            }),
            (app(), name(), frame, origin, any::<u64>()).prop_map(
                |(app, channel, frame, origin, left_ms)| {
                    Entry::Cached {
                        app,
                        channel,
                        frame,
                        origin,
                        left_ms,
                    }
                }
            ),
            (app(), any::<u32>()).prop_map(|(app, count)| Entry::Connections { app, count }),
            (app(), name(), proptest::option::of(name()), any::<bool>()).prop_map(
                |(app, channel, member, is_there)| {
                    Entry::Told {
                        app,
                        channel,
                        member,
                        is_there,
                    }
                }
            ),
        ]
    }

    fn written(entries: &[Entry]) -> Vec<Bytes> {
        let mut pieces = Pieces::default();
        entries.iter().for_each(|entry| pieces.push(entry));
        pieces.finish()
    }

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written(entries in proptest::collection::vec(entry(), 0..40)) {
            let read: Vec<Entry> = written(&entries).into_iter().flat_map(|piece| read(piece).expect("whole")).collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn a_piece_that_is_cut_off_or_changed_does_no_harm(
            entries in proptest::collection::vec(entry(), 1..10),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            for piece in written(&entries) {
                let mut bytes = piece.to_vec();
                let at = at.index(bytes.len());
                let _ = read(bytes[..at].to_vec().into());
                bytes[at] = byte;
                let _ = read(bytes.into());
            }
        }
    }

    #[test]
    fn what_a_later_version_says_besides_is_passed_over() {
        let known = Entry::Connections {
            app: "1".into(),
            count: 7,
        };
        let mut bytes = BytesMut::new();
        bytes.put_slice(&written(std::slice::from_ref(&known))[0]);
        bytes.put_u8(LATER);
        put_bytes(&mut bytes, b"who knows");
        bytes.put_slice(&written(std::slice::from_ref(&known))[0]);
        assert_eq!(read(bytes.freeze()), Ok(vec![known.clone(), known]));
    }

    #[test]
    fn much_is_said_in_pieces_that_can_each_be_read_alone() {
        let member = |number: u32| MemberEntry {
            user_id: number.to_string().into(),
            claim: Some((
                format!("{{\"name\":\"{number:>90}\"}}").into(),
                Stamp(number.into()),
            )),
        };
        let members: Vec<_> = (0..5_000).map(member).collect();
        let channel = |name: &str, members| Entry::Channel {
            app: "1".into(),
            channel: name.into(),
            count: 5_000,
            members,
        };
        let mut entries = vec![channel("presence-a", members.clone())];
        entries.extend((0..10_000).map(|number| channel(&format!("channel-{number}"), vec![])));
        let pieces = written(&entries);
        assert!(pieces.len() > 10);
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
        let (mut seen, mut channels) = (Vec::new(), 0);
        for entry in pieces
            .into_iter()
            .flat_map(|piece| read(piece).expect("read alone"))
        {
            match entry {
                Entry::Channel { channel, members, .. } if &*channel == "presence-a" => seen.extend(members),
                _ => channels += 1,
            }
        }
        assert_eq!((seen, channels), (members, 10_000));
    }
}
