//! The nearest known name to one that means nothing.

use super::path::KeyPath;

/// Below this a name is no likely slip for another.
const LIKELY: f64 = 0.8;
/// The same for whole paths, which often have much in common anyway.
const LIKELY_PATH: f64 = 0.95;
/// What a name has that is one slip from a known one: a letter too many, too few, wrong, or swapped with the next.
const SLIP: f64 = 0.95;
/// Names so short are one slip from too many. Bytes.
const SHORT: usize = 2;
/// What a likely name of the same section has before all others, one of the very name in another section included.
const NEAR: f64 = 4.0;
/// What a setting of the very name loses for each section that it is in.
const DEPTH: f64 = 0.2;

/// Names that other servers of the protocol have, with what they are here; the end of a path is enough. Likeness
/// would miss these or find the wrong thing.
const FOREIGN: [(&str, Option<&str>); 6] = [
    ("app_id", Some("apps[].id")),
    ("app_key", Some("apps[].key")),
    ("app_secret", Some("apps[].secret")),
    ("server.max_connections", Some("server.sockets_max")),
    ("server.tls", Some("tls")),
    ("ssl", Some("tls")),
];

/// The known path that was most likely meant by an unknown one, if any is near. `known` has `[]` for the
/// entries of lists.
pub(super) fn nearest(unknown: &KeyPath, known: impl IntoIterator<Item = KeyPath>) -> Option<KeyPath> {
    let (section, name) = split(unknown.as_str());
    let section_of_any = without_indexes(section);
    let nearest = match foreign(unknown) {
        Some(meant) => KeyPath::new(meant?),
        None => likest(unknown, name, known)?,
    };
    match split(nearest.as_str()) {
        (found_in, name) if found_in == section_of_any => Some(KeyPath::new(section).key(name)),
        _ => Some(nearest),
    }
}

/// What a foreign name is here: `Some(None)` is known to be nothing here.
fn foreign(unknown: &KeyPath) -> Option<Option<&'static str>> {
    let ends_with = |foreign: &str| {
        let before = unknown.as_str().strip_suffix(foreign);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let mut names = FOREIGN.into_iter();
    names
        .find(|(foreign, _)| ends_with(foreign))
        .map(|(_, meant)| meant)
}

/// Name and whole path count alike, so a setting is found in another section too, and there above all if the
/// name is the very same; the order of the words in a name does not count, so `max_connections` finds
/// `connections_max`.
fn likest(unknown: &KeyPath, name: &str, known: impl IntoIterator<Item = KeyPath>) -> Option<KeyPath> {
    let section = without_indexes(split(unknown.as_str()).0);
    let whole = plain(&without_indexes(unknown.as_str()));
    let rank = |path: KeyPath| {
        let (known_section, known_name) = split(path.as_str());
        let by_name = if known_name == name {
            // Of several by that name, the least hidden one.
            2.0 - DEPTH * path.as_str().matches('.').count() as f64
        } else {
            likeness(name, known_name)
        };
        let by_path = strsim::jaro_winkler(&whole, &plain(path.as_str()));
        // At the top, whole paths in one word are as likely as the name of a section.
        let is_near = !section.is_empty() && known_section == section && by_name > LIKELY;
        let near = if is_near { NEAR } else { 0.0 };
        (by_name > LIKELY || by_path > LIKELY_PATH).then_some((near + by_name + by_path, path))
    };
    let ranked = known.into_iter().filter_map(rank);
    ranked
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, path)| path)
}

fn likeness(a: &str, b: &str) -> f64 {
    let is_slip = a.len().min(b.len()) > SHORT && strsim::osa_distance(a, b) == 1;
    strsim::jaro_winkler(a, b)
        .max(strsim::jaro_winkler(&sorted_words(a), &sorted_words(b)))
        .max(if is_slip { SLIP } else { 0.0 })
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
            ("apps[2].app_id", Some("apps[2].id")),
            ("apps[2].app_key", Some("apps[2].key")),
            ("apps[2].app_secret", Some("apps[2].secret")),
            ("app_id", Some("apps[].id")),
            ("server.max_connections", Some("server.sockets_max")),
            ("server.tls", Some("tls")),
            ("ssl", Some("tls")),
            ("tls.cert_fil", Some("tls.cert_file")),
            ("tls.key", Some("tls.key_file")),
            ("tls.cert", Some("tls.cert_file")),
            ("apps[0].kye", Some("apps[0].key")),
            ("apps[0].secrets", Some("apps[0].secret")),
            ("server.zzz", None),
            ("colour", None),
        ];
        for (unknown, meant) in table {
            let found = nearest(&KeyPath::new(unknown), known.clone());
            assert_eq!(found.as_ref().map(KeyPath::as_str), meant, "{unknown}");
        }
    }
}
