use super::*;

const SECRET: &str = "7ad3773142a6692b25b8";
const TIME_S: i64 = 1_353_088_179;
const AUTH: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0";
const MD5_OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";

fn md5(body: &str) -> [u8; 16] {
    use md5::Digest;
    md5::Md5::digest(body).into()
}

/// All that one request is asked, as the API asks it.
fn check(method: &str, path: &str, query: &str, body: &str) -> Result<(), RequestAuthError> {
    let request = RequestAuth::parse(query)?;
    assert_eq!(request.key, "278d425bdf160c739803");
    request.check_time(TIME_S)?;
    request.verify(SECRET, method, path, query, "")?;
    request.check_body(md5(body), body.is_empty())
}

/// A request whose client signed `signed_query` for `signed_path`, and sent it as `query` to `path`.
fn sent(signed_path: &str, signed_query: &str, path: &str, query: &str, prefix: &str) -> bool {
    let signature = auth::sign(SECRET, &format!("GET\n{signed_path}\n{AUTH}&{signed_query}"));
    let query = format!("{AUTH}&{query}&auth_signature={signature}");
    RequestAuth::parse(&query)
        .expect("complete")
        .verify(SECRET, "GET", path, &query, prefix)
        .is_ok()
}

/// Made by the official server libraries.
#[test]
fn signatures_are_those_of_the_libraries() {
    let event = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    let filter = "filter_by_prefix=presence-&info=user_count";
    for (method, path, query, body, signature) in [
        (
            "POST",
            "/apps/3/events",
            "body_md5=ec365a775a4cd0599faeb73354201b6f".to_owned(),
            event,
            "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
        ),
        (
            "GET",
            "/apps/3/channels",
            filter.to_owned(),
            "",
            "16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291",
        ),
        // As the Python library does.
        (
            "GET",
            "/apps/3/channels",
            format!("{filter}&body_md5={MD5_OF_NOTHING}"),
            "",
            "f3f17c61ae491cc9085db68b22076e9b772e3bcb301659d655153ee3f9782aba",
        ),
        (
            "POST",
            "/apps/3/users/42/terminate_connections",
            "body_md5=99914b932bd37a50b983c5e7c90ae93b".to_owned(),
            "{}",
            "2829710742ff5f799010258297d09016e2366257e3e954039eeda349073a2bcf",
        ),
    ] {
        let query = format!("{query}&{AUTH}&auth_signature={signature}");
        assert_eq!(check(method, path, &query, body), Ok(()), "{path}?{query}");
        assert_eq!(
            check(
                method,
                path,
                &query.replace(signature, &signature.to_uppercase()),
                body
            ),
            Ok(())
        );
        // Nothing that was signed may change.
        for (method, path, query) in [
            ("PUT", path, query.clone()),
            (method, "/apps/4/events", query.clone()),
            (method, path, query.replace("1353088179", "1353088180")),
            (method, path, format!("more=1&{query}")),
        ] {
            let result = check(method, path, &query, body);
            assert!(
                matches!(result, Err(RequestAuthError::Signature { .. })),
                "{method} {path}?{query}"
            );
        }
    }
}

#[test]
fn the_order_and_case_of_keys_mean_nothing() {
    let signed = format!("GET\n/apps/3/channels\nA=2&{AUTH}&b=&b=1&zz=x=y")
        .to_lowercase()
        .replace("get", "GET");
    let query = "zz=x=y&AUTH_Timestamp=1353088179&&b&auth_VERSION=1.0&A=2&b=1&auth_key=278d425bdf160c739803";
    assert_eq!(
        strings_to_sign("get", "/apps/3/channels", query, ""),
        [signed.as_str()]
    );
    let query = format!("{query}&Auth_Signature={}", auth::sign(SECRET, &signed));
    assert_eq!(check("GET", "/apps/3/channels", &query, ""), Ok(()));
}

#[test]
fn what_was_escaped_after_signing_or_before_is_recognised() {
    let path = "/apps/3/channels";
    for (signed, query) in [
        ("info=a,b", "info=a%2Cb"),
        ("info=a,b", "info=a%2cb"),
        ("info=a,b", "info=a,b"),
        ("info=a%2Cb", "info=a%2Cb"),
        ("q=a+b", "q=a+b"),
        ("q=a b", "q=a+b"),
        ("q=a b", "q=a%20b"),
        ("q=a+b", "q=a%2Bb"),
        ("q=a b+c,", "q=a+b%2Bc%2C"),
        ("q=é", "q=%C3%A9"),
        ("q=100%", "q=100%"),
        ("q=%FF", "q=%FF"),
        ("info[]=a", "info%5B%5D=a"),
    ] {
        assert!(sent(path, signed, path, query, ""), "{signed} {query}");
    }
    for (signed, query) in [
        ("q=a b", "q=a%2Bb"),
        ("q=a", "q=A"),
        ("q=a%252Cb", "q=a,b"),
        ("q=a", "q=a&q=a"),
    ] {
        assert!(!sent(path, signed, path, query, ""), "{signed} {query}");
    }
    for (signed, path) in [
        ("/apps/3/users/a@b;c", "/apps/3/users/a@b;c"),
        ("/apps/3/users/a@b;c", "/apps/3/users/a%40b%3Bc"),
        ("/apps/3/users/a%40b", "/apps/3/users/a%40b"),
        (
            "/users/42/terminate_connections",
            "/users/42/terminate_connections",
        ),
    ] {
        assert!(sent(signed, "z=1", path, "z=1", ""), "{signed} {path}");
    }
}

