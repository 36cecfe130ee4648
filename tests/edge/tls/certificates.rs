//! Certificates: those of the server, which are replaced while it runs, and those of clients.

use super::*;
use crate::support::eventually;

/// The certificate that a new connection is shown.
fn shown(stream: &Tls) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().expect("one is shown");
    chain[0].to_vec()
}

/// Without a ticket: who resumes is shown nothing.
async fn next_shown(secured: &Secured) -> Vec<u8> {
    shown(&secured.stream().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_who_comes_and_not_noticed_by_who_is_there() {
    let secured = Secured::start().await;
    let server = &secured.server;
    let mut there = secured.connect().await;
    there.subscribe("a").await;
    let mut backend = secured.backend().await;
    let mut before = next_shown(&secured).await;
    for renewals in 1..=3 {
        secured.files.replace(&secured.authority.vouch());
        let now = eventually("another certificate", async || {
            Some(next_shown(&secured).await).filter(|now| *now != before)
        })
        .await;
        server
            .metric_becomes("tls_certificate_changes_total", &[], renewals)
            .await;
        backend.publish("a", "n", &renewals.to_string()).await;
        assert_eq!(there.expect("n").await["data"], renewals.to_string());
        before = now;
    }
    secured.serves().await;
    assert_eq!(server.metric("tls_certificate_refused_total", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_certificate_changes_nothing_and_is_counted_once() {
    let secured = Secured::start().await;
    let server = &secured.server;
    let before = next_shown(&secured).await;
    let other = secured.authority.vouch();
    let mismatched = Certified {
        key: secured.authority.vouch().key,
        ..other.clone()
    };
    let expired = secured.authority.vouch_from_to(2020, 2021);
    let refused = "tls_certificate_refused_total";
    for (count, wrong) in [mismatched, expired].iter().enumerate() {
        secured.files.replace(wrong);
        server.metric_becomes(refused, &[], count as u64 + 1).await;
        assert_eq!(next_shown(&secured).await, before);
    }
    // Asked to look again, as SIGHUP does, it says again what is wrong.
    server.server.reread();
    server.metric_becomes(refused, &[], 3).await;
    assert_eq!(server.metric("tls_certificate_changes_total", &[]).await, 0);
    secured.files.replace(&other);
    server
        .metric_becomes("tls_certificate_changes_total", &[], 1)
        .await;
    assert_ne!(next_shown(&secured).await, before);
    secured.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_the_certificate_is_good_for_is_told() {
    let secured = Secured::start().await;
    let left = secured.server.metric("tls_certificate_expiry_seconds", &[]).await;
    assert!(left > 40 * 365 * 24 * 60 * 60, "{left}");
    let plain = TestServer::start().await;
    let metrics = plain.admin("/metrics").await.body;
    assert!(!metrics.contains("tls_certificate"), "nothing to alarm anybody");
}

async fn with_clients() -> Secured {
    Secured::with_config(config([app()]), |config, authority, files| {
        config.tls.client_ca_file = Some(files.write("ca.pem", &authority.pem));
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_need_a_certificate_where_there_is_an_authority_for_them_and_sockets_do_not() {
    let secured = with_clients().await;
    for version in [&TLS12, &TLS13] {
        let shown = secured.authority.vouch();
        let known = Arc::new(secured.authority.client(&[version], Some(&shown)));
        let stranger = Arc::new(secured.authority.client(&[version], None));

        // Also for who comes again.
        for _ in 0..2 {
            let mut backend = secured.backend_over(secured.stream_with(known.clone()).await);
            backend.publish("a", "n", "1").await;
            let mut backend = secured.backend_over(secured.stream_with(stranger.clone()).await);
            let body = json!({ "name": "n", "channel": "a", "data": "1" });
            let refused = backend.post("/events", &body).await;
            assert_eq!(refused.status, 403, "{refused:?}");
            assert!(refused.body.contains("client certificate"), "{refused:?}");
            assert_eq!(backend.get("/channels").await.status, 403);
            // Whether it is up may be asked by anybody.
            assert_eq!(backend.http.ask("GET", "/up", "").await.status, 200);
        }
        for trust in [known, stranger] {
            let stream = secured.stream_with(trust).await;
            let mut client = Client::over(stream, TARGET).await.greeted().await;
            client.subscribe("a").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_by_somebody_else_is_worth_nothing() {
    let secured = with_clients().await;
    let shown = Authority::new().vouch();
    let trust = Arc::new(secured.authority.client(&[&TLS13, &TLS12], Some(&shown)));
    let stream = TcpStream::connect(secured.server.address)
        .await
        .expect("it listens");
    let refused = async {
        // In TLS 1.3 the client is done before the server has seen its certificate.
        let mut stream = secure(stream, trust).await?;
        stream.read_u8().await
    };
    let refused = refused.await.expect_err("not believed");
    assert!(refused.to_string().contains("alert"), "{refused}");
    secured
        .server
        .metric_becomes("connection_errors_total", &["error_type=\"tls\""], 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_a_certificate_where_there_is_no_authority() {
    let secured = Secured::start().await;
    // One that is not asked for is not shown, so nobody can mind whose it is.
    let shown = Authority::new().vouch();
    let trust = Arc::new(secured.authority.client(&[&TLS13, &TLS12], Some(&shown)));
    let mut backend = secured.backend_over(secured.stream_with(trust).await);
    backend.publish("a", "n", "1").await;
}
