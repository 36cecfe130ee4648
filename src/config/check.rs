//! What settings mean together: combinations that would do nothing, or harm.
//!
//! Each setting by itself fits its type and range already. What an app says about itself is the app's own
//! business and only gathered here.

use super::path::KeyPath;
use super::server::address;
use super::{Config, MetricsConfig};
use crate::adapter::nats::NatsConfig;
use crate::adapter::redis::RedisConfig;
use crate::app::{AppConfig, Apps, Fault, Secret};

/// What is wrong, by the key where it shows.
type Found = Vec<(KeyPath, String)>;

/// Everything that is wrong with the configuration as a whole.
pub(super) fn contradictions(config: &Config) -> Found {
    let mut found = names_and_ports(config);
    found.extend(public_secrets(config));
    found.extend(unreachable_limits(config));
    found.extend(unreachable_apps(config));
    found.extend(hasty_webhooks(config));
    found.extend(unreachable_brokers(config));
    let admin = config.admin.faults().into_iter();
    found.extend(admin.map(|(key, text)| (KeyPath::new("admin").key(&key), text)));
    let door = config.server.faults().into_iter();
    found.extend(door.map(|(key, text)| (KeyPath::new("server").key(&key), text)));
    let tls = config.tls.faults().into_iter();
    found.extend(tls.map(|(key, text)| (KeyPath::new("tls").key(key), text)));
    found.extend(
        config
            .store
            .faults()
            .into_iter()
            .map(|(key, text)| (KeyPath::new("store").key(key), text)),
    );
    found.extend(faults_of_apps(
        Apps::new(config.apps.iter().cloned()).err().unwrap_or_default(),
    ));
    found
}

fn names_and_ports(config: &Config) -> Found {
    let Config {
        server,
        admin,
        metrics,
        ..
    } = config;
    let not_a_host = "must be an address or a name alone, without scheme, port or path";
    let rules = [
        (is_host(&server.host), "server.host", not_a_host),
        (is_host(&admin.host), "admin.host", not_a_host),
        (
            is_path_prefix(&server.path_prefix),
            "server.path_prefix",
            "must be empty, or begin with `/` and not end with it, such as `/ws`",
        ),
        (
            is_metric_prefix(metrics),
            "metrics.prefix",
            "must be letters, digits and `_`, a digit not being the first",
        ),
        (
            !admin.enabled
                || server.port != admin.port
                || server.port == 0
                || !overlap(&server.host, &admin.host),
            "admin.port",
            "is the same as `server.port`: they cannot both listen on it",
        ),
    ];
    let broken = rules.iter().filter(|(holds, ..)| !holds);
    broken
        .map(|(_, key, text)| (KeyPath::new(key), text.to_string()))
        .collect()
}

/// Everybody knows the secret of the demo app, so nobody from elsewhere may reach it.
fn public_secrets(config: &Config) -> Found {
    if config.server.is_loopback() {
        return Vec::new();
    }
    let apps = KeyPath::new("apps");
    if config.development() {
        let text = "is empty, so the demo app would be served, whose secret everybody knows, on an address others \
                    can reach: configure an app, or set `server.host` to 127.0.0.1";
        return vec![(apps, text.into())];
    }
    let is_known = |secret: &Secret| secret.expose() == AppConfig::DEMO_SECRET;
    let public = |app: &AppConfig| is_known(&app.secret) || app.keys.iter().any(|key| is_known(&key.secret));
    let public = config.apps.iter().enumerate().filter(|(_, app)| public(app));
    public
        .map(|(index, _)| {
            let text = "everybody knows the secret of the demo app, and `server.host` can be reached from other \
                        machines; choose another one";
            (apps.index(index).key("secret"), text.into())
        })
        .collect()
}

/// Limits of an app that one of the whole server makes meaningless.
fn unreachable_limits(config: &Config) -> Found {
    let server = &config.server;
    let mut found = Vec::new();
    for (index, app) in config.apps.iter().enumerate() {
        let mut compare = |key: &str, bytes, bound, bound_bytes| {
            if bytes > bound_bytes {
                let text = format!("can never be reached, since `{bound}` is {bound_bytes}");
                found.push((KeyPath::new("apps").index(index).key(key), text));
            }
        };
        let (body, outboxes) = ("server.body_bytes_max", "server.outbox_total_bytes_max");
        compare(
            "event_data_bytes_max",
            app.event_data_bytes_max,
            body,
            server.body_bytes_max,
        );
        compare(
            "outbox_bytes_max",
            app.outbox_bytes_max,
            outboxes,
            server.outbox_total_bytes_max,
        );
        for (place, rule) in app.channels.iter().enumerate() {
            if let Some(bytes) = rule.event_data_bytes_max {
                let key = format!("channels[{place}].event_data_bytes_max");
                compare(&key, bytes, body, server.body_bytes_max);
            }
        }
    }
    found
}

