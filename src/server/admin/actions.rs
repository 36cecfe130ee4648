//! What operators may have a node do over the admin port: `POST /drain` and `POST /shed?percent=N&over_s=S`.
//!
//! Who may reach the port is not asked for a name, so two things stand in the way of others. Only addresses that
//! `admin.actions_from` names are heard, this machine's own unless it says otherwise: to be let see the metrics is not
//! to be let empty a node. And no request that a page in a browser makes: those carry an `Origin`, and a page of
//! anybody can have an operator's browser send one to loopback. Nor a webhook: whoever may set its URL may not say what
//! a node is to do.
//!
//! Not here: how it is done (`server/drain`).

use hyper::HeaderMap;
use hyper::header::ORIGIN;

use crate::app::KEY_HEADER;

/// The longest time to shed over. Seconds.
const OVER_S_MAX: u32 = 3_600;

/// One thing that a node can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send all sockets away, and take none any more.
    Drain,
    /// Send some of the sockets away.
    Shed {
        /// How many of a hundred.
        percent: u8,
        /// Over which time; as a drain's if it is not said. Seconds.
        over_s: Option<u32>,
    },
}

impl Action {
    /// What is asked for at a path, or what is wrong about it. `None`: nothing is done there.
    pub(super) fn asked(path: &str, query: Option<&str>) -> Option<Result<Action, String>> {
        let query = query.unwrap_or_default();
        match path {
            "/drain" if query.is_empty() => Some(Ok(Action::Drain)),
            "/drain" => Some(Err(
                "/drain takes no parameters: its times are drain.delay_s and drain.drain_s of the configuration".into(),
            )),
            "/shed" => Some(shed(query)),
            _ => None,
        }
    }
}

fn shed(query: &str) -> Result<Action, String> {
    let (mut percent, mut over_s) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("percent", text) => percent = Some(number("percent", text, 1, 100)? as u8),
            ("over_s", text) => over_s = Some(number("over_s", text, 0, OVER_S_MAX)?),
            (name, _) => {
                return Err(format!(
                    "{name:?} is no parameter of /shed: it takes percent and over_s"
                ));
            }
        }
    }
    let Some(percent) = percent else {
        return Err(
            "percent is missing: POST /shed?percent=25&over_s=60 closes a quarter of the sockets over a minute".into(),
        );
    };
    Ok(Action::Shed { percent, over_s })
}

fn number(name: &str, text: &str, min: u32, max: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("{name} is {text:?}, and has to be a whole number from {min} to {max}"))
}

/// Whether a page in a browser makes this request.
pub(super) fn is_of_a_page(headers: &HeaderMap) -> bool {
    let is_fetched = headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    headers.contains_key(ORIGIN) || is_fetched
}

/// Whether this is a webhook, of this server or another one: where it goes is for an app to say, and an app does not say
/// what a node is to do.
pub(super) fn is_a_webhook(headers: &HeaderMap) -> bool {
    headers.contains_key(KEY_HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood_or_told_how_to_ask() {
        let shed = |percent, over_s| Some(Ok(Action::Shed { percent, over_s }));
        let wrong = |text: &str| Some(Err(text.to_owned()));
        for (path, query, expected) in [
            ("/drain", None, Some(Ok(Action::Drain))),
            ("/drain", Some(""), Some(Ok(Action::Drain))),
            (
                "/drain",
                Some("over_s=5"),
                wrong(
                    "/drain takes no parameters: its times are drain.delay_s and drain.drain_s of the configuration",
                ),
            ),
            ("/shed", Some("percent=25"), shed(25, None)),
            ("/shed", Some("over_s=60&percent=100"), shed(100, Some(60))),
            ("/shed", Some("percent=1&over_s=0"), shed(1, Some(0))),
            (
                "/shed",
                None,
                wrong(
                    "percent is missing: POST /shed?percent=25&over_s=60 closes a quarter of the sockets over a minute",
                ),
            ),
            (
                "/shed",
                Some("percent=0"),
                wrong("percent is \"0\", and has to be a whole number from 1 to 100"),
            ),
            (
                "/shed",
                Some("percent=101"),
                wrong("percent is \"101\", and has to be a whole number from 1 to 100"),
            ),
            (
                "/shed",
                Some("percent=1&over_s=3601"),
                wrong("over_s is \"3601\", and has to be a whole number from 0 to 3600"),
            ),
            (
                "/shed",
                Some("percent"),
                wrong("percent is \"\", and has to be a whole number from 1 to 100"),
            ),
            (
                "/shed",
                Some("percentage=5"),
                wrong("\"percentage\" is no parameter of /shed: it takes percent and over_s"),
            ),
            ("/ready", Some("percent=5"), None),
            ("/shed/", Some("percent=5"), None),
        ] {
            assert_eq!(Action::asked(path, query), expected, "{path} {query:?}");
        }
    }
}
