//! What holds for one channel of a configured app, and where that is written: for a person, or as JSON.

use std::fmt;

use serde_json::{Map, Value, json};

use super::Config;
use super::path::KeyPath;
use crate::app::{AppConfig, Explanation};
use crate::protocol::{ChannelKind, ChannelName};

/// Why a channel is treated as it is.
#[derive(Debug)]
pub struct ChannelReport {
    app_id: String,
    /// Where the app stands; none for the demo app.
    app: Option<KeyPath>,
    channel: ChannelName,
    explanation: Explanation,
}

impl Config {
    /// Explains a channel of the app with this id, which may be left out where there is only one.
    ///
    /// # Errors
    /// There is no such app or channel, or it is not clear which app is meant; for a person.
    pub fn explain(&self, app_id: Option<&str>, channel: &str) -> Result<ChannelReport, String> {
        let demo = self.development().then(AppConfig::demo);
        let apps = self.apps.iter().chain(&demo).enumerate();
        let asked = apps.filter(|(_, app)| app_id.is_none_or(|id| app.id == id));
        let (index, app) = match asked.collect::<Vec<_>>().as_slice() {
            [app] => *app,
            found => return Err(self.no_such_app(app_id, found.is_empty())),
        };
        let channel =
            ChannelName::parse(channel, app.channel_name_length_max).map_err(|error| error.to_string())?;
        Ok(ChannelReport {
            app_id: app.id.clone(),
            app: demo.is_none().then(|| KeyPath::new("apps").index(index)),
            explanation: app.explain(&channel, &app.endpoint_names()),
            channel,
        })
    }

    fn no_such_app(&self, asked: Option<&str>, there_is_none: bool) -> String {
        let ids: Vec<_> = self.apps.iter().map(|app| app.id.as_str()).collect();
        let mut text = match asked {
            Some(id) => format!("there is no app with the id {id} in the configuration"),
            None if there_is_none => "there is no app in the configuration".to_owned(),
            None => "there are several apps: say which one is meant by `--app`".to_owned(),
        };
        if !ids.is_empty() {
            text += &format!(" (there are: {})", ids.join(", "));
        }
        if self.store.is_on() {
            text += "; those of the store are not looked at";
        }
        text
    }
}

impl ChannelReport {
    /// The path of the rule that counts, and its pattern.
    fn rule(&self) -> Option<(KeyPath, &str)> {
        let (index, pattern) = self.explanation.rule.as_ref()?;
        let app = self.app.clone().unwrap_or_default();
        Some((app.key("channels").index(*index), pattern))
    }

    /// The path of what says so.
    fn place(&self, setting: &str, is_of_rule: bool) -> String {
        match (self.rule(), &self.app) {
            (Some((rule, _)), _) if is_of_rule => rule.key(setting).to_string(),
            (_, Some(app)) => app.key(setting).to_string(),
            (_, None) => "the demo app".to_owned(),
        }
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let settings: Map<String, Value> = self
            .explanation
            .settings
            .iter()
            .map(|line| {
                let explained = json!({
                    "value": line.value,
                    "from": self.place(&line.setting, line.is_of_rule),
                    "concerns": line.concerns,
                });
                (line.setting.clone(), explained)
            })
            .collect();
        json!({
            "app": self.app_id,
            "channel": self.channel.as_str(),
            "kind": words(self.channel.kind()),
            "rule": self.rule().map(|(path, pattern)| json!({"path": path.as_str(), "pattern": pattern})),
            "settings": settings,
        })
    }
}

impl fmt::Display for ChannelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = words(self.channel.kind()).join(", ");
        writeln!(f, "channel {} of app {}: {kind}", self.channel, self.app_id)?;
        match self.rule() {
            Some((path, pattern)) => writeln!(f, "rule: {path}, `{pattern}`")?,
            None => writeln!(f, "rule: none fits, so all is as the app has it")?,
        }
        for line in &self.explanation.settings {
            let value = match &line.value {
                Value::Array(names) if names.is_empty() => "none".to_owned(),
                Value::Array(names) => names
                    .iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
                value => value.to_string(),
            };
            let place = self.place(&line.setting, line.is_of_rule);
            let note = if line.concerns {
                ""
            } else {
                " (means nothing for this kind of channel)"
            };
            write!(f, "\n  {:<26} {value:<10} {place}{note}", line.setting)?;
        }
        Ok(())
    }
}

/// What kind of channel it is, in words.
fn words(kind: ChannelKind) -> Vec<&'static str> {
    let words = [
        (kind.is_user(), "of one user"),
        (kind.is_presence(), "presence"),
        (kind.needs_auth() && !kind.is_presence(), "private"),
        (!kind.needs_auth() && !kind.is_user(), "public"),
        (kind.is_encrypted(), "encrypted"),
        (kind.is_cache(), "cache"),
    ];
    words
        .into_iter()
        .filter(|(is_so, _)| *is_so)
        .map(|(_, word)| word)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(apps: Value) -> Config {
        serde_json::from_value(json!({ "apps": apps })).expect("apps")
    }

    #[test]
    fn a_channel_is_explained_by_where_it_is_written() {
        let config = config(json!([{"id": "1"}, {"id": "2", "cache_ttl_s": 5, "channels": [
            {"pattern": "cache-*", "event_data_bytes_max": 7},
        ]}]));
        let report = config.explain(Some("2"), "cache-a").expect("it is there");
        let text = report.to_string();
        for line in [
            "channel cache-a of app 2: public, cache\n",
            "rule: apps[1].channels[0], `cache-*`\n",
            "\n  event_data_bytes_max       7          apps[1].channels[0].event_data_bytes_max\n",
            "\n  cache_ttl_s                5          apps[1].cache_ttl_s\n",
            "\n  presence_members_max       100        apps[1].presence_members_max (means nothing",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let json = report.to_json();
        assert_eq!(
            json["rule"],
            json!({"path": "apps[1].channels[0]", "pattern": "cache-*"})
        );
        assert_eq!(
            json["settings"]["event_data_bytes_max"],
            json!({"value": 7, "from": "apps[1].channels[0].event_data_bytes_max", "concerns": true})
        );
        let other = config
            .explain(Some("1"), "presence-a")
            .expect("it is there")
            .to_json();
        assert_eq!(
            (&other["rule"], &other["kind"]),
            (&Value::Null, &json!(["presence"]))
        );
    }

    #[test]
    fn it_must_be_clear_which_channel_is_meant() {
        let two = config(json!([{"id": "1"}, {"id": "2"}]));
        for (app, channel, part) in [
            (
                None,
                "a",
                "several apps: say which one is meant by `--app` (there are: 1, 2)",
            ),
            (Some("3"), "a", "no app with the id 3"),
            (Some("1"), "a b", "' '"),
        ] {
            let error = two.explain(app, channel).expect_err("it is not");
            assert!(error.contains(part), "{error}");
        }
        let demo = Config::default().explain(None, "a").expect("the demo app");
        assert!(demo.to_string().contains("the demo app"), "{demo}");
    }
}
