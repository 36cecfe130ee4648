//! The HTTP API, asked in bytes over TCP.

#[path = "../support/answer.rs"]
mod answer;
mod client;
mod server;
mod subscriber;

use std::time::{Duration, Instant};

use client::{Answer, Connection, Signer, md5, request, unix_s};
use server::{BODY_BYTES_MAX, PREFIX, start};
use subscriber::Subscriber;

const APP: Signer<'_> = Signer {
    key: "key-1",
    secret: "secret-1",
};
const OTHER_APP: Signer<'_> = Signer {
    key: "key-2",
    secret: "secret-2",
};
const DISABLED_APP: Signer<'_> = Signer {
    key: "key-3",
    secret: "secret-3",
};

const EVENTS: &str = "/apps/1/events";
const BATCH: &str = "/apps/1/batch_events";
const CHANNELS: &str = "/apps/1/channels";

fn post(connection: &mut Connection, path: &str, body: &str) -> Answer {
    connection.ask("POST", &APP.target("POST", path, "", body), body)
}

fn get(connection: &mut Connection, path: &str, query: &str) -> Answer {
    connection.ask("GET", &APP.target("GET", path, query, ""), "")
}

/// The last event of a cache channel, as the API tells it.
fn cached(connection: &mut Connection, channel: &str) -> serde_json::Value {
    let answer = get(connection, &format!("{CHANNELS}/{channel}"), "info=cache");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("an answer is JSON");
    body["cache"]["data"].clone()
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("a refusal is JSON");
    assert_eq!(body["code"], status);
    assert!(
        body["error"].as_str().is_some_and(|text| text.contains(part)),
        "{}",
        answer.body
    );
}

