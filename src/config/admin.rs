//! Settings of the admin listener.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::Network;

/// The listener for operators: health, readiness, metrics, and what they have the node do. It knows no secrets, yet is
/// not meant for the public.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Whether to listen at all.
    pub enabled: bool,
    /// Address or name to listen on.
    pub host: String,
    /// Port to listen on. 0 lets the system choose.
    pub port: u16,
    /// Who may have the node drain or shed sockets, beside this machine's own addresses: networks such as `10.0.0.0/8`,
    /// or single addresses. To see health and metrics nobody needs to be named.
    pub actions_from: Vec<String>,
}

impl Default for AdminConfig {
    fn default() -> AdminConfig {
        AdminConfig {
            enabled: true,
            host: "127.0.0.1".into(),
            port: 9601,
            actions_from: Vec::new(),
        }
    }
}

impl AdminConfig {
    /// Whether somebody at this address may have the node do something.
    pub fn may_act(&self) -> impl Fn(IpAddr) -> bool + use<> {
        let networks: Vec<Network> = self
            .actions_from
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        move |from| {
            let from = from.to_canonical();
            from.is_loopback() || networks.iter().any(|network| network.contains(from))
        }
    }

    /// What is wrong with these settings: the key, and what to do.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let fault = |(index, text): (usize, &String)| {
            let fault = text.parse::<Network>().err()?;
            Some((format!("actions_from[{index}]"), fault.to_owned()))
        };
        self.actions_from.iter().enumerate().filter_map(fault).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_who_is_named_may_act() {
        let config = AdminConfig {
            actions_from: vec!["10.1.0.0/16".into(), "fd00::7".into()],
            ..AdminConfig::default()
        };
        let (named, nobody_else) = (config.may_act(), AdminConfig::default().may_act());
        for (from, may, may_by_default) in [
            ("127.0.0.1", true, true),
            ("127.9.9.9", true, true),
            ("::1", true, true),
            ("::ffff:127.0.0.1", true, true),
            ("10.1.2.3", true, false),
            ("::ffff:10.1.2.3", true, false),
            ("fd00::7", true, false),
            ("10.2.0.1", false, false),
            ("fd00::8", false, false),
        ] {
            let address = from.parse().expect("an address");
            assert_eq!(
                (named(address), nobody_else(address)),
                (may, may_by_default),
                "{from}"
            );
        }
    }
}
