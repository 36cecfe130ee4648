//! `fanwire migrate` and `fanwire app …`, as an operator types them.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::engine::Kind;
use crate::stage::{Place, Served};

over_each_database![
    an_app_is_made_listed_shown_switched_and_given_a_new_key,
    what_cannot_be_done_is_told,
];

/// Runs a command; the answer is what it says, or why it fails.
fn run(url: &str, arguments: &[&str]) -> Result<String, String> {
    let done = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .args(arguments)
        .env_clear()
        .env("FANWIRE_STORE__URL", url)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    match done.status.success() {
        true => Ok(text(done.stdout)),
        false => Err(text(done.stderr)),
    }
}

fn json(url: &str, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    let said = run(url, &arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: no JSON ({error}): {said}"))
}

async fn an_app_is_made_listed_shown_switched_and_given_a_new_key(kind: Kind) {
    let place = Place::empty(kind).await;
    let url = place.url.clone();
    let told = run(&url, &["app", "list"]).expect_err("there are no tables");
    assert!(told.contains("run `fanwire migrate`"), "{told}");
    assert_eq!(json(&url, &["migrate"])["before"], 0);
    assert!(run(&url, &["migrate"]).expect("again").contains("nothing to do"));

    let made = json(
        &url,
        &["app", "create", "--name", "shop", "--set", "client_events=true"],
    );
    let (id, key, secret) = (made["id"].as_str(), made["key"].as_str(), made["secret"].as_str());
    let (id, key, secret) = (id.expect("an id"), key.expect("a key"), secret.expect("a secret"));
    assert!(
        id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit()),
        "{id}"
    );
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hex(key, 20) && is_hex(secret, 40), "{key} {secret}");
    json(&url, &["app", "create", "--id", "mine", "--key", "my-key"]);
    assert_eq!(json(&url, &["app", "list"]).as_array().map(Vec::len), Some(2));
    let shown = json(&url, &["app", "show", id]);
    assert_eq!(shown["settings"], serde_json::json!({"client_events": true}));
    assert_eq!(
        (&shown["keys"][0]["state"], &shown["problem"]),
        (&"active".into(), &Value::Null)
    );

    let served = place.serve().await;
    let mut app = fanwire::app::AppConfig {
        id: id.to_owned(),
        key: key.to_owned(),
        secret: fanwire::app::Secret::new(secret),
        ..Default::default()
    };
    served.of(&app).serves().await;

    let rotated = json(&url, &["app", "rotate-key", id, "--overlap", "2h"]);
    assert_eq!(rotated["ending"], serde_json::json!([key]));
    app.key = rotated["key"].as_str().expect("a key").to_owned();
    app.secret = fanwire::app::Secret::new(rotated["secret"].as_str().expect("a secret"));
    served.of(&app).serves().await;
    assert_eq!(served.refusal(key).await, None, "it goes on for two hours");

    assert_eq!(json(&url, &["app", "disable", id])["enabled"], false);
    assert_eq!(
        Served::start(place.config()).await.refusal(&app.key).await,
        Some(4003)
    );
    assert_eq!(json(&url, &["app", "enable", id])["enabled"], true);
    assert_eq!(json(&url, &["app", "usage", id])["days"], serde_json::json!([]));

    // Secrets are shown by what makes them, and by nothing else.
    for arguments in [
        &["app", "list"][..],
        &["app", "show", id],
        &["app", "show", id, "--json"],
    ] {
        let said = run(&url, arguments).expect("it is said");
        assert!(
            !said.contains(secret) && !said.contains(app.secret.expose()),
            "{said}"
        );
    }
}

async fn what_cannot_be_done_is_told(kind: Kind) {
    let place = Place::new(kind).await;
    place.put("7", "{}").await;
    for (arguments, told) in [
        (
            &["app", "create", "--id", "7"][..],
            "an app with this id or key already",
        ),
        (
            &["app", "create", "--key", "key-7"],
            "an app with this id or key already",
        ),
        (&["app", "create", "--key", "two words"], "stands in URL paths"),
        (
            &["app", "create", "--set", "client_event=true"],
            "did you mean `client_events`?",
        ),
        (
            &["app", "create", "--set", "client_events"],
            "write it as SETTING=VALUE",
        ),
        (
            &["app", "create", "--set", "client_events=perhaps"],
            "must be true or false",
        ),
        (&["app", "create", "--set", "secret=s"], "--secret-file"),
        (&["app", "show", "8"], "`fanwire app list` shows all"),
        (&["app", "disable", "8"], "`fanwire app list` shows all"),
        (&["app", "rotate-key", "8"], "`fanwire app list` shows all"),
        (&["app", "rotate-key", "7", "--overlap", "soon"], "24h"),
        (&["app", "rotate-key", "7", "--overlap=-1h"], "24h"),
    ] {
        let error = run(&place.url, arguments).expect_err("it cannot be done");
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
    let error = run("", &["app", "list"]).expect_err("there is no store");
    assert!(error.contains("no store is configured"), "{error}");
    assert_eq!(place.store().list().await.expect("the tables").len(), 1);
}
