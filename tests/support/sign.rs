//! Signatures as the Pusher protocol describes them.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};

/// Lower-case hex HMAC-SHA256.
pub(crate) fn hmac(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// `KEY:HEX`, what a back end answers to a client that asks to be authorised.
pub(crate) fn auth(key: &str, secret: &str, text: &str) -> String {
    format!("{key}:{}", hmac(secret, text))
}

/// The query that signs a request of the HTTP API. `query` is sorted, without a question mark, values unescaped.
pub(crate) fn signed_query(
    key: &str,
    secret: &str,
    method: &str,
    path: &str,
    query: &str,
    body: &str,
) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let mut pairs = vec![
        format!("auth_key={key}"),
        format!("auth_timestamp={now}"),
        "auth_version=1.0".to_owned(),
    ];
    if !body.is_empty() {
        pairs.push(format!("body_md5={}", hex::encode(Md5::digest(body.as_bytes()))));
    }
    pairs.extend(
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(str::to_owned),
    );
    pairs.sort();
    let query = pairs.join("&");
    let signature = hmac(secret, &format!("{method}\n{path}\n{query}"));
    format!("{query}&auth_signature={signature}")
}
