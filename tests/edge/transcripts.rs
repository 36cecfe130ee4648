//! Conversations as data: plays `tests/transcripts/*.json`, each on a server of its own, and tells the step at which
//! one went otherwise.
//!
//! A transcript is `{"about", "app"?, "talk"}`: `app` holds settings of the app, `talk` steps of one key each.
//!
//! | step | meaning |
//! | --- | --- |
//! | `"NAME connects": PATH` | a client connects and is greeted; `{NAME}` is its socket id from then on |
//! | `"NAME opens": PATH` | the same, but the greeting, if it is one, is still to be heard |
//! | `"NAME says": MESSAGE` | a message, or any text if it is a string |
//! | `"NAME hears": MESSAGE` | the next message, to the last key |
//! | `"NAME is closed": [CODE, REASON]` | the server closes it |
//! | `"NAME leaves": GOODBYE` | it closes; what is said to it is ignored |
//! | `"back end asks": [METHOD, PATH, BODY?]` | a signed call, with a path below `/apps/ID` |
//! | `"back end hears": [STATUS, BODY]` | its answer |
//!
//! Inside: `{"$json": X}` is the JSON text of X as a string; `{"$sign": TEXT}` is `KEY:HEX` over the text (in a list,
//! texts and JSON are joined by colons); `{"$any": WHY}` is heard whatever it is. When the talk is over nobody may have anything
//! left to hear.

use std::collections::HashMap;
use std::path::Path;

use fanwire::app::AppConfig;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::client::{Client, Heard, data};
use crate::support::http::{Answer, Backend};
use crate::support::server::{KEY, SECRET, TestServer, app};
use crate::support::sign;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transcript {
    about: String,
    #[serde(default)]
    app: Map<String, Value>,
    talk: Vec<Map<String, Value>>,
}

impl Transcript {
    /// The app of all tests, with what this transcript wants otherwise.
    fn app(&self) -> AppConfig {
        let mut settings = serde_json::to_value(app()).expect("settings are JSON");
        for (key, value) in &self.app {
            settings[key] = value.clone();
        }
        settings["secret"] = SECRET.into();
        serde_json::from_value(settings).expect("settings of an app")
    }
}

/// Who takes part, and what they are in the midst of.
struct Stage {
    server: TestServer,
    clients: HashMap<String, Client>,
    backend: Backend,
    answer: Option<Answer>,
}

impl Stage {
    /// Socket ids in place of `{NAME}`.
    fn filled(&self, text: &str) -> String {
        self.clients.iter().fold(text.to_owned(), |text, (name, client)| {
            text.replace(&format!("{{{name}}}"), &client.socket_id)
        })
    }

    /// What is really said where the transcript says this.
    fn spoken(&self, written: &Value) -> Value {
        match written {
            Value::String(text) => self.filled(text).into(),
            Value::Array(items) => items.iter().map(|item| self.spoken(item)).collect(),
            Value::Object(keys) => {
                if let Some(inner) = keys.get("$json") {
                    return self.spoken(inner).to_string().into();
                }
                if let Some(signed) = keys.get("$sign") {
                    return sign::auth(KEY, SECRET, &self.joined(signed)).into();
                }
                keys.iter()
                    .map(|(key, value)| (key.clone(), self.spoken(value)))
                    .collect()
            }
            other => other.clone(),
        }
    }

    fn joined(&self, signed: &Value) -> String {
        let text = |part: &Value| match self.spoken(part) {
            Value::String(text) => text,
            json => json.to_string(),
        };
        match signed {
            Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join(":"),
            part => text(part),
        }
    }

