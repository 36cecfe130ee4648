//! Probes, on both ports.

use crate::support::http::Http;
use crate::support::server::{TestServer, app, config};
use fanwire::app::{AppConfig, Secret};

#[tokio::test(flavor = "multi_thread")]
async fn probes_answer_on_both_ports() {
    let disabled = AppConfig {
        id: "2".into(),
        key: "k2".into(),
        secret: Secret::new("s"),
        enabled: false,
        ..AppConfig::default()
    };
    let server = TestServer::with_config(config([app(), disabled])).await;
    for address in [server.address, server.admin_address] {
        for (path, status, body) in [
            ("/", 200, "OK"),
            ("/up", 200, r#"{"health":"OK"}"#),
            ("/live", 200, r#"{"health":"OK"}"#),
            ("/ready", 200, ""),
            ("/accept-traffic", 200, ""),
            ("/up/1", 200, r#"{"health":"OK"}"#),
            ("/up/2", 503, ""),
            ("/up/3", 404, ""),
            ("/nothing", 404, ""),
        ] {
            let answer = Http::connect(address).await.ask("GET", path, "").await;
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            assert!(body.is_empty() || answer.body == body, "{path}: {answer:?}");
        }
        let answer = Http::connect(address).await.ask("POST", "/ready", "").await;
        assert_eq!(answer.status, 405);
    }
    // Figures are for operators only.
    for path in ["/metrics", "/usage"] {
        assert_eq!(
            Http::connect(server.address)
                .await
                .ask("GET", path, "")
                .await
                .status,
            404,
            "{path}"
        );
        assert_eq!(server.admin(path).await.status, 200, "{path}");
    }
}
