//! All endpoints together: what they share is shared as promised, and every figure is the truth whatever happens.

use proptest::prelude::*;
use serde_json::json;

use super::shares::Share;
use super::*;
use crate::app::Settings;
use crate::metrics::Metrics;
use crate::protocol::ChannelName;

/// An app with so many endpoints, named from 1 on.
fn app(id: &str, endpoints: usize) -> Arc<App> {
    let webhooks = vec![json!({"url": "http://a.example/", "concurrency": 3}); endpoints];
    let config = json!({"id": id, "key": id, "secret": "s", "webhooks": webhooks});
    let config = serde_json::from_value(config).expect("an app's settings");
    Arc::new(App::new(Settings::new(config).expect("they are in order")))
}

fn target(app: &App, name: &str) -> Arc<WebhookEndpoint> {
    app.settings()
        .webhooks
        .find(name)
        .expect("it is configured")
        .clone()
}

struct Stage {
    dispatch: Dispatch,
    metrics: Metrics,
    now: Instant,
}

impl Stage {
    fn new(config: &WebhooksConfig) -> Stage {
        Stage {
            dispatch: Dispatch::new(config),
            metrics: Metrics::new("", 0).expect("no prefix is a good one"),
            now: Instant::now(),
        }
    }

    fn push(&mut self, app: &Arc<App>, endpoint: &str, channel: &str) -> bool {
        let event = Event {
            channel: ChannelName::parse(channel, 200).expect("a legal name"),
            json: "{}".into(),
            id: 0,
            time_ms: 0,
            expires: self.now + Duration::from_secs(300),
            ticket: None,
        };
        let metrics = || self.metrics.webhooks(app.id());
        self.dispatch
            .push(app, &target(app, endpoint), metrics, event, self.now)
    }

    fn take(&mut self) -> Option<Attempt> {
        self.dispatch.take(self.now)
    }

    fn take_all(&mut self) -> Vec<Attempt> {
        std::iter::from_fn(|| self.take()).collect()
    }

    fn settle(&mut self, attempt: Attempt, is_delivered: bool) -> Option<Letter> {
        let outcome = Outcome {
            status: Some(if is_delivered { 200 } else { 500 }),
            error: (!is_delivered).then(|| "answered 500".to_owned()),
            took_ms: 1,
            time_ms: 0,
        };
        self.dispatch.settle(attempt, &outcome, 0.5, self.now)
    }

    /// What is kept beside the endpoints is what they come to.
    fn check(&self, under_way: usize) {
        let Dispatch { endpoints, lines, .. } = &self.dispatch;
        let sum = |of: fn(&Endpoint) -> usize| endpoints.values().map(of).sum::<usize>();
        let all = self.dispatch.shares.all();
        assert_eq!(all.events, sum(|it| it.queue.events()));
        assert_eq!(all.bytes, sum(|it| it.queue.bytes()));
        assert_eq!(all.under_way, under_way);
        for app_id in endpoints.values().map(|it| &it.app_id) {
            let own = endpoints.values().filter(|it| it.app_id == *app_id);
            let mut sums = Share::default();
            for endpoint in own {
                sums.events += endpoint.queue.events();
                sums.bytes += endpoint.queue.bytes();
                sums.under_way += endpoint.queue.under_way();
            }
            let share = self.dispatch.shares.of_app(app_id);
            assert_eq!((share.events, share.bytes), (sums.events, sums.bytes));
            // What belonged to an endpoint that is gone counts until it is back.
            assert!(share.under_way >= sums.under_way);
        }
        let failing = sum(|it| if it.is_failing { it.queue.under_way() } else { 0 });
        assert_eq!(self.dispatch.failing_under_way, failing);
        assert!(failing <= under_way && under_way <= self.dispatch.connections_max);
        for (id, endpoint) in endpoints {
            let due = endpoint.queue.due(&endpoint.terms);
            assert_eq!(endpoint.due, due);
            let line = usize::from(endpoint.is_failing);
            for (index, line_up) in lines.iter().enumerate() {
                let is_there = line_up.iter().any(|(_, known)| known == id);
                assert_eq!(is_there, due.is_some() && index == line);
            }
            assert_eq!(endpoint.held.is_some(), endpoint.queue.events() > 0);
        }
        assert_eq!(
            lines.iter().map(BTreeSet::len).sum::<usize>(),
            sum(|it| it.due.iter().count())
        );
        let named: usize = self.dispatch.names.values().map(Vec::len).sum();
        assert_eq!(named, endpoints.len());
    }
}

