//! What is shipped, run as it is shipped: the image by a container runtime, the package in a Debian that boots, the compose
//! file's Prometheus with its rules and every panel of the dashboard.
//!
//! `make test-ship`, as root on Debian or Ubuntu; not part of a plain `cargo test`, since it compiles a release and installs
//! what `tests/ship/install` names. Everything it makes is below `target/ship`, and what is costly there is used again.
//!
//! **Not run here**: the image for arm64, docker itself, the images of others that the compose file names, Grafana.
#![allow(
    clippy::print_stdout,
    reason = "how small and how closed it is, is for a person"
)]

mod base;
#[path = "../support/brokers/mod.rs"]
mod brokers;
mod compose;
mod image;
mod package;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the other tests use what these do not")]
mod support;
mod tools;
mod unit;
mod watch;
#[path = "../support/watched.rs"]
mod watched;
