//! Invented runs for the tests of the reports; nothing in them was ever measured.

use hdrhistogram::Histogram;

use crate::result::{Better, Curve, Faults, Generator, Machine, Run, Series, Unit, Verdict};

/// A run whose times are `slowness` times those of another.
pub(crate) fn run(label: &str, slowness: f64) -> Run {
    let mut run = Run::new(
        "sustain",
        label,
        "loadtest sustain --clients 1000 --seconds 20".to_owned(),
    );
    run.version = "0.1.0".to_owned();
    run.machine = Machine {
        cpu: "Example 9000".to_owned(),
        cores: 2,
        memory_bytes: 8 << 30,
        kernel: "6.12.0".to_owned(),
        name: "example-9000-2-cores".to_owned(),
    };
    run.started = "2026-03-01T09:30:00Z".to_owned();
    run.took_s = 21.5;
    run.server = Some(format!("{label} 1.2.3"));
    run.parameter("clients", 1_000);
    run.parameter("channels", 1);
    run.parameter("payload", "200 B");
    run.parameter("threads", 2);
    run.measured(
        "delivered_per_second",
        "delivered",
        1.87e6 / slowness,
        Unit::PerSecond,
        Better::More,
    );
    run.measured(
        "published_per_second",
        "published",
        1_870.0 / slowness,
        Unit::PerSecond,
        Better::Neither,
    );
    let cpu = 0.38e-6 * slowness;
    run.measured(
        "server_cpu_per_message",
        "server CPU per message",
        cpu,
        Unit::Seconds,
        Better::Less,
    );
    run.measured(
        "server_memory",
        "server memory",
        19.6e6,
        Unit::Bytes,
        Better::Less,
    );
    run.curves.push(curve("latency", "publish to client", slowness));
    run.curves.push(curve("answer", "HTTP answer", slowness / 9.0));
    let of_time = |from: f64, to: f64, wobble: f64| {
        let points = (0..=100).map(|tenth| {
            let at = f64::from(tenth) / 5.0;
            let rise = 1.0 - (-at * 3.0).exp();
            (
                at,
                from + (to - from) * rise * (1.0 + wobble * (at * 2.3 + slowness).sin()),
            )
        });
        points.collect::<Vec<_>>()
    };
    let series = |key: &str, title: &str, unit, points| Series {
        key: key.to_owned(),
        title: title.to_owned(),
        unit,
        points,
    };
    run.series = vec![
        series(
            "delivered",
            "delivered",
            Unit::PerSecond,
            of_time(0.0, 1.9e6 / slowness, 0.04),
        ),
        series(
            "server_cpu",
            "server CPU, cores",
            Unit::Share,
            of_time(0.0, 0.9, 0.03),
        ),
        series(
            "server_memory",
            "server memory",
            Unit::Bytes,
            of_time(9e6, 19.6e6 * slowness, 0.01),
        ),
    ];
    run.faults = Faults::default();
    run.generator = Generator {
        cpu_s: 17.2,
        busiest_thread: 0.71,
        machine_idle: 0.02,
        server_busy: None,
        verdict: Verdict::Shared,
    };
    run
}

/// A distribution with a long tail, around some five milliseconds.
pub(crate) fn curve(key: &str, title: &str, slowness: f64) -> Curve {
    let mut histogram = Histogram::<u64>::new(3).expect("three digits are allowed");
    for step in 1..=40_000_u64 {
        let left = step as f64 / 40_001.0;
        let value = 4.2e6 * slowness * (0.4 + 0.9 * (-left.ln()).powf(1.1));
        histogram.record(value as u64).expect("it resizes itself");
    }
    Curve::of(key, title, &histogram, Unit::Seconds, 1e-9)
}
