//! The configuration as an operator meets it: the example file, the environment, and the binary's answers to
//! mistakes.

#[path = "config/binary.rs"]
mod binary;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use fanwire::app::{AppConfig, Secret, Settings};
use fanwire::config::{Config, KeyPath};
use serde_json::{Value, json};
use tempfile::TempDir;

use binary::{Fanwire, text};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.json")
}

fn as_json(config: &Config) -> Value {
    serde_json::to_value(config).expect("a configuration can be written")
}

/// The schema less the `$schema` that a file may have at its top: it is no setting.
fn schema_of_settings() -> Value {
    let mut schema = Config::schema();
    let properties = schema["properties"].as_object_mut();
    let removed = properties.and_then(|properties| properties.remove("$schema"));
    assert_eq!(removed.expect("a file may name its schema")["type"], "string");
    schema
}

/// What the example file says, in Rust: the defaults, and one app that has to be named.
fn defaults() -> Config {
    let secret = Secret::new("app-secret");
    let app = AppConfig {
        id: "1".into(),
        key: "app-key".into(),
        secret,
        ..AppConfig::default()
    };
    Config {
        apps: vec![app],
        ..Config::default()
    }
}

fn from_environment(variables: &[(&str, &str)]) -> Config {
    let variables = variables
        .iter()
        .map(|(variable, text)| (variable.into(), text.into()));
    Config::load(None, variables).expect("a valid configuration")
}

#[test]
fn the_example_is_every_setting_at_its_default() {
    let config = Config::load(Some(&example()), []).expect("the example is valid");
    assert_eq!(config, defaults());
}

#[test]
fn the_configuration_in_the_readme_is_accepted() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("the readme is there");
    let configs: Vec<&str> = readme.split("```json\n").skip(1).collect();
    assert!(!configs.is_empty());
    for config in configs {
        let config = config.split("```").next().unwrap_or_default();
        let checked = Fanwire::new().with_file(config).checked();
        let written: Value = serde_json::from_str(config).expect("JSON");
        let mut taken = 0;
        for setting in ["/server/host", "/adapter/driver", "/nats/urls"] {
            if let Some(written) = written.pointer(setting) {
                assert_eq!(Some(written), checked.pointer(setting), "{setting}");
                taken += 1;
            }
        }
        assert!(taken > 0, "what is set in {config}?");
    }
}

#[test]
fn the_example_misses_no_setting() {
    fn compare(schema: &Value, written: &Value, path: &KeyPath) {
        if let Some(properties) = schema["properties"].as_object() {
            let written = written
                .as_object()
                .unwrap_or_else(|| panic!("{path} is no section"));
            let missing: Vec<_> = properties
                .keys()
                .filter(|name| !written.contains_key(*name))
                .collect();
            assert!(missing.is_empty(), "{path} lacks {missing:?}");
            properties
                .iter()
                .for_each(|(name, schema)| compare(schema, &written[name], &path.key(name)));
        } else if schema["items"].get("properties").is_some() && written.get(0).is_some() {
            compare(&schema["items"], &written[0], &path.index(0));
        }
    }
    let text = fs::read_to_string(example()).expect("the example is there");
    let written = serde_json::from_str(&text).expect("the example is JSON");
    compare(&schema_of_settings(), &written, &KeyPath::default());
}

/// Every setting that is a single value, with its path in the example and its schema.
fn scalars(schema: &Value, path: &KeyPath, found: &mut Vec<(KeyPath, Value)>) {
    if let Some(properties) = schema["properties"].as_object() {
        properties
            .iter()
            .for_each(|(name, schema)| scalars(schema, &path.key(name), found));
    } else if let Some(items) = schema.get("items") {
        scalars(items, &path.index(0), found);
    } else {
        found.push((path.clone(), schema.clone()));
    }
}

