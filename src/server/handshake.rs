//! Whether a client may have a socket: the checks of the handshake, in the protocol's order. Pure.
//!
//! A refusal is given inside the socket: a browser cannot see the status of a failed upgrade, and pusher-js would take
//! it for a network fault.

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::app::{Admission, App, Apps};
use crate::protocol::PROTOCOL_VERSIONS;
use crate::protocol::code::CloseCode;

/// What a client says when it connects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The app's key as it stands in the path.
    pub(super) key: &'a str,
    /// The query, undecoded.
    pub(super) query: &'a str,
    /// The `Origin` header: browsers send it.
    pub(super) origin: Option<&'a str>,
    /// Whether the connection is encrypted up to this server.
    pub(super) is_tls: bool,
}

/// What the server says about itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// It is about to stop.
    pub(super) is_draining: bool,
    /// It has as many sockets as it bears.
    pub(super) is_full: bool,
    /// Clients must say which protocol they speak.
    pub(super) strict: bool,
}

/// A client that may have its socket.
#[derive(Debug)]
pub(super) struct Granted {
    /// Its place in the app's quota.
    pub(super) admission: Admission,
    /// 4 to 7.
    pub(super) protocol: u8,
}

/// A client that may not, and what it speaks, as far as that is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Why.
    pub(super) code: CloseCode,
}

/// Decides. The first failing check gives the code.
pub(super) fn decide(
    request: &Request<'_>,
    apps: &Apps,
    circumstances: Circumstances,
) -> Result<Granted, Refused> {
    let refuse = |code| Err(Refused { code });
    if circumstances.is_draining {
        return refuse(CloseCode::Draining);
    }
    let protocol = protocol(request.query, circumstances.strict).map_err(|code| Refused { code })?;
    let key = percent_decode_str(request.key).decode_utf8().unwrap_or_default();
    let Some(app) = apps.by_key(&key) else {
        return refuse(CloseCode::NoSuchApp);
    };
    check_app(app, request).map_err(|code| Refused { code })?;
    let Some(admission) = app.admit() else {
        return refuse(CloseCode::OverQuota);
    };
    if circumstances.is_full {
        return refuse(CloseCode::OverCapacity);
    }
    Ok(Granted { admission, protocol })
}

fn check_app(app: &Arc<App>, request: &Request<'_>) -> Result<(), CloseCode> {
    if !app.config.enabled {
        return Err(CloseCode::AppDisabled);
    }
    if app.config.tls_only && !request.is_tls {
        return Err(CloseCode::TlsOnly);
    }
    if !app.allows_origin(request.origin) {
        return Err(CloseCode::OriginNotAllowed);
    }
    Ok(())
}

fn protocol(query: &str, strict: bool) -> Result<u8, CloseCode> {
    let value = |name: &str| {
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next()
    };
    let protocol = match value("protocol") {
        None if strict => return Err(CloseCode::NoProtocol),
        // What is not said is taken for what everybody speaks.
        None => *PROTOCOL_VERSIONS.end(),
        Some(text) => {
            let version = text
                .parse()
                .ok()
                .filter(|version| PROTOCOL_VERSIONS.contains(version));
            version.ok_or(CloseCode::UnsupportedProtocol)?
        }
    };
    let is_bad_version = |version: &str| {
        let numbers = version.split(['-', '+']).next().unwrap_or_default();
        !numbers
            .split('.')
            .all(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    if strict && value("version").is_some_and(is_bad_version) {
        return Err(CloseCode::BadVersion);
    }
    Ok(protocol)
}