#[test]
fn endpoints_that_fail_leave_half_of_the_connections_to_the_others() {
    let mut stage = Stage::new(&WebhooksConfig {
        connections_max: 8,
        ..WebhooksConfig::default()
    });
    let good = app("good", 1);
    let bad: Vec<_> = (1..=8).map(|n| app(&n.to_string(), 1)).collect();
    for app in &bad {
        stage.push(app, "1", "a");
    }
    for attempt in stage.take_all() {
        stage.settle(attempt, false);
    }
    for app in &bad {
        for channel in ["b", "c"] {
            stage.push(app, "1", channel);
        }
    }
    stage.now += Duration::from_secs(2);
    let failing = stage.take_all();
    assert_eq!(failing.len(), 4);
    assert_eq!(
        stage.dispatch.due(),
        None,
        "nothing to be done before one of them comes back"
    );
    for channel in ["a", "b", "c", "d"] {
        stage.push(&good, "1", channel);
    }
    assert_eq!(stage.take_all().len(), 2, "as many as it may always have");
    stage.check(6);
}

#[test]
fn an_app_that_is_slow_to_answer_leaves_connections_to_the_others() {
    let mut stage = Stage::new(&WebhooksConfig {
        connections_max: 16,
        ..WebhooksConfig::default()
    });
    let apps = [app("slow", 10), app("other", 10)];
    let push = |stage: &mut Stage, app: usize| {
        for endpoint in 1..=10 {
            for channel in ["a", "b", "c"] {
                stage.push(&apps[app], &endpoint.to_string(), channel);
            }
        }
    };
    push(&mut stage, 0);
    let mut slow = stage.take_all();
    assert_eq!(slow.len(), 12, "alone it gets all but a quarter");
    push(&mut stage, 1);
    let other = stage.take_all();
    assert_eq!(other.len(), 4);
    assert!(other.iter().all(|attempt| attempt.app.id() == "other"));
    assert_eq!(stage.dispatch.due(), None);
    // What comes back goes to the one that has less than its share, however long the other has been waiting.
    for attempt in other {
        stage.settle(attempt, true);
    }
    let other = stage.take_all();
    assert!(other.len() == 4 && other.iter().all(|attempt| attempt.app.id() == "other"));
    for attempt in slow.drain(..8) {
        stage.settle(attempt, true);
    }
    let next = stage.take_all();
    assert_eq!(next.len(), 4, "a quarter stays free for others still");
    stage.check(12);
}

#[test]
fn an_app_leaves_half_of_the_room_to_the_others_however_many_endpoints_it_has() {
    let mut stage = Stage::new(&WebhooksConfig {
        endpoint_events_max: 3,
        queue_events_max: 10,
        ..WebhooksConfig::default()
    });
    let [flood, other] = [app("flood", 4), app("other", 1)];
    let fits = |stage: &mut Stage, endpoint| (0..4).filter(|_| stage.push(&flood, endpoint, "a")).count();
    let each = ["1", "2", "3", "4"].map(|endpoint| fits(&mut stage, endpoint));
    assert_eq!(each, [3, 2, 0, 0]);
    assert_eq!(
        stage.metrics.webhooks("flood").dropped(WebhookDrop::Full).get(),
        11
    );
    assert!(stage.push(&other, "1", "a"));
    stage.check(0);
}