/// A value other than the default, as the environment spells it and as JSON.
fn another_value(path: &KeyPath, schema: &Value) -> (String, Value) {
    let of_text = |text: &str| (text.to_owned(), json!(text));
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match (path.as_str(), kind) {
        _ if schema["format"] == "date-time" => of_text("2026-12-24T18:00:00Z"),
        ("server.path_prefix", _) => of_text("/7"),
        ("server.unix_socket_mode", _) => of_text("0666"),
        ("metrics.prefix", _) => of_text("_7"),
        ("server.host" | "admin.host", _) => of_text("::1"),
        ("apps[0].channels[0].pattern", _) => of_text("private-7"),
        ("apps[0].webhooks[0].url", _) => of_text("http://7.example/"),
        ("apps[0].webhooks[0].event_types[0]", _) => of_text("member_added"),
        (
            "webhooks.block[0]" | "webhooks.allow[0]" | "server.trusted_proxies[0]" | "admin.actions_from[0]",
            _,
        ) => of_text("7.0.0.0/8"),
        ("tls.acme.domains[0]", _) => of_text("7.example"),
        ("tls.acme.email", _) => of_text("7@a.example"),
        ("tls.acme.directory_url", _) => of_text("https://7.example/"),
        ("redis.url", _) => of_text("rediss://[::1]:7"),
        ("nats.urls[0]", _) => of_text("nats://7.example"),
        ("store.url", _) => of_text("sqlite:///7"),
        // Looks like a number, and must stay text.
        (_, Some("string")) => of_text("7"),
        (_, Some("boolean")) => {
            let other = schema["default"] != true;
            (other.to_string(), json!(other))
        }
        (_, Some("integer")) => {
            // What may be absent has no default.
            let default = schema["default"].as_u64().or(schema["minimum"].as_u64());
            let next = default.map(|default| default + 1);
            let other = schema["enum"][1]
                .as_u64()
                .or(next)
                .expect("a number has a default");
            (other.to_string(), json!(other))
        }
        _ => {
            let choices = schema["oneOf"]
                .as_array()
                .expect("a setting of another type is a choice");
            let mut others = choices.iter().map(|choice| &choice["const"]);
            let other = others.find(|&choice| choice != &schema["default"]);
            of_text(other.and_then(Value::as_str).expect("a choice has two values"))
        }
    }
}

