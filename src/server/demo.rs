//! The demo page of development mode: two tabs see each other, a button triggers an event through the HTTP API.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

/// Path, content type and text of everything there is.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("demo/index.html")),
    (
        "/demo/demo.js",
        "text/javascript; charset=utf-8",
        include_str!("demo/demo.js"),
    ),
    (
        "/demo/style.css",
        "text/css; charset=utf-8",
        include_str!("demo/style.css"),
    ),
    (
        "/demo/pusher.min.js",
        "text/javascript; charset=utf-8",
        include_str!("demo/pusher.min.js"),
    ),
];

/// The file at this path, if there is one.
pub(super) fn page(path: &str) -> Option<Response<Full<Bytes>>> {
    let (_, content_type, text) = FILES.iter().find(|(at, ..)| *at == path)?;
    let mut response = Response::new(Full::from(*text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Some(response)
}
