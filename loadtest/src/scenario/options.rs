//! Settings that several scenarios have, or share the form of.

use std::time::Duration;

use clap::Args;

use crate::swarm::crowd::Audience;
use crate::target::ChannelKind;

/// Who is there, and for what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Attendance {
    /// Clients.
    #[arg(long, env = "NUM_CLIENTS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
    /// Channels that they share.
    #[arg(long, env = "NUM_CHANNELS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: u32,
    /// To how many of them each client subscribes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    per_client: u32,
    /// Public, private or presence channels.
    #[arg(long, value_enum, default_value_t = ChannelKind::Public)]
    pub(crate) kind: ChannelKind,
}

impl Attendance {
    pub(crate) fn audience(&self) -> Audience {
        Audience {
            clients: self.clients,
            channels: self.channels,
            per_client: self.per_client,
        }
    }
}

/// A time as an operator gives it: seconds, `12` or `12s`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    let seconds = number.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// A part of all, 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

/// Something per second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("a rate is a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_or_refused() {
        assert_eq!(seconds("12s"), Ok(Duration::from_secs(12)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err());
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("1.1").is_err() && share("nan").is_err());
        assert_eq!(rate("4000"), Ok(4000.0));
        assert!(rate("0").is_err() && rate("inf").is_err());
    }
}