/// Apps that demand TLS of a server that nobody can reach by it: each of their sockets would be closed with 4000, those
/// that a proxy decrypted too, and pusher-js would try again for ever.
fn unreachable_apps(config: &Config) -> Found {
    // Trusted proxies say whether it was TLS before them.
    if config.tls.is_on() || !config.server.trusted_proxies.is_empty() {
        return Found::new();
    }
    let tls_only = config.apps.iter().enumerate().filter(|(_, app)| app.tls_only);
    tls_only
        .map(|(index, _)| {
            let text = "nobody could connect: this server does not speak TLS (section `tls`), and no proxy is trusted \
                        that could say that it does; name it in `server.trusted_proxies`";
            (KeyPath::new("apps").index(index).key("tls_only"), text.into())
        })
        .collect()
}

/// Webhooks that would be given up before they could be delivered, and what is wrong about their section.
fn hasty_webhooks(config: &Config) -> Found {
    let section = KeyPath::new("webhooks");
    let faults = config.webhooks.faults().into_iter();
    let mut found: Found = faults.map(|(key, text)| (section.key(&key), text)).collect();
    let give_up_ms = u64::from(config.webhooks.give_up_s) * 1_000;
    for (app, settings) in config.apps.iter().enumerate() {
        for (index, endpoint) in settings.webhooks.iter().enumerate() {
            let times = [
                ("timeout_ms", endpoint.timeout_ms),
                ("batch.max_delay_ms", endpoint.batch.max_delay_ms),
            ];
            for (key, ms) in times.into_iter().filter(|(_, ms)| u64::from(*ms) >= give_up_ms) {
                let text = format!(
                    "is {ms}, but an event is given up after `webhooks.give_up_s`, {}",
                    config.webhooks.give_up_s
                );
                let place = KeyPath::new("apps").index(app).key("webhooks").index(index);
                found.push((place.key(key), text));
            }
        }
    }
    found
}

/// The way to the other nodes and the brokers, as far as they are used.
fn unreachable_brokers(config: &Config) -> Found {
    let section = |name| move |(key, text)| (KeyPath::new(name).key(key), text);
    let mut found: Found = config
        .adapter
        .faults()
        .into_iter()
        .map(section("adapter"))
        .collect();
    if config.uses_redis() {
        found.extend(config.redis.faults().into_iter().map(section("redis")));
    } else if config.redis.url != RedisConfig::default().url {
        found.push((KeyPath::new("redis.url"), idle("redis")));
    }
    if config.uses_nats() {
        found.extend(config.nats.faults().into_iter().map(section("nats")));
    } else if config.nats.urls != NatsConfig::default().urls {
        found.push((KeyPath::new("nats.urls"), idle("nats")));
    }
    found
}

/// Nodes that are meant to share a broker and do not would each serve their own sockets only, and look well.
fn idle(broker: &str) -> String {
    format!(
        "nothing uses it, so this node is not joined to others by it: set `adapter.driver` to {broker} (or, for webhooks \
         alone, `webhooks.queue`), or leave it out"
    )
}

/// What apps say about themselves, with the full paths of the keys.
pub(super) fn faults_of_apps(faults: Vec<(usize, Fault)>) -> impl Iterator<Item = (KeyPath, String)> {
    let apps = KeyPath::new("apps");
    faults
        .into_iter()
        .map(move |(index, fault)| (apps.index(index).key(&fault.key), fault.text))
}

