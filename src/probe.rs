//! `fanwire health`: asks a server that runs how it is. For the health check of a container, in which there is nothing but
//! this program, and for whoever has no `curl` at hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, bail};
use fanwire::config::AdminConfig;
use hyper::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// From the connection to the end of the answer. Below what container engines wait for a health check.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// An answer is read so far. `/ready` with its causes and its cluster takes some hundred bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
const HEADERS_MAX: usize = 32;

/// Where the admin port of this configuration is asked: `/live`, or `/ready`.
///
/// # Errors
/// There is no admin port, or nobody can know which one it is.
pub(crate) fn url(admin: &AdminConfig, ready: bool) -> anyhow::Result<Uri> {
    if !admin.enabled {
        bail!("the admin port is switched off (`admin.enabled`): name by --url where to ask instead");
    }
    if admin.port == 0 {
        bail!("`admin.port` is 0, so the system chose it: name by --url where to ask");
    }
    let host = admin.host.trim_start_matches('[').trim_end_matches(']');
    // Who listens everywhere is asked on this machine.
    let host = match host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    };
    let path = if ready { "/ready" } else { "/live" };
    let url = format!("http://{host}:{}{path}", admin.port);
    url.parse().with_context(|| format!("cannot ask {url}"))
}

/// What is answered there, if that is a yes.
///
/// # Errors
/// A no, or none at all in time.
pub(crate) async fn ask(url: &Uri) -> anyhow::Result<String> {
    match timeout(ANSWER_MAX, answer(url)).await {
        Ok(answer) => answer,
        Err(_) => bail!("{url} has not answered within {} s", ANSWER_MAX.as_secs()),
    }
}

async fn answer(url: &Uri) -> anyhow::Result<String> {
    let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        bail!("{url} is not of the form http://HOST:PORT/PATH");
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await;
    let mut stream = stream.with_context(|| format!("nobody is at {url}"))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await
    };
    talk.await.with_context(|| format!("{url} does not answer"))?;

    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let (Ok(httparse::Status::Complete(length)), Some(code)) = (head.parse(&bytes), head.code) else {
        bail!("{url} does not answer in HTTP");
    };
    let body = String::from_utf8_lossy(&bytes[length..]).trim().to_owned();
    match code {
        200..=299 => Ok(body),
        _ => bail!("{url} says {code}: {body}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_where_it_listens() {
        let table = [
            ("127.0.0.1", "http://127.0.0.1:9601/live"),
            ("0.0.0.0", "http://127.0.0.1:9601/live"),
            ("::", "http://[::1]:9601/live"),
            ("[::]", "http://[::1]:9601/live"),
            ("fd00::1", "http://[fd00::1]:9601/live"),
            ("localhost", "http://localhost:9601/live"),
        ];
        for (host, expected) in table {
            let admin = AdminConfig {
                host: host.into(),
                ..AdminConfig::default()
            };
            assert_eq!(url(&admin, false).expect("an address").to_string(), expected);
        }
        let ready = url(&AdminConfig::default(), true).expect("an address");
        assert_eq!(ready.path(), "/ready");
    }

    #[test]
    fn where_nobody_can_know_the_port_a_url_is_asked_for() {
        let off = AdminConfig {
            enabled: false,
            ..AdminConfig::default()
        };
        let any = AdminConfig {
            port: 0,
            ..AdminConfig::default()
        };
        for admin in [off, any] {
            let error = url(&admin, false).expect_err("there is none").to_string();
            assert!(error.contains("--url"), "{error}");
        }
    }
}