#[test]
fn a_path_prefix_may_be_signed_or_not() {
    for (signed, path) in [
        ("/ws/apps/3/events", "/ws/apps/3/events"),
        ("/apps/3/events", "/ws/apps/3/events"),
        ("/ws/apps/3/events", "/apps/3/events"),
        ("/apps/3/events", "/apps/3/events"),
        ("/apps/3/users/a@b", "/ws/apps/3/users/a%40b"),
    ] {
        assert!(sent(signed, "z=1", path, "z=1", "/ws"), "{signed} {path}");
        assert_eq!(sent(signed, "z=1", path, "z=1", ""), signed == path);
    }
    // A prefix ends where a segment ends.
    assert!(!sent("x/apps", "z=1", "/wsx/apps", "z=1", "/ws"));
}

#[test]
fn the_likeliest_text_comes_first_and_each_once() {
    let texts = strings_to_sign("GET", "/apps/3/users/a%40b", "q=a%2Cb+c", "");
    assert_eq!(
        texts,
        [
            "GET\n/apps/3/users/a%40b\nq=a,b+c",
            "GET\n/apps/3/users/a%40b\nq=a%2Cb+c",
            "GET\n/apps/3/users/a%40b\nq=a,b c",
            "GET\n/apps/3/users/a@b\nq=a,b+c",
            "GET\n/apps/3/users/a@b\nq=a%2Cb+c",
            "GET\n/apps/3/users/a@b\nq=a,b c",
        ]
    );
    assert_eq!(
        strings_to_sign("GET", "/apps/3/channels", "a=1", ""),
        ["GET\n/apps/3/channels\na=1"]
    );
    assert_eq!(strings_to_sign("GET", "/", "", ""), ["GET\n/\n"]);
}

#[test]
fn a_failure_shows_the_text_that_should_have_been_signed() {
    let query = format!("{AUTH}&info=a%2Cb&auth_signature=00");
    let error = check("GET", "/apps/3/channels", &query, "").expect_err("wrong signature");
    let signed = format!("GET\n/apps/3/channels\n{AUTH}&info=a,b");
    assert_eq!(error, RequestAuthError::Signature { signed });
    assert!(!error.to_string().contains(SECRET));
}

#[test]
fn every_parameter_is_needed_once() {
    let whole = format!("{AUTH}&auth_signature=00");
    for name in ["auth_key", "auth_timestamp", "auth_version", "auth_signature"] {
        let without = whole.replace(name, "x");
        assert_eq!(RequestAuth::parse(&without), Err(RequestAuthError::Missing(name)));
        for twice in [
            format!("{whole}&{name}=1"),
            format!("{}=1&{whole}", name.to_uppercase()),
        ] {
            assert_eq!(RequestAuth::parse(&twice), Err(RequestAuthError::Repeated(name)));
        }
    }
    let twice = format!("{whole}&body_md5=1&body%5Fmd5=1");
    assert_eq!(
        RequestAuth::parse(&twice),
        Err(RequestAuthError::Repeated("body_md5"))
    );
    for version in ["", "1", "1.00", "2.0"] {
        let other = whole.replace("auth_version=1.0", &format!("auth_version={version}"));
        assert_eq!(RequestAuth::parse(&other), Err(RequestAuthError::Version));
    }
    for time in ["", "now", "1353088179.5", "0x10", "99999999999999999999"] {
        let other = whole.replace("1353088179", time);
        assert_eq!(
            RequestAuth::parse(&other),
            Err(RequestAuthError::Timestamp),
            "{time}"
        );
    }
}

#[test]
fn a_request_lives_ten_minutes_either_way() {
    let query = format!("{AUTH}&auth_signature=00");
    let request = RequestAuth::parse(&query).expect("complete");
    for now_s in [TIME_S - 600, TIME_S, TIME_S + 600] {
        assert_eq!(request.check_time(now_s), Ok(()));
    }
    for now_s in [TIME_S - 601, TIME_S + 601, i64::MIN, i64::MAX] {
        assert_eq!(
            request.check_time(now_s),
            Err(RequestAuthError::Expired {
                timestamp_s: TIME_S,
                now_s
            })
        );
    }
}

#[test]
fn a_body_needs_its_hash_and_no_body_may_have_one() {
    let body = |hash: Option<&str>, body: &str| {
        let hash = hash.map(|hash| format!("&body_md5={hash}")).unwrap_or_default();
        let query = format!("{AUTH}&auth_signature=00{hash}");
        RequestAuth::parse(&query)
            .expect("complete")
            .check_body(md5(body), body.is_empty())
    };
    assert_eq!(body(None, ""), Ok(()));
    assert_eq!(body(Some(MD5_OF_NOTHING), ""), Ok(()));
    assert_eq!(body(Some(&MD5_OF_NOTHING.to_uppercase()), ""), Ok(()));
    assert_eq!(body(Some("99914b932bd37a50b983c5e7c90ae93b"), "{}"), Ok(()));
    assert_eq!(body(None, "{}"), Err(RequestAuthError::BodyHashMissing));
    for (hash, text) in [
        (MD5_OF_NOTHING, "{}"),
        ("99914b932bd37a50b983c5e7c90ae93b", ""),
        ("", ""),
        ("", "{}"),
    ] {
        assert_eq!(
            body(Some(hash), text),
            Err(RequestAuthError::BodyHash),
            "{hash} {text}"
        );
    }
}

#[test]
fn a_query_that_no_call_needs_is_not_hashed() {
    let long = format!("auth_key=k&info={}", "a".repeat(4096));
    let many = "a=b&".repeat(64) + "auth_key=k";
    for query in [long, many] {
        assert_eq!(RequestAuth::parse(&query), Err(RequestAuthError::TooLong));
    }
}