#[test]
fn the_bounds_are_of_each_endpoint_and_of_all() {
    let apps = ["1", "2", "3"].map(|id| app(id, 1));
    let mut stage = Stage::new(&WebhooksConfig {
        endpoint_events_max: 3,
        queue_events_max: 5,
        ..WebhooksConfig::default()
    });
    let fits = |stage: &mut Stage, app| (0..4).filter(|_| stage.push(app, "1", "a")).count();
    assert_eq!(apps.each_ref().map(|app| fits(&mut stage, app)), [3, 2, 0]);
    let dropped = ["1", "2", "3"].map(|id| stage.metrics.webhooks(id).dropped(WebhookDrop::Full).get());
    assert_eq!(dropped, [1, 2, 4]);
    let attempt = stage.take().expect("it is due");
    assert!(!stage.push(&apps[2], "1", "a"), "what is on its way counts");
    stage.settle(attempt, true);
    assert!(stage.push(&apps[2], "1", "a"));
    stage.check(0);
}

#[test]
fn endpoints_that_are_gone_are_forgotten_and_others_remembered() {
    let mut stage = Stage::new(&WebhooksConfig::default());
    let kept = app("kept", 1);
    for number in 0..1_000 {
        let gone = app(&number.to_string(), 1);
        for app in [&kept, &gone] {
            stage.push(app, "1", "a");
        }
        for attempt in stage.take_all() {
            stage.settle(attempt, true);
        }
    }
    assert!(
        stage.dispatch.endpoints.len() <= SWEEP_FIRST,
        "{}",
        stage.dispatch.endpoints.len()
    );
    let history = &stage.dispatch.find("kept", "1").expect("it is in use").history;
    assert_eq!(history.measured(), 128);
    stage.check(0);
}

#[test]
fn what_is_on_its_way_when_its_app_goes_is_settled_by_itself() {
    let mut stage = Stage::new(&WebhooksConfig::default());
    let app = app("1", 1);
    for channel in ["a", "b", "b"] {
        stage.push(&app, "1", channel);
    }
    let mut under_way = stage.take_all();
    assert_eq!(under_way.len(), 2);
    stage.dispatch.forget_app("1");
    let metrics = stage.metrics.webhooks("1");
    assert_eq!(metrics.dropped(WebhookDrop::Retired).get(), 1);
    // One with the same name comes before they are back.
    stage.push(&app, "1", "a");
    stage.check(2);
    assert!(stage.settle(under_way.remove(0), true).is_none());
    assert!(stage.settle(under_way.remove(0), false).is_none());
    stage.check(0);
    assert_eq!(metrics.delivered_total.get(), 1);
    assert_eq!(metrics.dropped(WebhookDrop::Retired).get(), 2);
    assert_eq!(stage.dispatch.events(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        app: usize,
        endpoint: usize,
        channel: u8,
    },
    Take,
    Settle {
        which: usize,
        is_delivered: bool,
    },
    Retire {
        which: usize,
    },
    Forget {
        app: usize,
    },
    Redeliver {
        which: usize,
    },
    Hurry,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2usize, 1..4usize, 0..3u8)
            .prop_map(|(app, endpoint, channel)| Step::Push { app, endpoint, channel }),
        8 => Just(Step::Take),
        8 => (any::<usize>(), any::<bool>())
            .prop_map(|(which, is_delivered)| Step::Settle { which, is_delivered }),
        1 => any::<usize>().prop_map(|which| Step::Retire { which }),
        1 => (0..2usize).prop_map(|app| Step::Forget { app }),
        1 => any::<usize>().prop_map(|which| Step::Redeliver { which }),
        1 => Just(Step::Hurry),
        3 => prop_oneof![0..3_000u64, 50_000..400_000u64].prop_map(Step::Wait),
    ]
}