/// What else is set where a setting means nothing by itself: the first entry of a list that is empty in the example, or
/// what switches a section on.
const BESIDE: [(&str, &str, &str); 18] = [
    (
        "server.unix_socket_mode",
        "server.unix_socket",
        "/run/fanwire.sock",
    ),
    (
        "server.forwarded_header",
        "server.trusted_proxies",
        r#"["10.0.0.0/8"]"#,
    ),
    (
        "server.proxy_protocol",
        "server.trusted_proxies",
        r#"["10.0.0.0/8"]"#,
    ),
    (
        "apps[0].client_events_per_s_total",
        "apps[0].client_events",
        "true",
    ),
    ("webhooks.allow", "webhooks.block_private", "true"),
    (
        "apps[0].webhooks[0].batch",
        "apps[0].webhooks",
        r#"[{"url": "http://a.example/", "batch": {"max_events": 7, "max_delay_ms": 7}}]"#,
    ),
    (
        "apps[0].webhooks",
        "apps[0].webhooks",
        r#"[{"url": "http://a.example/"}]"#,
    ),
    ("apps[0].tls_only", "tls.key_file", "key.pem"),
    ("apps[0].tls_only", "tls.cert_file", "cert.pem"),
    ("apps[0].keys", "apps[0].keys", r#"[{"key": "k", "secret": "s"}]"#),
    (
        "apps[0].channels",
        "apps[0].channels",
        r#"[{"pattern": "p*", "client_events": true}]"#,
    ),
    ("redis.url", "adapter.driver", "redis"),
    ("nats.urls", "adapter.driver", "nats"),
    ("store", "store.url", "sqlite:///tmp/apps.db"),
    ("tls.acme", "tls.acme.domains", r#"["a.example"]"#),
    ("tls.acme", "tls.acme.terms_agreed", "true"),
    ("tls", "tls.key_file", "key.pem"),
    ("tls", "tls.cert_file", "cert.pem"),
];

#[test]
fn every_setting_can_be_overridden_by_the_environment() {
    let mut settings = Vec::new();
    scalars(&schema_of_settings(), &KeyPath::default(), &mut settings);
    assert!(settings.len() > 50, "only {} settings found", settings.len());
    for (path, schema) in settings {
        assert!(
            schema["description"].is_string() || path.as_str().ends_with(']'),
            "{path} has no description"
        );
        // Secrets do not show in the output that is compared here; they have their own tests.
        let is_secret = |name: &&str| path.as_str().ends_with(*name);
        if ["secret", "secret_file", "password", "headers"]
            .iter()
            .any(is_secret)
        {
            continue;
        }
        // Refused but for its default, for want of an endpoint; or read as soon as it is set.
        let refused = ["apps[0].channels[0].webhooks[0]", "store.password_file"];
        if refused.contains(&path.as_str()) {
            continue;
        }
        let (text, value) = another_value(&path, &schema);
        let variable = (OsString::from(path.env_name()), OsString::from(&text));
        let section = |(section, ..): &&(&str, &str, &str)| KeyPath::new(section).contains(&path);
        let section = BESIDE.iter().find(section).map(|(section, ..)| section);
        let beside = BESIDE.iter().filter(|(of, ..)| Some(of) == section);
        let beside = beside.map(|(_, beside, value)| (KeyPath::new(beside).env_name().into(), value.into()));
        let beside: Vec<(OsString, OsString)> = beside.collect();
        let load = |variables: Vec<(OsString, OsString)>| {
            Config::load(Some(&example()), variables).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let mut expected = as_json(&load(beside.clone()));
        let config = load(beside.into_iter().chain([variable]).collect());

        let pointer = format!("/{}", path.as_str().replace(['.', '['], "/").replace(']', ""));
        match expected.pointer_mut(&pointer) {
            Some(place) => *place = value,
            // The first entry of a list that is empty by default.
            None => {
                let list = pointer
                    .strip_suffix("/0")
                    .and_then(|list| expected.pointer_mut(list));
                *list.expect("the setting is in the output") = json!([value]);
            }
        }
        assert_eq!(as_json(&config), expected, "{path}");
    }
}

#[test]
fn a_text_from_the_environment_stays_text() {
    let apps = ("FANWIRE_APPS", r#"[{"id": "1", "key": "k", "secret": "s"}]"#);
    for name in ["7", "true", "null", "[]", ""] {
        let config = from_environment(&[apps, ("FANWIRE_APPS__0__NAME", name)]);
        assert_eq!(config.apps[0].name.as_deref(), Some(name));
    }
    let config = from_environment(&[apps, ("FANWIRE_APPS__0__SECRET", "12345")]);
    assert_eq!(config.apps[0].secret.expose(), "12345");
}

#[test]
fn an_app_can_come_from_the_environment_alone() {
    let config = from_environment(&[
        ("FANWIRE_APPS__0__ID", "1"),
        ("FANWIRE_APPS__0__KEY", "k"),
        ("FANWIRE_APPS__0__SECRET", "s"),
        ("FANWIRE_SERVER__HOST", "0.0.0.0"),
    ]);
    assert!(!config.development());
    assert!(config.resolve_apps().expect("a valid app").by_key("k").is_some());
}

#[test]
fn without_a_configuration_there_is_the_demo_app_on_loopback() {
    let fanwire = Fanwire::new();
    assert_eq!(fanwire.checked(), as_json(&Config::default()));
    let config = Config::default();
    assert!(config.development() && config.server.is_loopback());
    let apps = config.resolve_apps().expect("the demo app is valid");
    let demo = apps.by_key("app-key").expect("the demo app is served");
    let Settings { config, .. } = &**demo.settings();
    assert_eq!((demo.id(), config.secret.expose()), ("1", "app-secret"));
    assert!(config.client_events && config.watchlist && config.subscription_count_events);
}

#[test]
fn all_slips_are_told_at_once_with_the_nearest_name() {
    let refusal = Fanwire::new()
        .with_config(&json!({
            "$schema": "fanwire.schema.json",
            "server": {"prot": 7000, "port": 70000, "shards": "all", "keep_alive_s": "30s"},
            "admin": {"port": "9601"},
            "colour": "blue",
            "apps": [{"id": 1, "key": "a", "secret": "s", "max_connections": 5}, {"id": "2", "key": "b"}],
        }))
        .with_env("FANWIRE_ADMIN__PROT", "9602")
        .with_env("FANWIRE_DRAIN__CLOSE_CODE", "4000")
        .refusal();
    let expected = "\
fanwire: the configuration cannot be used:
  admin.port: must be a whole number, found text: take off the quotes
  apps[0].id: must be text, found a number: put it in quotes
  apps[0].max_connections: there is no such setting; did you mean `apps[0].connections_max`?
  colour: there is no such setting
  server.keep_alive_s: must be a whole number, found text: write the number of seconds alone, without quotes
  server.port: must be a whole number from 0 to 65535, not 70000
  server.prot: there is no such setting; did you mean `server.port`?
  server.shards: must be a whole number, found text
  FANWIRE_ADMIN__PROT: there is no such setting; did you mean FANWIRE_ADMIN__PORT?
  drain.close_code (FANWIRE_DRAIN__CLOSE_CODE): must be one of 4200, 1001, not 4000
  apps[1].secret: is required (or `secret_file`)
";
    assert_eq!(refusal, expected);
}

#[test]
fn a_bad_port_in_the_environment_is_told_with_the_variable() {
    for (port, problem) in [
        ("70000", "must be a whole number from 0 to 65535, not 70000"),
        ("-1", "must be a whole number from 0 to 65535, not -1"),
        ("6001 ", "must be a whole number"),
        ("", "must be a whole number"),
    ] {
        let refusal = Fanwire::new().with_env("FANWIRE_SERVER__PORT", port).refusal();
        assert!(
            refusal.ends_with(&format!("\n  server.port (FANWIRE_SERVER__PORT): {problem}\n")),
            "{refusal}"
        );
    }
}

#[test]
fn dangerous_combinations_stop_the_start() {
    let public_secret = json!([{"id": "1", "key": "k", "secret": "app-secret"}]);
    let redacted = json!([{"id": "1", "key": "k", "secret": "[redacted]"}]);
    for (config, key) in [
        (json!({"server": {"host": "0.0.0.0"}}), "apps"),
        (
            json!({"server": {"host": "::"}, "apps": public_secret}),
            "apps[0].secret",
        ),
        (json!({"apps": redacted}), "apps[0].secret"),
        (json!({"admin": {"port": 6001}}), "admin.port"),
    ] {
        let refusal = Fanwire::new().with_config(&config).refusal();
        assert!(
            refusal.contains(&format!("\n  {key}: ")),
            "{config} should be refused for {key}: {refusal}"
        );
        assert_eq!(refusal.lines().count(), 2, "{refusal}");
    }
}

#[test]
fn the_same_setting_twice_in_one_file_is_refused() {
    let twice = r#"{"server": {"port": 1}, "server": {"host": "::1"}}"#;
    let refusal = Fanwire::new().with_file(twice).refusal();
    assert!(
        refusal.contains("fanwire.json") && refusal.contains("`server` stands twice"),
        "{refusal}"
    );
}

#[test]
fn a_file_that_holds_no_settings_is_told_by_name() {
    for (written, problem) in [
        ("", "is empty"),
        (" \n", "is empty"),
        ("\u{feff}{}", "begins with a byte order mark"),
        ("[]", "must hold an object, found a list"),
        ("{", "is not valid JSON"),
    ] {
        let refusal = Fanwire::new().with_file(written).refusal();
        let expected = format!("\n  fanwire.json {problem}");
        assert!(refusal.contains(&expected), "{written:?}: {refusal}");
        assert_eq!(refusal.lines().count(), 2, "{refusal}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_name() {
    let refusal = Fanwire::new()
        .with_env("FANWIRE_CONFIG", "nowhere.json")
        .refusal();
    assert!(refusal.contains("cannot read nowhere.json"), "{refusal}");
    let refusal = Fanwire::new().with_env("FANWIRE_CONFIG", "/dev/zero").refusal();
    assert!(
        refusal.contains("cannot read /dev/zero: it is no regular file"),
        "{refusal}"
    );
    let output = Fanwire::new().run(&["--config", ""]);
    assert!(!output.status.success() && text(&output.stderr).contains("FANWIRE_CONFIG"));
}

#[test]
fn secrets_show_nowhere() {
    let secret = "5dc3f9bd7e1a";
    let apps = json!([{"id": "1", "key": "k", "secret": secret}]);
    let right = Fanwire::new().with_config(&json!({"apps": apps}));
    assert_eq!(right.checked()["apps"][0]["secret"], "[redacted]");
    let output = right.run(&["check-config"]);
    assert!(!(text(&output.stdout) + &text(&output.stderr)).contains(secret));

    // Nor in what is said about a configuration that is wrong, whatever the secret stands in the place of.
    for config in [
        json!({"apps": [{"id": "1", "key": "k", "secret": secret, "secret_file": "x"}]}),
        json!({"apps": [{"id": "1", "key": "k", "secret": [secret]}]}),
        json!({"apps": [{"id": "1", "key": "k", "secrt": secret}]}),
        json!({"apps": secret}),
        json!({"apps": apps, "server": {"port": secret, "host": format!("{secret} ")}}),
        json!({"apps": apps, "log": {"level": secret}}),
    ] {
        let refusal = Fanwire::new().with_config(&config).refusal();
        assert!(!refusal.contains(secret), "{refusal}");
    }
    let redis = json!({"url": format!("redis://:{secret}@localhost")});
    let nats = json!({"urls": ["nats://localhost"], "username": "fan", "password": secret});
    let wrong = json!({"urls": [format!("nats://fan:{secret}@localhost")], "password": secret});
    for (driver, redis, nats, is_right) in [
        ("redis", redis.clone(), json!({}), true),
        ("nats", json!({}), nats.clone(), true),
        ("none", redis.clone(), nats, false),
        ("nats", redis, wrong, false),
    ] {
        let written = json!({"apps": apps, "adapter": {"driver": driver}, "redis": redis, "nats": nats});
        let output = Fanwire::new().with_config(&written).run(&["check-config"]);
        assert_eq!(output.status.success(), is_right, "{driver}");
        assert!(!(text(&output.stdout) + &text(&output.stderr)).contains(secret));
    }
    let half_an_app = format!("[{{\"secret\": \"{secret}\"");
    for (variable, value) in [("FANWIRE_APPS", half_an_app.as_str()), ("FANWIRE_SECRET", secret)] {
        let refusal = Fanwire::new().with_env(variable, value).refusal();
        assert!(
            refusal.contains(variable) && !refusal.contains(secret),
            "{refusal}"
        );
    }
    let app = AppConfig {
        secret: Secret::new(secret),
        ..AppConfig::demo()
    };
    let config = Config {
        apps: vec![app],
        ..Config::default()
    };
    assert!(!format!("{config:?}").contains(secret));
}

#[test]
fn a_secret_may_have_a_file_of_its_own() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("secret");
    let load = |written: &str| {
        fs::write(&file, written).expect("a file can be written");
        let apps = json!([{"id": "1", "key": "k", "secret_file": file}]).to_string();
        Config::load(None, [("FANWIRE_APPS".into(), apps.into())])
    };
    for written in ["s3cret", "s3cret\n", "s3cret\r\n"] {
        assert_eq!(
            load(written).expect("a valid configuration").apps[0]
                .secret
                .expose(),
            "s3cret"
        );
    }
    let error = load("\n").expect_err("an empty secret").to_string();
    assert!(
        error.ends_with("\n  apps[0].secret_file (FANWIRE_APPS): holds no secret"),
        "{error}"
    );

    let missing = json!({"apps": [{"id": "1", "key": "k", "secret_file": "nowhere"}]});
    let refusal = Fanwire::new().with_config(&missing).refusal();
    assert!(
        refusal.contains("\n  apps[0].secret_file: cannot read nowhere"),
        "{refusal}"
    );
    assert_eq!(refusal.lines().count(), 2, "{refusal}");
}

#[test]
fn redis_is_looked_at_only_where_it_is_used() {
    let load = |driver: &str, redis: Value| {
        let variables = [
            ("FANWIRE_ADAPTER__DRIVER", driver.to_owned()),
            ("FANWIRE_REDIS", redis.to_string()),
        ];
        Config::load(None, variables.map(|(name, text)| (name.into(), text.into())))
    };
    let wrong = json!({"url": "redis://localhost/5", "password_file": "nowhere"});
    let error = load("none", wrong.clone()).expect_err("idle").to_string();
    assert!(
        error.contains("redis.url (FANWIRE_REDIS): nothing uses it") && error.lines().count() == 2,
        "{error}"
    );
    let error = load("redis", wrong).expect_err("a database").to_string();
    assert!(
        error.contains("redis.url (FANWIRE_REDIS): names a database"),
        "{error}"
    );
    assert!(
        error.contains("redis.password_file (FANWIRE_REDIS): cannot read nowhere"),
        "{error}"
    );

    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("password");
    fs::write(&file, "hunter2\n").expect("a file can be written");
    let config = load("redis", json!({"password_file": file})).expect("a valid configuration");
    assert_eq!(config.redis.password.expose(), "hunter2");
}

#[test]
fn the_command_line_explains_itself() {
    let fanwire = Fanwire::new();
    let said = |arguments: &[&str]| {
        let output = fanwire.run(arguments);
        assert!(output.status.success());
        text(&output.stdout)
    };
    assert_eq!(
        said(&["--version"]),
        format!("fanwire {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = said(&["--help"]);
    for word in [
        "--config",
        "FANWIRE_CONFIG",
        "FANWIRE_SERVER__HOST",
        "serve",
        "check-config",
        "schema",
    ] {
        assert!(help.contains(word), "--help does not mention {word}");
    }
    for (word, is_file) in [("x.json", true), ("./x", true), ("srve", false)] {
        let told = text(&fanwire.run(&[word]).stderr);
        assert_eq!(told.contains(&format!("--config {word}")), is_file, "{told}");
    }
    let schema: Value = serde_json::from_str(&said(&["schema"])).expect("JSON");
    assert_eq!(schema, Config::schema());
    assert_eq!(
        schema.pointer("/properties/server/properties/port/default"),
        Some(&json!(6001))
    );
}

#[test]
fn what_holds_for_a_channel_is_explained() {
    let fanwire = Fanwire::new().with_config(&json!({ "apps": [
        { "id": "1", "key": "a", "secret": "s", "cache_ttl_s": 7, "channels": [
            { "pattern": "cache-*", "event_data_bytes_max": 77 },
            { "pattern": "presence-*", "presence_members_max": 777 },
        ] },
        { "id": "2", "key": "b", "secret": "s" },
    ] }));
    let explained = |arguments: &[&str]| {
        let output = fanwire.run(&[&["check-config"], arguments].concat());
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (success, told, _) = explained(&["--channel", "cache-x", "--app", "1"]);
    assert!(success);
    for part in [
        "channel cache-x of app 1: public, cache",
        "rule: apps[0].channels[0], `cache-*`",
        "77         apps[0].channels[0].event_data_bytes_max",
        "7          apps[0].cache_ttl_s",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (success, told, _) = explained(&["--channel", "presence-x", "--app", "1", "--json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert!(success);
    assert_eq!(told["rule"]["pattern"], "presence-*");
    assert_eq!(told["settings"]["presence_members_max"]["value"], 777);
    assert_eq!(told["settings"]["cache_ttl_s"]["from"], "apps[0].cache_ttl_s");

    let (success, _, why) = explained(&["--channel", "x"]);
    assert!(!success && why.contains("--app"), "{why}");
    let (success, _, why) = explained(&["--app", "1"]);
    assert!(!success && why.contains("--channel"), "{why}");
}
