//! Which call a method and a path mean. Pure, and without any knowledge of apps: whether the app exists
//! is asked afterwards, before the signature.

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use super::error::ApiError;

/// How the app of a call is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// By the id in the path.
    Id(Cow<'a, str>),
    /// By the `auth_key` in the query: the official Python library asks to terminate a user without
    /// naming the app in the path.
    Key,
}

/// What is asked of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call<'a> {
    Event,
    Batch,
    Channels,
    Channel(Cow<'a, str>),
    ChannelUsers(Cow<'a, str>),
    Connections,
    Webhooks,
    RedeliverLetter(Cow<'a, str>),
    RedeliverEndpoint(Cow<'a, str>),
    Usage,
    TerminateUser(Cow<'a, str>),
    ReconnectUser(Cow<'a, str>),
}

/// Reads a path below the prefix. An unknown path is 404, a known one asked with another method 405.
pub(super) fn route<'a>(method: &Method, path: &'a str) -> Result<(Target<'a>, Call<'a>), ApiError> {
    let segments: SmallVec<[&str; 8]> = path.split('/').skip(1).collect();
    let (target, call) = match segments[..] {
        ["apps", app, ref rest @ ..] if !app.is_empty() => (Target::Id(decoded(app)?), call(rest)?),
        ["users", user, "terminate_connections"] => (Target::Key, Call::TerminateUser(decoded(user)?)),
        _ => return Err(no_such_call()),
    };
    let allow = call.method();
    if *method != allow {
        Err(ApiError::WrongMethod { allow })
    } else {
        Ok((target, call))
    }
}

fn call<'a>(segments: &[&'a str]) -> Result<Call<'a>, ApiError> {
    Ok(match *segments {
        ["events"] => Call::Event,
        ["batch_events"] => Call::Batch,
        ["channels"] => Call::Channels,
        ["channels", name] if !name.is_empty() => Call::Channel(decoded(name)?),
        ["channels", name, "users"] if !name.is_empty() => Call::ChannelUsers(decoded(name)?),
        ["connections"] => Call::Connections,
        ["webhooks"] => Call::Webhooks,
        ["webhooks", "dead_letters", id, "redeliver"] => Call::RedeliverLetter(decoded(id)?),
        ["webhooks", name, "redeliver"] if !name.is_empty() => Call::RedeliverEndpoint(decoded(name)?),
        ["usage"] => Call::Usage,
        ["users", user, "terminate_connections"] if !user.is_empty() => Call::TerminateUser(decoded(user)?),
        ["users", user, "force_reconnect"] if !user.is_empty() => Call::ReconnectUser(decoded(user)?),
        _ => return Err(no_such_call()),
    })
}

impl Call<'_> {
    /// Whether other nodes have to hear of it.
    pub(super) fn is_relayed(&self) -> bool {
        matches!(
            self,
            Call::Event | Call::Batch | Call::TerminateUser(_) | Call::ReconnectUser(_)
        )
    }

    fn method(&self) -> &'static str {
        match self {
            Call::Event
            | Call::Batch
            | Call::RedeliverLetter(_)
            | Call::RedeliverEndpoint(_)
            | Call::TerminateUser(_)
            | Call::ReconnectUser(_) => "POST",
            Call::Channels
            | Call::Channel(_)
            | Call::ChannelUsers(_)
            | Call::Connections
            | Call::Usage
            | Call::Webhooks => "GET",
        }
    }
}

/// One segment with its `%XX` resolved, after the path was cut: a `%2F` in a user id does not cut.
fn decoded(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| ApiError::bad("The path is not UTF-8 after percent-decoding."))
}

fn no_such_call() -> ApiError {
    ApiError::NotFound(
        "No such call. Below /apps/APP_ID there are events, batch_events, channels, channels/NAME, \
         channels/NAME/users, connections, usage, users/USER_ID/terminate_connections, \
         users/USER_ID/force_reconnect, webhooks, webhooks/NAME/redeliver and \
         webhooks/dead_letters/ID/redeliver."
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(app: &str) -> Target<'_> {
        Target::Id(app.into())
    }

    #[test]
    fn every_call_has_its_path_and_method() {
        for (method, path, expected) in [
            (Method::POST, "/apps/3/events", (id("3"), Call::Event)),
            (Method::POST, "/apps/3/batch_events", (id("3"), Call::Batch)),
            (Method::GET, "/apps/3/channels", (id("3"), Call::Channels)),
            (
                Method::GET,
                "/apps/3/channels/presence-a",
                (id("3"), Call::Channel("presence-a".into())),
            ),
            (
                Method::GET,
                "/apps/3/channels/a%40b%3B/users",
                (id("3"), Call::ChannelUsers("a@b;".into())),
            ),
            (
                Method::GET,
                "/apps/my%20app/connections",
                (id("my app"), Call::Connections),
            ),
            (Method::GET, "/apps/3/usage", (id("3"), Call::Usage)),
            (
                Method::POST,
                "/apps/3/users/a%2Fb/terminate_connections",
                (id("3"), Call::TerminateUser("a/b".into())),
            ),
            (
                Method::POST,
                "/apps/3/users/users/force_reconnect",
                (id("3"), Call::ReconnectUser("users".into())),
            ),
            (Method::GET, "/apps/3/webhooks", (id("3"), Call::Webhooks)),
            (
                Method::POST,
                "/apps/3/webhooks/dead_letters/00ff/redeliver",
                (id("3"), Call::RedeliverLetter("00ff".into())),
            ),
            (
                Method::POST,
                "/apps/3/webhooks/dead_letters/redeliver",
                (id("3"), Call::RedeliverEndpoint("dead_letters".into())),
            ),
            (
                Method::POST,
                "/users/42/terminate_connections",
                (Target::Key, Call::TerminateUser("42".into())),
            ),
        ] {
            assert_eq!(route(&method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn another_method_is_405_and_names_the_right_one() {
        for (method, path, allow) in [
            (Method::GET, "/apps/3/events", "POST"),
            (Method::OPTIONS, "/apps/3/events", "POST"),
            (Method::HEAD, "/apps/3/channels", "GET"),
            (Method::OPTIONS, "/apps/3/channels", "GET"),
            (Method::POST, "/apps/3/channels/a/users", "GET"),
            (Method::POST, "/apps/3/webhooks", "GET"),
            (Method::GET, "/apps/3/webhooks/a/redeliver", "POST"),
            (Method::DELETE, "/users/42/terminate_connections", "POST"),
        ] {
            assert_eq!(
                route(&method, path),
                Err(ApiError::WrongMethod { allow }),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn other_paths_are_404() {
        for path in [
            "/apps/3",
            "/apps/3/",
            "/apps//events",
            "/apps/3/event",
            "/apps/3/events/",
            "/apps/3/channels/",
            "/apps/3/channels//users",
            "/apps/3/channels/a/members",
            "/apps/3/users//terminate_connections",
            "/apps/3/users/42",
            "/apps/3/webhooks/a",
            "/apps/3/webhooks//redeliver",
            "/apps/3/webhooks/dead_letters/00ff",
            "/users/42/force_reconnect",
            "",
            "apps/3/events",
        ] {
            let refused = route(&Method::POST, path).map_err(|e| e.status().as_u16());
            assert_eq!(refused, Err(404), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_not_text_is_400() {
        assert!(matches!(
            route(&Method::GET, "/apps/3/channels/%ff"),
            Err(ApiError::BadRequest(_))
        ));
    }
}
