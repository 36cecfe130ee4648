//! Signatures of clients: which text is signed for what, and whether a signature is right.
//!
//! Knows no app: key and secret are arguments. Requests to the HTTP API sign another text: see `request_auth`.

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

/// What is signed for a subscription. `channel_data` is the exact text received; an empty one is as good as none.
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
    hex::encode(mac(secret, text.as_bytes()).finalize().into_bytes())
}

/// The same over bytes: for the body of a webhook.
pub fn sign_bytes(secret: &str, bytes: &[u8]) -> String {
    hex::encode(mac(secret, bytes).finalize().into_bytes())
}

/// Whether `signature` (hex of either case) is that of the text. Takes the same time wherever they differ.
pub fn verify(secret: &str, text: &str, signature: &str) -> bool {
    let mut claimed = [0; 32];
    hex::decode_to_slice(signature, &mut claimed).is_ok()
        && mac(secret, text.as_bytes()).verify_slice(&claimed).is_ok()
}

fn mac(secret: &str, bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(bytes);
    mac
}
