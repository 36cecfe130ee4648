//! The nearest known name to one that means nothing.

use super::path::KeyPath;

/// Below this a name is no likely slip for another.
const LIKELY: f64 = 0.8;
/// The same for whole paths, which often have much in common anyway.
const LIKELY_PATH: f64 = 0.95;

/// The known path that was most likely meant by an unknown one, if any is near.
///
/// Name and whole path count alike, so a setting is found in another section too, and there above all if the
/// name is the very same; the order of the words in a name does not count, so `max_connections` finds
/// `connections_max`. `known` has `[]` for the entries of lists.
pub(super) fn nearest(unknown: &KeyPath, known: impl IntoIterator<Item = KeyPath>) -> Option<KeyPath> {
    let (section, name) = split(unknown.as_str());
    let section_of_any = without_indexes(section);
    let whole = plain(&without_indexes(unknown.as_str()));
    let rank = |path: KeyPath| {
        let known_name = split(path.as_str()).1;
        let by_name = if known_name == name {
            2.0
        } else {
            likeness(name, known_name)
        };
        let by_path = strsim::jaro_winkler(&whole, &plain(path.as_str()));
        (by_name > LIKELY || by_path > LIKELY_PATH).then_some((by_name + by_path, path))
    };
    let (_, nearest) = known
        .into_iter()
        .filter_map(rank)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    match split(nearest.as_str()) {
        (found_in, name) if found_in == section_of_any => Some(KeyPath::new(section).key(name)),
        _ => Some(nearest),
    }
}

fn likeness(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b).max(strsim::jaro_winkler(&sorted_words(a), &sorted_words(b)))
}

/// The section of a path, and the last name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn without_indexes(path: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = (inside || *c == '[') && *c != ']';
        !inside || *c == '['
    };
    path.chars().filter(keep).collect()
}

/// The path with one separator for all: those of environment variables are easily mistaken.
fn plain(path: &str) -> String {
    let words = path.split(['.', '[', ']', '_']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

fn sorted_words(name: &str) -> String {
    let mut words: Vec<_> = name.split('_').collect();
    words.sort_unstable();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::*;

    #[test]
    fn slips_find_what_was_meant() {
        let known = Shape::of_config().keys(&KeyPath::default());
        let table = [
            ("server.prot", Some("server.port")),
            ("admin.prot", Some("admin.port")),
            ("servr", Some("server")),
            ("server_port", Some("server.port")),
            ("server.level", Some("log.level")),
            ("secret", Some("apps[].secret")),
            ("apps[3].max_connections", Some("apps[3].connections_max")),
            ("apps[3].activity_timeout", Some("apps[3].activity_timeout_s")),
            (
                "apps[0].max_presence_members",
                Some("apps[0].presence_members_max"),
            ),
            ("app", Some("apps")),
            ("server.zzz", None),
            ("colour", None),
        ];
        for (unknown, meant) in table {
            let found = nearest(&KeyPath::new(unknown), known.clone());
            assert_eq!(found.as_ref().map(KeyPath::as_str), meant, "{unknown}");
        }
    }
}
