//! What topics are called at Redis. In a cluster the name decides which server carries it. Pure.

use super::slots::{slot, slot_of_topic, tags};
use crate::adapter::Topic;

/// The names of all topics behind one prefix.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
    /// In a cluster the names of the topics that carry channels: each has a tag that puts it into its slot.
    tagged: Vec<String>,
}

impl Names {
    pub(super) fn new(prefix: &str, topics: u16, is_cluster: bool) -> Names {
        let prefix = format!("{prefix}.");
        let tags = if is_cluster { tags(topics) } else { Vec::new() };
        let named = |(number, tag)| format!("{prefix}{}{{{tag}}}", Topic::Channels(number));
        Names {
            tagged: (0..).zip(tags).map(named).collect(),
            prefix,
        }
    }

    /// What the topic is called.
    pub(super) fn name(&self, topic: Topic) -> String {
        match topic {
            Topic::Channels(number) if usize::from(number) < self.tagged.len() => {
                self.tagged[usize::from(number)].clone()
            }
            topic => format!("{}{topic}", self.prefix),
        }
    }

    /// The slot that the name falls into, where there are slots.
    pub(super) fn slot(&self, topic: Topic) -> u16 {
        match topic {
            Topic::Channels(number) if !self.tagged.is_empty() => {
                slot_of_topic(number, self.tagged.len() as u16)
            }
            topic => slot(&self.name(topic)),
        }
    }

    /// The topic of a name, if it is one of these.
    pub(super) fn topic(&self, name: &[u8]) -> Option<Topic> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(&self.prefix)?;
        let name = name.split_once('{').map_or(name, |(name, _)| name);
        name.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::NodeId;

    #[test]
    fn names_say_what_they_carry_and_are_understood() {
        let topics = [
            (Topic::Beats, "a.b.beats"),
            (Topic::Roster, "a.b.roster"),
            (Topic::Node(NodeId(255)), "a.b.node.00000000000000ff"),
            (Topic::Channels(7), "a.b.channels.7"),
        ];
        let plain = Names::new("a.b", 16, false);
        let tagged = Names::new("a.b", 16, true);
        for (topic, name) in topics {
            assert_eq!(plain.name(topic), name);
            assert!(tagged.name(topic).starts_with(name));
            for names in [&plain, &tagged] {
                assert_eq!(names.topic(names.name(topic).as_bytes()), Some(topic));
            }
            assert_eq!(tagged.slot(topic), slot(&tagged.name(topic)), "{topic}");
        }
        for foreign in [
            "a.c.beats",
            "a.b.channels.65536",
            "a.b.channels.",
            "a.bbeats",
            "a.b.node.x",
            "",
            "{",
        ] {
            assert_eq!(plain.topic(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
