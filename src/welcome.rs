//! What a newcomer is shown in development mode: how to connect, and how to send a first event.

use std::net::SocketAddr;

use fanwire::app::AppConfig;

/// A snippet for pusher-js and a shell command, both for the demo app at this address and below this prefix of
/// all paths.
pub(crate) fn text(address: SocketAddr, prefix: &str) -> String {
    let AppConfig { id, key, secret, .. } = AppConfig::demo();
    let (host, port, secret) = (address.ip(), address.port(), secret.expose());
    // pusher-js puts the host into a URL, where an IPv6 address stands in brackets.
    let host = if address.is_ipv6() {
        format!("[{host}]")
    } else {
        host.to_string()
    };
    let ws_path = if prefix.is_empty() {
        String::new()
    } else {
        format!(" wsPath: \"{prefix}\",")
    };
    format!(
        r#"
Development mode: no app is configured, so the demo app is served to this machine only.
Try it at http://{address}{prefix}/, or in a page of your own:

  const pusher = new Pusher("{key}", {{
    wsHost: "{host}", wsPort: {port},{ws_path} forceTLS: false, enabledTransports: ["ws", "wss"], cluster: "self-hosted",
  }});
  pusher.subscribe("demo").bind("hello", (data) => console.log(data));

Send an event to it:

  body='{{"name":"hello","channels":["demo"],"data":"{{\"from\":\"curl\"}}"}}'
  md5=$(printf '%s' "$body" | openssl md5 | sed 's/^.* //')
  query="auth_key={key}&auth_timestamp=$(date +%s)&auth_version=1.0&body_md5=$md5"
  signature=$(printf 'POST\n/apps/{id}/events\n%s' "$query" | openssl sha256 -hmac '{secret}' | sed 's/^.* //')
  curl -H 'Content-Type: application/json' -d "$body" \
    "http://{address}{prefix}/apps/{id}/events?$query&auth_signature=$signature"
"#
    )
}
