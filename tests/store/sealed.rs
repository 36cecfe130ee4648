//! The way to a database under TLS: whose certificate is accepted, and that nothing goes another way.

use std::path::Path;

use fanwire::store::{SqlStore, StoreUrl};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::certificates::certificates;
use crate::engine::{Engine, Kind};
use crate::stage::{Place, Served, app};

over_each_server![a_database_is_believed_by_its_certificate];

/// The options of a URL: checked to the name, checked but for the name, not checked, not asked for.
fn modes(kind: Kind) -> [&'static str; 4] {
    match kind {
        Kind::Postgres => ["verify-full", "verify-ca", "require", "disable"],
        _ => ["VERIFY_IDENTITY", "VERIFY_CA", "REQUIRED", "DISABLED"],
    }
}

fn options(kind: Kind, mode: &str, authority: Option<&Path>) -> String {
    let (mode_option, authority_option) = match kind {
        Kind::Postgres => ("sslmode", "sslrootcert"),
        _ => ("ssl-mode", "ssl-ca"),
    };
    let authority = authority.map(|path| format!("&{authority_option}={}", path.display()));
    format!("?{mode_option}={mode}{}", authority.unwrap_or_default())
}

async fn a_database_is_believed_by_its_certificate(kind: Kind) {
    let engine = tokio::task::spawn_blocking(move || Engine::sealed(kind)).await;
    let engine = engine.expect("a server that starts");
    let place = Place::at(&engine, kind).await;
    SqlStore::migrate(&place.section())
        .await
        .expect("tables are made");
    place.put("7", "{}").await;
    // From now on it lets nobody in who does not come under TLS.
    match kind {
        Kind::Postgres => engine.only_sealed(),
        _ => place.by_hand("SET GLOBAL require_secure_transport = ON").await,
    }

    let folder = TempDir::new().expect("a folder");
    let stranger = certificates(folder.path()).ca;
    let [full, authority, sealed, plain] = modes(kind);
    let (ours, theirs) = (Some(engine.authority()), Some(&*stranger));
    // The same server by a name that its certificate does not have.
    let elsewhere = place.url.replace("@127.0.0.1:", "@127.0.0.2:");
    for (url, mode, trusted, is_let_in) in [
        (&place.url, full, ours, true),
        (&place.url, full, theirs, false),
        (&place.url, full, None, false),
        (&place.url, authority, ours, true),
        (&place.url, authority, theirs, false),
        (&elsewhere, full, ours, false),
        (&elsewhere, authority, ours, true),
        (&place.url, sealed, None, true),
        (&place.url, plain, None, false),
    ] {
        let mut section = place.section();
        section.url = StoreUrl::new(&format!("{url}{}", options(kind, mode, trusted)));
        section.timeout_ms = 5_000;
        assert_eq!(section.faults(), []);
        let store = SqlStore::open(&section).expect("a sound section");
        let listed = store.set_enabled("7", true, Timestamp::now()).await;
        assert_eq!(listed.is_ok(), is_let_in, "{:?}: {listed:?}", section.url);
    }

    let mut config = place.config();
    config.store.url = StoreUrl::new(&format!("{}{}", place.url, options(kind, full, ours)));
    Served::start(config).await.of(&app("7")).serves().await;
}