fn is_host(host: &str) -> bool {
    let is_name = || {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    address(host).is_some() || (!host.is_empty() && is_name())
}

fn is_path_prefix(prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~');
    prefix.is_empty()
        || (prefix.starts_with('/')
            && !prefix.ends_with('/')
            && !prefix.contains("//")
            && prefix.bytes().all(plain))
}

/// Whether the prefix can begin the name of a metric.
fn is_metric_prefix(metrics: &MetricsConfig) -> bool {
    let prefix = &metrics.prefix;
    prefix.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && prefix
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether listening on one host takes a port of the other.
fn overlap(a: &str, b: &str) -> bool {
    let everywhere = |host: &str| address(host).is_some_and(|address| address.is_unspecified());
    a.eq_ignore_ascii_case(b) || everywhere(a) || everywhere(b)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn contradicting_keys(config: Value) -> Vec<String> {
        let config = serde_json::from_value(config).expect("the settings are right by themselves");
        contradictions(&config)
            .into_iter()
            .map(|(key, _)| key.to_string())
            .collect()
    }

    /// An app in order, with some settings changed.
    fn app(change: Value) -> Value {
        let mut app = json!({"id": "1", "key": "k", "secret": "s"});
        for (key, value) in change.as_object().into_iter().flatten() {
            app[key] = value.clone();
        }
        app
    }

    #[test]
    fn what_does_nothing_or_harm_is_found() {
        let public = || app(json!({"secret": "app-secret"}));
        let table = [
            (json!({"server": {"host": "0.0.0.0"}}), "apps"),
            (
                json!({"server": {"host": "::"}, "apps": [public()]}),
                "apps[0].secret",
            ),
            (
                json!({"server": {"host": "gateway"}, "apps": [app(json!({})), app(json!({}))]}),
                "apps[1].id apps[1].key",
            ),
            (
                json!({"server": {"host": "gateway"}, "apps": [public()]}),
                "apps[0].secret",
            ),
            (
                json!({"server": {"host": "0.0.0.0:6001"}, "apps": [app(json!({}))]}),
                "server.host",
            ),
            (
                json!({"server": {"host": "http://localhost"}, "apps": [app(json!({}))]}),
                "server.host",
            ),
            (json!({"server": {"path_prefix": "ws"}}), "server.path_prefix"),
            (json!({"server": {"path_prefix": "/"}}), "server.path_prefix"),
            (json!({"server": {"path_prefix": "/a//b"}}), "server.path_prefix"),
            (json!({"server": {"path_prefix": "/a b"}}), "server.path_prefix"),
            (
                json!({"server": {"trusted_proxies": ["10.0.0.0/8", "::1", "all"]}}),
                "server.trusted_proxies[2]",
            ),
            (
                json!({"server": {"proxy_protocol": true}}),
                "server.proxy_protocol",
            ),
            (
                json!({"server": {"forwarded_header": "forwarded"}}),
                "server.forwarded_header",
            ),
            (
                json!({"server": {"trusted_proxies": ["unix"]}}),
                "server.trusted_proxies[0]",
            ),
            (
                json!({"server": {"unix_socket_mode": "0600"}}),
                "server.unix_socket_mode",
            ),
            (
                json!({"server": {"unix_socket": "/a", "unix_socket_mode": "0o66"}}),
                "server.unix_socket_mode",
            ),
            (
                json!({"server": {"unix_socket": "/a", "unix_socket_mode": "7777"}}),
                "server.unix_socket_mode",
            ),
            (
                json!({"server": {"unix_socket": "/a".repeat(54)}}),
                "server.unix_socket",
            ),
            (json!({"admin": {"host": ""}}), "admin.host"),
            (
                json!({"admin": {"actions_from": ["10.0.0.0/8", "localhost"]}}),
                "admin.actions_from[1]",
            ),
            (json!({"adapter": {"prefix": ""}}), "adapter.prefix"),
            (json!({"adapter": {"prefix": "a..b"}}), "adapter.prefix"),
            (json!({"adapter": {"prefix": "a{b}"}}), "adapter.prefix"),
            (
                json!({"adapter": {"driver": "redis"}, "redis": {"url": "redis://a/1"}}),
                "redis.url",
            ),
            (
                json!({"adapter": {"driver": "nats"}, "nats": {"urls": ["a"]}}),
                "nats.urls",
            ),
            (
                json!({"webhooks": {"queue": "redis"}, "redis": {"url": "redis://a/1"}}),
                "redis.url",
            ),
            (
                json!({"webhooks": {"queue": "nats"}, "nats": {"urls": ["a"]}}),
                "nats.urls",
            ),
            (json!({"redis": {"url": "redis://a"}}), "redis.url"),
            (json!({"nats": {"urls": ["nats://a"]}}), "nats.urls"),
            (
                json!({"adapter": {"driver": "nats"}, "redis": {"url": "redis://a"}}),
                "redis.url",
            ),
            (json!({"admin": {"port": 6001}}), "admin.port"),
            (
                json!({"webhooks": {"block": ["10.0.0.0/8", "all"]}}),
                "webhooks.block[1]",
            ),
            (json!({"webhooks": {"allow": ["10.0.0.0/8"]}}), "webhooks.allow"),
            (
                json!({"webhooks": {"queue_events_max": 10}}),
                "webhooks.endpoint_events_max",
            ),
            (
                json!({"webhooks": {"retry_max_ms": 500}}),
                "webhooks.retry_first_ms",
            ),
            (
                json!({"webhooks": {"give_up_s": 10}, "apps": [app(json!({"webhooks": [{"url": "http://a/"}]}))]}),
                "apps[0].webhooks[0].timeout_ms",
            ),
            (
                json!({"apps": [app(json!({"webhooks": [{"url": "http://a/", "headers": {"Host": "b"}}]}))]}),
                "apps[0].webhooks[0].headers.Host",
            ),
            (json!({"admin": {"port": 6001, "host": "0.0.0.0"}}), "admin.port"),
            (json!({"metrics": {"prefix": "a-b"}}), "metrics.prefix"),
            (json!({"metrics": {"prefix": "1a"}}), "metrics.prefix"),
            (
                json!({"apps": [app(json!({"event_data_bytes_max": 600_000, "cache_bytes_max": 10}))]}),
                "apps[0].cache_bytes_max",
            ),
            (
                json!({"server": {"body_bytes_max": 10_000}, "apps": [app(json!({}))]}),
                "apps[0].event_data_bytes_max",
            ),
            (
                json!({"apps": [app(json!({"outbox_bytes_max": 1_000_000_000}))]}),
                "apps[0].outbox_bytes_max",
            ),
            (
                json!({"server": {"body_bytes_max": 20_000}, "apps": [
                    app(json!({"channels": [{"pattern": "a", "event_data_bytes_max": 30_000}]})),
                ]}),
                "apps[0].channels[0].event_data_bytes_max",
            ),
            (
                json!({"apps": [app(json!({})), app(json!({"id": "2", "key": "l", "tls_only": true}))]}),
                "apps[1].tls_only",
            ),
            (json!({"tls": {"cert_file": "a"}}), "tls.cert_file"),
            (json!({"tls": {"key_file": "a"}}), "tls.key_file"),
            (json!({"tls": {"client_ca_file": "a"}}), "tls.client_ca_file"),
            (
                json!({"tls": {"acme": {"domains": ["a.example"]}}}),
                "tls.acme.terms_agreed",
            ),
            (
                json!({"tls": {"acme": {"folder": "/a", "email": "a@b", "terms_agreed": true, "ca_file": "a"}}}),
                "tls.acme.terms_agreed tls.acme.email tls.acme.folder tls.acme.ca_file",
            ),
            (acme(json!({"domains": ["*.a.example"]})), "tls.acme.domains"),
            (
                acme(json!({"domains": ["127.0.0.1", "localhost"]})),
                "tls.acme.domains tls.acme.domains",
            ),
            (
                acme(json!({"domains": ["a.example", "A.example", "a.example"]})),
                "tls.acme.domains tls.acme.domains",
            ),
            (acme(json!({"email": "mailto:a@b.example"})), "tls.acme.email"),
            (
                acme(json!({"directory_url": "http://a.example/"})),
                "tls.acme.directory_url",
            ),
            (acme(json!({"folder": ""})), "tls.acme.folder"),
            (
                json!({"tls": {"cert_file": "a", "key_file": "b", "acme": {"domains": ["a.example"], "terms_agreed": true}}}),
                "tls.cert_file tls.key_file",
            ),
        ];
        for (config, keys) in table {
            assert_eq!(contradicting_keys(config.clone()).join(" "), keys, "{config}");
        }
    }

    /// By ACME, with all that it needs, and this besides.
    fn acme(changes: Value) -> Value {
        let mut acme = json!({"domains": ["a.example"], "terms_agreed": true});
        for (key, value) in changes.as_object().expect("an object") {
            acme[key] = value.clone();
        }
        json!({"tls": {"acme": acme}})
    }

    #[test]
    fn what_only_looks_like_trouble_is_accepted() {
        let in_order: [Value; 14] = [
            acme(
                json!({"domains": ["a.example", "xn--bcher-kva.example"], "email": "a@b.example", "folder": "a"}),
            ),
            json!({"tls": {"client_ca_file": "a", "acme": {"domains": ["a.example"], "terms_agreed": true}},
                "apps": [app(json!({"tls_only": true}))]}),
            json!({"tls": {"cert_file": "a", "key_file": "b"}, "apps": [app(json!({"tls_only": true}))]}),
            json!({"adapter": {"prefix": "a-1.b_2"}}),
            json!({"redis": {"url": "redis://127.0.0.1:6379", "ca_file": "not used"}}),
            json!({"webhooks": {"queue": "nats"}, "nats": {"urls": ["nats://a"]}}),
            json!({"admin": {"port": 6001, "host": "127.0.0.2"}}),
            json!({"admin": {"port": 6001, "enabled": false}}),
            json!({"admin": {"port": 0}, "server": {"port": 0}}),
            json!({"server": {"host": "[::1]", "path_prefix": "/a/b-c"}}),
            json!({"server": {"trusted_proxies": ["::1"]}, "apps": [app(json!({"tls_only": true}))]}),
            json!({"server": {
                "trusted_proxies": ["unix"], "unix_socket": "/a", "unix_socket_mode": "600",
            }}),
            json!({"apps": [app(json!({"secret": "app-secret"}))]}),
            json!({"apps": [app(json!({})), app(json!({"id": "k", "key": "1"}))], "server": {"host": "::"}}),
        ];
        for config in in_order {
            assert_eq!(contradicting_keys(config.clone()), [""; 0], "{config}");
        }
    }
}
