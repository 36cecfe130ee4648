//! Endpoints with `https`: whose certificates are trusted.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::receiver::{Receiver, Reply};
use super::{endpoint, with};
use crate::certificates::{Certificates, certificates};
use crate::support::server::{KEY, SECRET, TestServer};

/// Makes a certificate for 127.0.0.1 and localhost, and who signed it.
fn made(folder: &TempDir) -> (Certificates, TlsAcceptor) {
    let files = certificates(folder.path());
    let chain = CertificateDer::pem_file_iter(&files.cert).expect("a PEM file");
    let chain: Result<Vec<_>, _> = chain.collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the usual versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("certificates"), key)
        .expect("the key of the certificate");
    (files, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_where_it_is_named() {
    let (one, other) = (
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    );
    let ((one, acceptor), (other, _)) = (made(&one), made(&other));
    let receiver = Receiver::sealed(acceptor, |_| Reply::Status(200)).await;
    let port = receiver.address.port();
    let both = json!([
        {"name": "address", "url": format!("https://127.0.0.1:{port}/hooks?a=1")},
        {"name": "name", "url": format!("https://localhost:{port}/")},
    ]);
    for ca_file in [None, Some(other.ca)] {
        let mut config = with(both.clone());
        config.webhooks.ca_file = ca_file;
        let server = TestServer::with_config(config).await;
        server.connect().await.subscribe("a").await;
        for name in ["address", "name"] {
            let refused = endpoint(&server, name, |it| it["last_error"].is_string()).await;
            let error = refused["last_error"].as_str().expect("an error");
            assert!(error.contains("certificate"), "{error}");
        }
        assert!(receiver.received().is_empty());
    }
    let mut config = with(both);
    config.webhooks.ca_file = Some(one.ca);
    let server = TestServer::with_config(config).await;
    server.connect().await.subscribe("a").await;
    for it in receiver.wait_for(2).await {
        it.is_signed_by(KEY, SECRET);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_certificate_does_not_have_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let (files, acceptor) = made(&folder);
    let receiver = Receiver::sealed(acceptor, |_| Reply::Status(200)).await;
    // Another way to write the same address, and not one of the names.
    let url = format!("https://[::ffff:127.0.0.1]:{}/", receiver.address.port());
    let mut config = with(json!([{"name": "e", "url": url}]));
    config.webhooks.ca_file = Some(files.ca);
    let server = TestServer::with_config(config).await;
    server.connect().await.subscribe("a").await;
    let refused = endpoint(&server, "e", |it| it["last_error"].is_string()).await;
    let error = refused["last_error"].as_str().expect("an error");
    assert!(error.contains("certificate not valid for name"), "{error}");
    assert!(receiver.received().is_empty());
}