#[test]
fn an_event_is_published() {
    let mut connection = Connection::open(start().main);
    for data in ["one", "two"] {
        let body = format!(r#"{{"name":"e","data":"{data}","channels":["cache-a","b","cache-a"]}}"#);
        let answer = post(&mut connection, EVENTS, &body);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(cached(&mut connection, "cache-a"), data);
    }
    let body = r#"{"name":"e","data":{"a": 1},"channels":["presence-a","b"],"info":"user_count,subscription_count"}"#;
    let info =
        r#"{"channels":{"presence-a":{"user_count":0,"subscription_count":0},"b":{"subscription_count":0}}}"#;
    assert_eq!(post(&mut connection, EVENTS, body).body, info);
}

#[test]
fn a_batch_is_published_in_order_or_not_at_all() {
    let mut connection = Connection::open(start().main);
    let event = |data: &str| format!(r#"{{"name":"e","data":"{data}","channel":"cache-a"}}"#);
    let batch = |events: &[String]| format!(r#"{{"batch":[{}]}}"#, events.join(","));
    let answer = post(
        &mut connection,
        BATCH,
        &batch(&[event("1"), event("2"), event("3")]),
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    assert_eq!(cached(&mut connection, "cache-a"), "3");
    let bad = r#"{"name":"pusher:e","data":"","channel":"a"}"#.to_owned();
    assert_refused(
        &post(&mut connection, BATCH, &batch(&[event("4"), bad])),
        400,
        "`batch[1]`: `name` begins",
    );
    assert_eq!(cached(&mut connection, "cache-a"), "3");

    // Larger than what is parsed on the spot.
    let large: Vec<String> = (0..10).map(|n| event(&n.to_string().repeat(10_240))).collect();
    assert_eq!(post(&mut connection, BATCH, &batch(&large)).body, "{}");
    assert_eq!(cached(&mut connection, "cache-a"), "9".repeat(10_240));
    let info: Vec<String> = large
        .iter()
        .map(|event| event.replace("}", r#","info":"user_count"}"#))
        .collect();
    let body = format!(r#"{{"batch":[{}]}}"#, ["{}"; 10].join(","));
    assert_eq!(post(&mut connection, BATCH, &batch(&info)).body, body);
}

#[test]
fn a_call_with_an_idempotency_key_is_made_once() {
    let mut connection = Connection::open(start().main);
    for (data, published) in [("first", "first"), ("second", "first")] {
        let body = format!(r#"{{"name":"e","data":"{data}","channel":"cache-a","idempotency_key":"k"}}"#);
        assert_eq!(post(&mut connection, EVENTS, &body).body, "{}");
        assert_eq!(cached(&mut connection, "cache-a"), published);
    }
    for (header, status) in [
        ("x".repeat(128), 200),
        ("x".repeat(128), 200),
        ("x".repeat(129), 400),
    ] {
        let body = r#"{"name":"e","data":"third","channel":"cache-a"}"#;
        let target = APP.target("POST", EVENTS, "", body);
        let request = request("POST", &target, body);
        let header = format!("\r\nx-idempotency-key: {header}\r\n\r\n");
        connection.write(request.replacen("\r\n\r\n", &header, 1));
        assert_eq!(connection.read("POST").status, status);
    }
    assert_eq!(cached(&mut connection, "cache-a"), "third");
}

#[test]
fn questions_are_answered() {
    let mut connection = Connection::open(start().main);
    for (path, query, body) in [
        (CHANNELS, "", r#"{"channels":{}}"#),
        (
            CHANNELS,
            "filter_by_prefix=presence-&info=user_count",
            r#"{"channels":{}}"#,
        ),
        (
            "/apps/1/channels/a",
            "info=subscription_count",
            r#"{"occupied":false,"subscription_count":0}"#,
        ),
        (
            "/apps/1/channels/cache-a",
            "info=cache",
            r#"{"occupied":false,"cache":null}"#,
        ),
        ("/apps/1/channels/presence-a/users", "", r#"{"users":[]}"#),
        ("/apps/1/connections", "", r#"{"connections":0}"#),
    ] {
        let answer = get(&mut connection, path, query);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, body),
            "{path}?{query}"
        );
    }
    for (path, query, part) in [
        (CHANNELS, "info=user_count", "filter_by_prefix=presence-"),
        ("/apps/1/channels/a", "info=user_count", "presence channels"),
        ("/apps/1/channels/a/users", "", "not a presence channel"),
    ] {
        assert_refused(&get(&mut connection, path, query), 400, part);
    }
    for (path, body) in [
        ("/apps/1/users/42/terminate_connections", "{}"),
        ("/apps/1/users/42/terminate_connections", ""),
        ("/apps/1/users/42/force_reconnect", "{}"),
    ] {
        let answer = post(&mut connection, path, body);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{path}");
    }
}

/// What the official libraries and the stacks below them do to a request after signing it.
#[test]
fn the_libraries_ways_are_known() {
    let mut connection = Connection::open(start().main);
    // Python: the hash of no body with every GET, and no app in the path of this call.
    let hash_of_nothing = format!("body_md5={}", md5(""));
    assert_eq!(get(&mut connection, CHANNELS, &hash_of_nothing).status, 200);
    let answer = post(&mut connection, "/users/42/terminate_connections", "{}");
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    // PHP: escaped on the way.
    let target = APP.target(
        "GET",
        CHANNELS,
        "filter_by_prefix=presence-&info=user_count,subscription_count",
        "",
    );
    assert_eq!(connection.ask("GET", &target.replace(',', "%2C"), "").status, 200);
    // Escaped path, signed unescaped.
    let target = APP.target("GET", "/apps/1/channels/presence-a@b,c/users", "", "");
    assert_eq!(
        connection
            .ask("GET", &target.replace("a@b,c", "a%40b%2Cc"), "")
            .status,
        200
    );
    // Mounted under a prefix, by a proxy that takes it away or by this server; signed with it or without.
    let whole = format!("{PREFIX}{CHANNELS}");
    for (signed, sent) in [(whole.as_str(), CHANNELS), (CHANNELS, &whole), (&whole, &whole)] {
        let target = APP.target("GET", signed, "", "").replacen(signed, sent, 1);
        assert_eq!(connection.ask("GET", &target, "").status, 200, "{signed} {sent}");
    }
}

#[test]
fn who_cannot_prove_to_be_the_app_learns_why() {
    let mut connection = Connection::open(start().main);
    let body = r#"{"name":"e","data":"","channel":"a"}"#;
    let right = APP.target("POST", EVENTS, "", body);
    let md5 = format!("body_md5={}", md5(body));
    let at = |timestamp_s| APP.target_at(timestamp_s, "POST", EVENTS, &md5);
    for (target, status, part) in [
        (right.replace("apps/1", "apps/9"), 404, "no app with the id \"9\""),
        (
            DISABLED_APP.target("POST", "/apps/3/events", "", body),
            403,
            "disabled",
        ),
        (
            OTHER_APP.target("POST", EVENTS, "", body),
            401,
            "\"key-2\" is not a key of app 1",
        ),
        (
            Signer {
                secret: "guessed",
                ..APP
            }
            .target("POST", EVENTS, "", body),
            401,
            "Invalid signature",
        ),
        (
            right.replace("auth_version=1.0", "auth_version=1.0&x=1"),
            401,
            "\nPOST\n/apps/1/events\nauth_key=key-1&",
        ),
        (at(unix_s() - 601), 401, "auth_timestamp"),
        (at(unix_s() + 610), 401, "auth_timestamp"),
        (APP.target("POST", EVENTS, "", "{}"), 401, "body_md5"),
        (APP.target("POST", EVENTS, "", ""), 401, "body_md5"),
        (EVENTS.to_owned(), 401, "auth_"),
        (at(unix_s() - 590), 200, ""),
    ] {
        let answer = connection.ask("POST", &target, body);
        match status {
            200 => assert_eq!(answer.status, 200, "{}", answer.body),
            _ => assert_refused(&answer, status, part),
        }
    }
}

#[test]
fn wrong_paths_and_methods_are_told_apart() {
    let mut connection = Connection::open(start().main);
    for method in ["GET", "HEAD", "OPTIONS", "PUT"] {
        let answer = connection.ask(method, EVENTS, "");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("POST")),
            "{method}"
        );
    }
    for method in ["POST", "HEAD", "OPTIONS"] {
        let answer = connection.ask(method, CHANNELS, "");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET")),
            "{method}"
        );
    }
    assert_refused(&connection.ask("POST", "/apps/1/event", ""), 404, "batch_events");
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let mut connection = Connection::open(start().main);
    let requests: Vec<String> = (0..20)
        .map(|n| {
            let body = format!(r#"{{"name":"e","data":"{n}","channel":"cache-a"}}"#);
            request("POST", &APP.target("POST", EVENTS, "", &body), &body)
        })
        .collect();
    connection.write(requests.concat());
    for _ in &requests {
        assert_eq!(connection.read("POST").status, 200);
    }
    assert_eq!(cached(&mut connection, "cache-a"), "19");
}

#[test]
fn a_body_may_come_in_pieces() {
    let mut connection = Connection::open(start().main);
    let body = r#"{"name":"e","data":"d","channel":"cache-a"}"#;
    let target = APP.target("POST", EVENTS, "", body);
    let mut chunked = format!("POST {target} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    chunked.extend(body.chars().map(|c| format!("1\r\n{c}\r\n")));
    connection.write(chunked + "0\r\n\r\n");
    assert_eq!(connection.read("POST").status, 200);

    // Only who has proved to be the app is asked to go on.
    let expecting = |target: &str, length: usize| {
        format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    connection.write(expecting(&target, body.len()));
    assert_eq!(connection.read("POST").status, 100);
    connection.write(body);
    assert_eq!(connection.read("POST").status, 200);
    connection.write(expecting(EVENTS, body.len()));
    assert_eq!(connection.read("POST").status, 401);
}

#[test]
fn a_body_over_the_limit_is_refused_while_it_comes() {
    let address = start().main;
    let body = "x".repeat(BODY_BYTES_MAX + 1);
    let target = APP.target("POST", EVENTS, "", &body);
    let announced = request("POST", &target, &body);
    let (head, _) = announced.split_at(announced.len() - body.len());

    // Before the first byte of it.
    let mut connection = Connection::open(address);
    let begun = Instant::now();
    connection.write(head);
    assert_refused(
        &connection.read("POST"),
        413,
        "has 2097153 bytes; the limit is 2097152",
    );
    assert!(begun.elapsed() < Duration::from_secs(1));

    // Who writes all of it before reading gets the answer too, and may go on.
    let mut connection = Connection::open(address);
    connection.write(&announced);
    assert_refused(&connection.read("POST"), 413, "`server.body_bytes_max`");
    assert_eq!(get(&mut connection, CHANNELS, "").status, 200);

    // The same without a length.
    connection.write(format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    ));
    connection.write(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    assert_refused(&connection.read("POST"), 413, "the limit is 2097152");
    assert_eq!(get(&mut connection, CHANNELS, "").status, 200);
}

#[test]
fn a_refusal_before_the_body_does_not_cost_the_connection() {
    let mut connection = Connection::open(start().main);
    let request = request("POST", "/apps/9/events", &"x".repeat(100_000));
    let (head, rest) = request.split_at(200);
    connection.write(head);
    assert_refused(&connection.read("POST"), 404, "no app");
    connection.write(rest);
    assert_eq!(get(&mut connection, CHANNELS, "").status, 200);
}

#[test]
fn what_is_published_arrives_once_in_order_and_as_text() {
    let server = start().main;
    let mut connection = Connection::open(server);
    let mut both = Subscriber::to(&["a", "b"], server, APP.key);
    let mut sender = Subscriber::to(&["a"], server, APP.key);
    let mut stranger = Subscriber::to(&["a"], server, OTHER_APP.key);

    let body = r#"{"name":"e1","data":{"x": [1, 2]},"channels":["a","b","a"],"socket_id":"SOCKET_ID"}"#;
    let body = body.replace("SOCKET_ID", &sender.socket_id);
    assert_eq!(post(&mut connection, EVENTS, &body).status, 200);
    let batch =
        r#"{"batch":[{"name":"e2","data":"","channel":"a"},{"name":"e3","data":"\u00e9","channel":"a"}]}"#;
    assert_eq!(post(&mut connection, BATCH, batch).status, 200);
    let last = r#"{"name":"last","data":"","channels":["a"]}"#;
    let target = OTHER_APP.target("POST", "/apps/2/events", "", last);
    assert_eq!(connection.ask("POST", &target, last).status, 200);

    // In order on each channel; one channel may overtake another. Sorting is stable.
    let mut heard = [both.hear(), both.hear(), both.hear(), both.hear()];
    heard.sort_by(|one, other| one[1].cmp(&other[1]));
    assert_eq!(
        heard,
        [
            ["e1", "a", r#"{"x":[1,2]}"#],
            ["e2", "a", ""],
            ["e3", "a", "é"],
            ["e1", "b", r#"{"x":[1,2]}"#],
        ]
    );
    assert_eq!(sender.hear(), ["e2", "a", ""]);
    assert_eq!(stranger.hear(), ["last", "a", ""]);

    assert_eq!(
        get(&mut connection, "/apps/1/connections", "").body,
        r#"{"connections":2}"#
    );
    let listed = get(
        &mut connection,
        CHANNELS,
        "info=subscription_count&filter_by_prefix=a",
    )
    .body;
    assert_eq!(listed, r#"{"channels":{"a":{"subscription_count":2}}}"#);
    let asked = get(&mut connection, "/apps/1/channels/b", "info=subscription_count").body;
    assert_eq!(asked, r#"{"occupied":true,"subscription_count":1}"#);
}

#[test]
fn every_call_to_an_app_is_counted() {
    let ports = start();
    let mut connection = Connection::open(ports.main);
    let body = r#"{"name":"e","data":"","channel":"a"}"#;
    assert_eq!(post(&mut connection, EVENTS, body).status, 200);
    assert_eq!(get(&mut connection, "/apps/1/connections", "").body.len(), 17);
    let refused = connection.ask("POST", EVENTS, "");
    assert_eq!(
        (refused.status, connection.ask("GET", "/up", "").status),
        (401, 200)
    );
    let metrics = Connection::open(ports.admin).ask("GET", "/metrics", "").body;
    for (metric, value) in [
        ("http_calls_received_total", 3),
        ("http_received_bytes", body.len()),
        ("http_transmitted_bytes", "{}".len() + 17 + refused.body.len()),
    ] {
        let sample = metrics
            .lines()
            .find(|line| line.starts_with(&format!("fanwire_{metric}{{")) && line.contains("app_id=\"1\""));
        let counted = sample.and_then(|sample| sample.rsplit(' ').next());
        assert_eq!(counted, Some(&*value.to_string()), "{metric}");
    }
}
