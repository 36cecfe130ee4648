//! What a request's path asks for.

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
    let path = path
        .strip_prefix(prefix)
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path);
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
