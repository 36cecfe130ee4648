//! What a request's path asks for.

use crate::protocol::path::below_prefix;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A socket of the app with this key (undecoded).
    Socket(&'a str),
    /// The HTTP API.
    Api,
    /// Everything else: health, the demo page, or nothing.
    Other(&'a str),
}

/// Routes by path. The prefix is taken off where it stands; a proxy may have done so already.
pub(super) fn route<'a>(path: &'a str, prefix: &str) -> Route<'a> {
    let path = below_prefix(path, prefix);
    if let Some(key) = path.strip_prefix("/app/")
        && !key.is_empty()
        && !key.contains('/')
    {
        return Route::Socket(key);
    }
    // The official Python SDK ends a user's connections on a path without the app.
    if path.starts_with("/apps/") || path == "/apps" || path.starts_with("/users/") {
        return Route::Api;
    }
    Route::Other(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_protocol_says() {
        for (path, prefix, expected) in [
            ("/app/key", "", Route::Socket("key")),
            ("/app/", "", Route::Other("/app/")),
            ("/app/key/more", "", Route::Other("/app/key/more")),
            ("/apps/1/events", "", Route::Api),
            ("/users/42/terminate_connections", "", Route::Api),
            ("/up", "", Route::Other("/up")),
            ("/ws/app/key", "/ws", Route::Socket("key")),
            ("/ws/apps/1/events", "/ws", Route::Api),
            // A proxy took the prefix off.
            ("/app/key", "/ws", Route::Socket("key")),
            // A path that only begins like the prefix.
            ("/wss/app/key", "/ws", Route::Other("/wss/app/key")),
        ] {
            assert_eq!(route(path, prefix), expected, "{path} behind {prefix:?}");
        }
    }
}
