//! Who asks: from the query's signature to the app. The texts that may have been signed are
//! `protocol::request_auth`'s; that the app exists and is enabled is looked at here, before any signature.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::ApiError;
use super::route::Target;
use crate::app::{App, Apps, NotFound};
use crate::protocol::request_auth::{RequestAuth, RequestAuthError};

/// A request as it was signed: path and query raw, the path with whatever prefix it came with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// The prefix under which this server is mounted, which some libraries sign and others do not; empty for none.
    pub(super) prefix: &'a str,
}

/// The app that a request is about, whoever asks.
pub(super) async fn find(apps: &Apps, target: &Target<'_>, query: &str) -> Result<Arc<App>, ApiError> {
    match target {
        Target::Id(id) => apps
            .find_by_id(id)
            .await
            .map_err(|why| refused(why, || no_such_app(id))),
        Target::Key => {
            let key = RequestAuth::parse(query)?.key;
            apps.find_by_key(&key)
                .await
                .map_err(|why| refused(why, || wrong_key(&key, "any app")))
        }
    }
}

/// Whether the app itself asks: checks all but the body, whose hash the signature covers, so that nobody makes
/// the server read a large body who could not have sent it. `now_s` is Unix time.
pub(super) fn authenticate<'a>(
    app: &App,
    request: Signed<'a>,
    now_s: i64,
) -> Result<RequestAuth<'a>, ApiError> {
    if !app.settings().config.enabled {
        return Err(ApiError::Forbidden(format!("App {} is disabled.", app.id())));
    }
    let auth = RequestAuth::parse(request.query)?;
    let settings = app.settings();
    let Some(key) = settings.key(&auth.key, Timestamp::now) else {
        return Err(wrong_key(&auth.key, &format!("app {}", app.id())));
    };
    auth.check_time(now_s)?;
    auth.verify(
        key.secret.expose(),
        request.method,
        request.path,
        request.query,
        request.prefix,
    )?;
    Ok(auth)
}

fn refused(why: NotFound, unknown: impl FnOnce() -> ApiError) -> ApiError {
    match why {
        NotFound::Unknown => unknown(),
        NotFound::Unavailable => ApiError::StoreAway(
            "The store of apps does not answer, and this app is not known here yet. Ask again in a second.",
        ),
    }
}

fn no_such_app(id: &str) -> ApiError {
    ApiError::NotFound(format!(
        "There is no app with the id {id:?} here. Compare the id in the path with `apps`."
    ))
}

fn wrong_key(key: &str, of: &str) -> ApiError {
    ApiError::Unauthorized(format!(
        "`auth_key` {key:?} is not a key of {of}, or not one that may be used now."
    ))
}

impl From<RequestAuthError> for ApiError {
    fn from(error: RequestAuthError) -> ApiError {
        ApiError::Unauthorized(match error {
            RequestAuthError::Signature { signed } => format!(
                "Invalid signature: `auth_signature` is not the HMAC-SHA256, in hex, of the text below with the \
                 app's secret. If it is the text you signed, the secret is not the app's; if not, see what changed \
                 the request on its way.\n{signed}"
            ),
            other => format!("{other}."),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::app::{AppConfig, Secret};
    use crate::protocol::auth::sign;

    const NOW_S: i64 = 1_353_088_179;
    const PATH: &str = "/apps/3/channels";

    fn apps() -> Apps {
        let app = |id: &str, enabled| AppConfig {
            id: id.into(),
            key: format!("key-{id}"),
            secret: Secret::new(&format!("secret-{id}")),
            enabled,
            ..AppConfig::demo()
        };
        Apps::new([app("3", true), app("4", true), app("5", false)]).expect("three valid apps")
    }

    /// The query of a request that an app signs.
    fn query(app: &str, path: &str, timestamp_s: i64) -> String {
        let query = format!("auth_key=key-{app}&auth_timestamp={timestamp_s}&auth_version=1.0");
        let signature = sign(&format!("secret-{app}"), &format!("GET\n{path}\n{query}"));
        format!("{query}&auth_signature={signature}")
    }

    fn ask(target: Target<'_>, query: &str) -> Result<String, ApiError> {
        let request = Signed {
            method: "GET",
            path: PATH,
            query,
            prefix: "/chat",
        };
        let apps = apps();
        let found = find(&apps, &target, query).now_or_never();
        let app = found.expect("without a store nobody waits")?;
        authenticate(&app, request, NOW_S).map(|_| app.id().to_owned())
    }

    #[test]
    fn a_signed_request_finds_its_app() {
        for (target, signed_path, timestamp_s) in [
            (Target::Id("3".into()), PATH, NOW_S),
            (Target::Id("3".into()), "/chat/apps/3/channels", NOW_S + 600),
            (Target::Key, PATH, NOW_S - 600),
        ] {
            assert_eq!(ask(target, &query("3", signed_path, timestamp_s)), Ok("3".into()));
        }
    }

    #[test]
    fn what_is_wrong_is_found_in_this_order() {
        let id = |id: &'static str| Target::Id(id.into());
        let right = query("3", PATH, NOW_S);
        for (target, query, status, part) in [
            (id("9"), String::new(), 404, "no app with the id \"9\""),
            (id("5"), String::new(), 403, "App 5 is disabled"),
            (Target::Key, query("5", PATH, NOW_S), 403, "App 5 is disabled"),
            (id("3"), String::new(), 401, "auth_"),
            (Target::Key, String::new(), 401, "auth_"),
            (
                id("3"),
                query("4", PATH, NOW_S),
                401,
                "\"key-4\" is not a key of app 3",
            ),
            (
                Target::Key,
                query("9", PATH, NOW_S),
                401,
                "\"key-9\" is not a key of any app",
            ),
            (id("3"), query("3", PATH, NOW_S + 601), 401, "auth_timestamp"),
            (id("3"), query("3", PATH, NOW_S - 601), 401, "auth_timestamp"),
            (
                id("3"),
                query("3", "/apps/4/channels", NOW_S),
                401,
                "Invalid signature",
            ),
            // The text that the server signed is told.
            (
                id("3"),
                format!("{right}&info=x"),
                401,
                "\nGET\n/apps/3/channels\nauth_key=key-3&",
            ),
        ] {
            let refusal = ask(target, &query).expect_err("something is wrong");
            assert_eq!(refusal.status(), status, "{query}");
            assert!(refusal.text().contains(part), "{}", refusal.text());
            assert!(!refusal.text().contains("secret-"), "{}", refusal.text());
        }
    }
}
