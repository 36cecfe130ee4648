//! Signatures of clients: which text is signed for what, and whether a signature is right.
//!
//! Knows no app: key and secret are arguments. Requests to the HTTP API sign another text: see
//! `request_auth`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::socket_id::SocketId;

/// `KEY:HEX` as a client sends it, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    /// The app's public key, as claimed.
    pub key: &'a str,
    /// The signature, as claimed.
    pub signature: &'a str,
}

impl<'a> Credential<'a> {
    /// Splits at the last colon. `None` if there is none.
    pub fn parse(auth: &'a str) -> Option<Credential<'a>> {
        let (key, signature) = auth.rsplit_once(':')?;
        Some(Credential { key, signature })
    }
}

/// What is signed for a subscription. `channel_data` is the exact text received; an empty one is as good as
/// none.
pub fn channel_string(socket_id: SocketId, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data.filter(|data| !data.is_empty()) {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

/// What is signed for a sign-in. `user_data` is the exact text received.
pub fn user_string(socket_id: SocketId, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

/// The signature of a text, in lower-case hex.
pub fn sign(secret: &str, text: &str) -> String {
    hex::encode(mac(secret, text).finalize().into_bytes())
}

/// Whether `signature` (hex of either case) is that of the text. Takes the same time wherever they differ.
pub fn verify(secret: &str, text: &str, signature: &str) -> bool {
    let mut claimed = [0; 32];
    hex::decode_to_slice(signature, &mut claimed).is_ok() && mac(secret, text).verify_slice(&claimed).is_ok()
}

fn mac(secret: &str, text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "7ad3773142a6692b25b8";

    /// Made by the official server libraries.
    #[test]
    fn signatures_are_those_of_the_libraries() {
        let socket_id = SocketId::from_parts(1234, 1234);
        for (text, signature) in [
            (
                channel_string(socket_id, "private-foobar", None),
                "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
            ),
            (
                channel_string(
                    socket_id,
                    "presence-foobar",
                    Some(r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#),
                ),
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
            (
                user_string(socket_id, r#"{"id":"12345"}"#),
                "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
            ),
            (
                channel_string(socket_id, "private-foobar", Some(r#"{"a":1}"#)),
                "3f4243af5e27f47d11116e80a4b762a3b672c9b83f9e82645a0ba883c2592b09",
            ),
        ] {
            assert_eq!(sign(SECRET, &text), signature, "{text}");
            assert!(verify(SECRET, &text, signature), "{text}");
            assert!(verify(SECRET, &text, &signature.to_uppercase()), "{text}");
        }
    }

    #[test]
    fn empty_channel_data_is_not_signed() {
        let socket_id = SocketId::from_parts(1, 2);
        assert_eq!(channel_string(socket_id, "private-a", Some("")), "1.2:private-a");
        assert_eq!(
            channel_string(socket_id, "private-a", Some("{}")),
            "1.2:private-a:{}"
        );
    }

    #[test]
    fn a_signature_of_anything_else_is_refused() {
        let text = "1234.1234:private-foobar";
        let right = sign(SECRET, text);
        for wrong in [
            String::new(),
            right[..62].to_owned(),
            format!("{right}00"),
            format!("{}g", &right[..63]),
            format!(" {right}"),
            sign(SECRET, "1234.1234:private-foobaz"),
            sign("7ad3773142a6692b25b9", text),
            "é".repeat(32),
        ] {
            assert!(!verify(SECRET, text, &wrong), "{wrong}");
        }
        assert!(!verify("", text, &right));
        assert!(verify("", text, &sign("", text)));
    }

    #[test]
    fn a_credential_is_split_at_its_last_colon() {
        for (auth, parts) in [
            ("key:abc", Some(("key", "abc"))),
            ("key:with:colons:abc", Some(("key:with:colons", "abc"))),
            (":", Some(("", ""))),
            ("", None),
            ("no colon", None),
        ] {
            let credential = Credential::parse(auth);
            assert_eq!(
                credential.map(|credential| (credential.key, credential.signature)),
                parts,
                "{auth}"
            );
        }
    }
}
