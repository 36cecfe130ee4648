//! What holds for a channel and where it is written, for a person who asks.

use serde_json::{Map, Value};

use super::{ChannelRule, concerns};
use crate::app::config::AppConfig;
use crate::app::pattern;
use crate::protocol::ChannelName;

/// Why a channel is treated as it is: for a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The rule that counts, by its place in `channels` and its pattern.
    pub rule: Option<(usize, String)>,
    /// Every setting that a rule may change.
    pub settings: Vec<Explained>,
}

/// One setting of a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Its name.
    pub setting: String,
    /// What holds.
    pub value: Value,
    /// Whether the rule says so, and not the app.
    pub is_of_rule: bool,
    /// Whether it means anything on channels of this kind.
    pub concerns: bool,
}

impl AppConfig {
    /// What holds for a channel, and where it is written. `endpoints` are the names of the app's webhook endpoints.
    pub fn explain(&self, name: &ChannelName, endpoints: &[String]) -> Explanation {
        let rules = self.channels.iter().enumerate();
        let mut fitting = rules.filter(|(_, rule)| pattern::matches(&rule.pattern, name.as_str()));
        let rule = fitting.next();
        let mut said = rule.map(|(_, rule)| rule.says()).unwrap_or_default();
        let own = serde_json::to_value(self).unwrap_or_default();
        // The settings of a rule have the names of the app's; there, `webhooks` are the endpoints.
        let all = serde_json::to_value(ChannelRule::default()).unwrap_or_default();
        let settings = all.as_object().into_iter().flat_map(Map::keys);
        let explain = |setting: &String| {
            let of_rule = said.remove(setting);
            Explained {
                is_of_rule: of_rule.is_some(),
                value: of_rule.unwrap_or_else(|| match setting.as_str() {
                    "webhooks" => endpoints.into(),
                    _ => own[setting].clone(),
                }),
                concerns: concerns(setting, name.kind()),
                setting: setting.clone(),
            }
        };
        Explanation {
            settings: settings
                .filter(|setting| *setting != "pattern")
                .map(explain)
                .collect(),
            rule: rule.map(|(index, rule)| (index, rule.pattern.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(channels: Value) -> AppConfig {
        AppConfig {
            channels: serde_json::from_value(channels).expect("rules"),
            ..AppConfig::demo()
        }
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).expect("a legal name")
    }

    #[test]
    fn an_explanation_says_what_holds_and_where_it_is_written() {
        let app = app(json!([{"pattern": "x"}, {"pattern": "presence-*", "presence_members_max": 7}]));
        let explained = app.explain(&channel("presence-a"), &["one".to_owned()]);
        assert_eq!(explained.rule, Some((1, "presence-*".to_owned())));
        let lines: Vec<_> = explained
            .settings
            .iter()
            .map(|line| {
                (
                    line.setting.as_str(),
                    line.value.to_string(),
                    line.is_of_rule,
                    line.concerns,
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                ("cache_ttl_s", "1800".into(), false, false),
                ("client_events", "true".into(), false, true),
                ("client_events_per_s", "10".into(), false, true),
                ("event_data_bytes_max", "10240".into(), false, true),
                ("presence_members_max", "7".into(), true, true),
                ("subscription_count_events", "true".into(), false, false),
                ("webhooks", r#"["one"]"#.into(), false, true),
            ]
        );
        assert_eq!(app.explain(&channel("y"), &[]).rule, None);
    }
}