#[test]
fn in_haste_nothing_waits_for_company_whenever_it_comes() {
    let batched = json!({"url": "http://a.example/", "batch": {"max_events": 9, "max_delay_ms": 60_000}});
    let config = json!({"id": "1", "key": "1", "secret": "s", "webhooks": [batched, batched]});
    let config = serde_json::from_value(config).expect("an app's settings");
    let app = Arc::new(App::new(Settings::new(config).expect("they are in order")));
    let mut stage = Stage::new(&WebhooksConfig::default());
    assert!(stage.push(&app, "1", "a"));
    assert!(stage.take().is_none(), "it waits for others");
    stage.dispatch.hurry(stage.now);
    assert!(stage.push(&app, "1", "b"));
    assert_eq!(stage.take().expect("both go").batch.events.len(), 2);
    // To an endpoint that was not known, and one whose settings change.
    assert!(stage.push(&app, "2", "a"));
    assert!(stage.take().is_some());
    let settings = app.settings().config.clone();
    app.set(Settings::new(settings).expect("they are in order"));
    assert!(stage.push(&app, "1", "c"));
    assert!(stage.take().is_some());
}

proptest! {
    #[test]
    fn every_figure_is_the_truth_whatever_happens(
        connections_max in 2..6usize,
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut stage = Stage::new(&WebhooksConfig {
            connections_max,
            endpoint_events_max: 10,
            queue_events_max: 30,
            ..WebhooksConfig::default()
        });
        let apps = [app("1", 3), app("2", 3)];
        let mut under_way: Vec<Attempt> = Vec::new();
        let mut dead: Vec<Letter> = Vec::new();
        for step in steps {
            match step {
                Step::Push { app, endpoint, channel } => {
                    stage.push(&apps[app], &endpoint.to_string(), &format!("c{channel}"));
                }
                Step::Take => {
                    let is_due = stage.dispatch.due().is_some_and(|due| due <= stage.now);
                    let taken = stage.take();
                    prop_assert_eq!(is_due, taken.is_some());
                    match taken {
                        Some(old) if old.batch.has_expired(stage.now) => {
                            dead.extend(stage.dispatch.expire(old, 0, stage.now));
                        }
                        taken => under_way.extend(taken),
                    }
                }
                Step::Settle { which, is_delivered } if !under_way.is_empty() => {
                    let attempt = under_way.swap_remove(which % under_way.len());
                    dead.extend(stage.settle(attempt, is_delivered));
                }
                Step::Retire { which } if !under_way.is_empty() => {
                    let attempt = under_way.swap_remove(which % under_way.len());
                    stage.dispatch.retire(attempt, stage.now);
                }
                Step::Forget { app } => stage.dispatch.forget_app(apps[app].id()),
                Step::Redeliver { which } if !dead.is_empty() => {
                    let letter = dead.swap_remove(which % dead.len());
                    let app = apps.iter().find(|app| app.id() == &*letter.app_id).expect("it is one of them");
                    let metrics = || stage.metrics.webhooks(app.id());
                    let target = target(app, &letter.endpoint);
                    stage.dispatch.redeliver(app, &target, metrics, letter.events, stage.now);
                }
                Step::Hurry => stage.dispatch.hurry(stage.now),
                Step::Wait(ms) => stage.now += Duration::from_millis(ms),
                Step::Settle { .. } | Step::Retire { .. } | Step::Redeliver { .. } => {}
            }
            stage.check(under_way.len());
        }
        // Whatever state that is, it comes to an end.
        for round in 0.. {
            prop_assert!(round < 1_000);
            for attempt in under_way.drain(..) {
                stage.settle(attempt, true);
            }
            let Some(due) = stage.dispatch.due() else { break };
            stage.now = stage.now.max(due);
            for attempt in stage.take_all() {
                match attempt.batch.has_expired(stage.now) {
                    true => drop(stage.dispatch.expire(attempt, 0, stage.now)),
                    false => under_way.push(attempt),
                }
            }
        }
        prop_assert_eq!(stage.dispatch.events(), 0);
        stage.check(0);
    }
}
