//! The prefix that may stand before `/app/…` and `/apps/…` in every path of a server. Pure text: where the paths
//! lead is for those who serve them.

/// The path below the prefix under which a server is mounted; the whole path if the prefix is not there, for a proxy
/// may have taken it away. `prefix` is empty, or begins with a slash and does not end with one, like `/chat`.
pub fn below_prefix<'a>(path: &'a str, prefix: &str) -> &'a str {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_may_be_there_or_taken_away_by_a_proxy() {
        for (path, prefix, below) in [
            ("/apps/1/events", "", "/apps/1/events"),
            ("/chat/apps/1/events", "/chat", "/apps/1/events"),
            ("/apps/1/events", "/chat", "/apps/1/events"),
            ("/chatter/apps/1/events", "/chat", "/chatter/apps/1/events"),
            ("/chat/", "/chat", "/"),
            ("/chat", "/chat", "/chat"),
            ("/chat/chat/", "/chat", "/chat/"),
        ] {
            assert_eq!(below_prefix(path, prefix), below);
        }
    }
}
