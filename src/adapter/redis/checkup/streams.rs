//! Whether Redis would keep streams under some name: asked of the server that has them, by commands that are carried out
//! or refused without storing anything.

use super::{Visitor, command, field, is_forbidden, layout, line, text};
use crate::adapter::redis::config::RedisConfig;
use crate::adapter::redis::link::Link;
use crate::adapter::redis::slots::slot;
use crate::adapter::redis::url::{Address, Layout};
use crate::adapter::tls;
use crate::checkup::Report;

/// What it takes to keep entries in streams, and to take them again as a consumer of a group.
const RIGHTS: &str = "+multi +exec +xadd +xlen +xreadgroup +xack +xdel +xpending +xgroup|create";

/// Looks at the server that would have streams named `stem.…`.
pub async fn checkup_streams(config: &RedisConfig, stem: &str, report: &mut Report<'_>) {
    let parts = match config.url.parts() {
        Ok(parts) => parts,
        Err(text) => return report.failure(format!("redis.url {text}"), ""),
    };
    let tls = match parts.tls.then(|| tls::client(&config.tls_files())).transpose() {
        Ok(tls) => tls,
        Err((key, text)) => return report.failure(format!("redis.{key}: {text}"), ""),
    };
    let visitor = Visitor::new(config.login(&parts), tls.clone());
    let address = match &parts.layout {
        Layout::Single => Some(parts.addresses[0].clone()),
        Layout::Sentinel(name) => {
            let asks = Visitor::new(config.sentinel_login(), tls);
            layout::sentinels(&asks, name, &parts.addresses, report).await
        }
        Layout::Cluster => {
            let slot = slot(stem);
            let masters = layout::cluster(&visitor, &parts.addresses, report).await;
            let mut masters = masters.into_iter();
            let has_it =
                masters.find(|(_, slots)| slots.iter().any(|(first, last)| (*first..=*last).contains(&slot)));
            has_it.map(|(address, _)| address)
        }
    };
    let Some(address) = address else { return };
    let Some(mut link) = visitor.visit(&address, report).await else {
        return;
    };
    rights(&mut link, &address, stem, &visitor.user, report).await;
    eviction(&mut link, &address, report).await;
    persistence(&mut link, &address, report).await;
}

/// Tries every command that is needed, none of which can do anything to a stream that is not there.
async fn rights(link: &mut Link, address: &Address, stem: &str, user: &str, report: &mut Report<'_>) {
    let stream = format!("{stem}.doctor");
    let group = "doctor";
    let tries: [&[&str]; 9] = [
        // An entry of this number is refused always.
        &["XADD", &stream, "0-0", "e", ""],
        &["XLEN", &stream],
        &["XREADGROUP", "GROUP", group, group, "STREAMS", &stream, "0"],
        &["XACK", &stream, group, "0-1"],
        &["XDEL", &stream, "0-1"],
        &["XPENDING", &stream, group],
        &["XGROUP", "CREATE", &stream, group, "0"],
        &["MULTI"],
        &["EXEC"],
    ];
    for words in tries {
        if let Err(fault) = link.ask(&command(words)).await
            && is_forbidden(&fault)
        {
            return report.failure(
                format!(
                    "{address} refuses {} of streams under `{stem}.`: {fault}",
                    words[0]
                ),
                format!("ACL SETUSER {user} {RIGHTS} ~{stem}.*"),
            );
        }
    }
    report.good(format!("{address} lets streams be kept under `{stem}.`"));
}

/// What is stored must not be thrown away to make room.
async fn eviction(link: &mut Link, address: &Address, report: &mut Report<'_>) {
    const SETTING: &str = "maxmemory-policy";
    let answer = link.ask(&command(&["CONFIG", "GET", SETTING])).await.ok();
    match answer
        .as_ref()
        .and_then(|answer| field(answer, SETTING))
        .and_then(text)
    {
        // Streams have no time to live, so the volatile policies leave them alone.
        Some(policy) if policy.starts_with("allkeys") => report.failure(
            format!("{address} evicts whatever it likes when its memory is full ({SETTING} {policy})"),
            format!("CONFIG SET {SETTING} noeviction"),
        ),
        Some(policy) => report.good(format!("{address} does not evict streams ({SETTING} {policy})")),
        None => report.note(format!(
            "{address}: this user may not ask for CONFIG GET {SETTING}; keep it at noeviction"
        )),
    }
}

/// What is stored should outlive a restart.
async fn persistence(link: &mut Link, address: &Address, report: &mut Report<'_>) {
    let info = link.ask(&command(&["INFO", "persistence"])).await;
    let Some(info) = info.ok().and_then(|info| text(&info)) else {
        return report.note(format!(
            "{address}: this user may not ask for INFO, so whether a restart keeps what is stored is not known"
        ));
    };
    match line(&info, "aof_enabled") {
        Some("1") => report.good(format!("{address} has after a restart what it had (appendonly)")),
        _ => report.warning(
            format!("{address} forgets at a restart what came after its last snapshot, if it makes any"),
            "CONFIG SET appendonly yes",
        ),
    }
}