    /// Whether what was heard is what is written.
    fn is_as_written(&self, heard: &Value, written: &Value) -> bool {
        match written {
            Value::Object(keys) if keys.contains_key("$any") => true,
            Value::Object(keys) if keys.contains_key("$json") => {
                let inner = heard.as_str().and_then(|text| serde_json::from_str(text).ok());
                inner.is_some_and(|inner: Value| self.is_as_written(&inner, &keys["$json"]))
            }
            Value::Object(keys) => heard.as_object().is_some_and(|heard| {
                heard.len() == keys.len()
                    && keys.iter().all(|(key, value)| {
                        heard
                            .get(key)
                            .is_some_and(|heard| self.is_as_written(heard, value))
                    })
            }),
            Value::Array(items) => heard.as_array().is_some_and(|heard| {
                heard.len() == items.len()
                    && heard
                        .iter()
                        .zip(items)
                        .all(|(heard, item)| self.is_as_written(heard, item))
            }),
            Value::String(text) => heard.as_str() == Some(&self.filled(text)),
            other => heard == other,
        }
    }

    fn client(&mut self, name: &str) -> &mut Client {
        self.clients
            .get_mut(name)
            .unwrap_or_else(|| panic!("{name} is not connected"))
    }

    async fn play(&mut self, step: &str, written: &Value) {
        let (name, what) = match step.strip_prefix("back end ") {
            Some(what) => ("back end", what),
            None => step.split_once(' ').expect("NAME does something"),
        };
        match (name, what) {
            ("back end", "asks") => {
                let body = written
                    .get(2)
                    .map_or(String::new(), |body| self.spoken(body).to_string());
                let method = written[0].as_str().expect("a method");
                let path = self.filled(written[1].as_str().expect("a path"));
                let call = self.backend.call(method, &path, &body);
                self.backend.http.write(call).await;
                self.answer = self.backend.http.answer().await;
            }
            ("back end", "hears") => {
                let answer = self.answer.take().expect("an answer");
                let heard = json!([answer.status, answer.json()]);
                assert!(self.is_as_written(&heard, written), "the back end heard {heard}");
            }
            (_, "connects" | "opens") => {
                let path = written.as_str().expect("a path");
                let client = match what {
                    "opens" => Client::open(self.server.address, path).await,
                    _ => Client::connect(self.server.address, path).await,
                };
                self.clients.insert(name.to_owned(), client);
            }
            (_, "says") => match self.spoken(written) {
                Value::String(text) => self.client(name).say_text(&text).await,
                message => self.client(name).say(&message).await,
            },
            (_, "hears") => match self.client(name).hear().await {
                Heard::Message(heard) => {
                    assert!(self.is_as_written(&heard, written), "{name} heard {heard:#}");
                    if heard["event"] == "pusher:connection_established" {
                        self.client(name).socket_id =
                            data(&heard)["socket_id"].as_str().expect("an id").to_owned();
                    }
                }
                other => panic!("{name} heard {other:?}"),
            },
            (_, "is closed") => {
                let (code, reason) = self.client(name).expect_close().await;
                let heard = json!([code, reason]);
                assert!(
                    self.is_as_written(&heard, written),
                    "{name} was closed with {heard}"
                );
                self.clients.remove(name);
            }
            (_, "leaves") => {
                self.clients
                    .remove(name)
                    .expect("somebody who is there")
                    .close()
                    .await
            }
            _ => panic!("nobody knows what it means that {step}"),
        }
    }
}

async fn play(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a file");
    let transcript: Transcript =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!transcript.about.is_empty());
    let server = TestServer::with_app(transcript.app()).await;
    let mut stage = Stage {
        clients: HashMap::new(),
        backend: server.backend().await,
        answer: None,
        server,
    };
    for (number, step) in transcript.talk.iter().enumerate() {
        assert_eq!(step.len(), 1, "a step has one key: {step:?}");
        for (what, written) in step {
            // libtest shows the last of these beside a failure.
            log(&format!(
                "{} step {}: {what} {written}",
                path.display(),
                number + 1
            ));
            stage.play(what, written).await;
        }
    }
    for (name, client) in &mut stage.clients {
        log(&format!("{}: nothing is left for {name}", path.display()));
        client.expect_silence().await;
    }
}

#[expect(clippy::print_stdout, reason = "libtest shows it beside a failure")]
fn log(line: &str) {
    println!("{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transcript_goes_as_it_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    for path in paths {
        play(&path).await;
    }
}
