//! Would clients take the certificate, and for how long yet?

use std::time::SystemTime;

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;

use crate::checkup::Report;
use crate::tls::{Credentials, TlsConfig};

/// Whoever renews by hand needs some time; what renews by itself has done so by then. Days.
const SOON_DAYS: i64 = 14;
const DAY_S: i64 = 24 * 60 * 60;

pub(super) fn examine(config: &TlsConfig, now: SystemTime, report: &mut Report<'_>) {
    if let Err(fault) = config.acme.is_on().then(|| config.acme.authorities()).transpose() {
        report.failure(fault.to_string(), "");
    }
    let credentials = match Credentials::load(config) {
        Ok(Some(credentials)) => credentials,
        Ok(None) => {
            return report.note("tls.cert_file is not set: TLS, if there is any, is the business of a proxy");
        }
        Err(fault) => return report.failure(fault.to_string(), ""),
    };
    let is_renewed_by_us = config.acme.is_on();
    let Some(validity) = credentials.validity else {
        return report.note(format!(
            "there is no certificate yet: a node orders one from {} as soon as it runs, and nobody can connect until then",
            config.acme.directory_url
        ));
    };
    match validity.judge(now) {
        Err(fault) if is_renewed_by_us => {
            let advice = "a node that runs orders another one: if it has not, its log says why";
            return report.warning(fault.text, advice);
        }
        Err(fault) => return report.failure(fault.to_string(), ""),
        Ok(()) => {}
    }
    let days = validity.seconds_left(now) / DAY_S;
    let text = format!("the certificate goes with its key, and is good for {days} days more");
    if days < SOON_DAYS {
        let advice = match is_renewed_by_us {
            true => "a node that runs has ordered another one by then: if not, its log says why",
            false => "renew it; a node that runs takes up the new one by itself, within a minute",
        };
        report.warning(text, advice);
    } else {
        report.good(text);
    }
    acceptance(&credentials, report);
}

/// What only some clients take: others than whoever tries it first.
fn acceptance(credentials: &Credentials, report: &mut Report<'_>) {
    let [own, others @ ..] = credentials.chain() else {
        return;
    };
    let Ok(own) = Certificate::from_der(own) else {
        return;
    };
    let own = own.tbs_certificate;
    if !matches!(own.get::<SubjectAltName>(), Ok(Some(_))) {
        report.warning(
            "the certificate has no subjectAltName: browsers look for the server's name nowhere else, and refuse it",
            "have it made with one, such as `subjectAltName=DNS:ws.example.com`",
        );
    }
    if others.is_empty() && own.issuer != own.subject {
        report.warning(
            format!(
                "the certificate stands alone in its file: clients that do not know `{}`, which signed it, refuse it, \
                 phones above all",
                own.issuer
            ),
            "append the certificates that lead to an authority (the `fullchain.pem` of most tools), unless that one is an \
             authority which all clients know",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::tls::certificates;

    #[test]
    fn what_some_clients_refuse_is_told() {
        let authority = certificates::Authority::new();
        let alone = authority.vouch();
        let key = rcgen::KeyPair::generate().expect("a key");
        let nameless = rcgen::CertificateParams::default()
            .self_signed(&key)
            .expect("a certificate");
        let nameless = certificates::Certified {
            certificate: nameless.pem(),
            key: key.serialize_pem(),
        };
        let chain = certificates::Certified {
            certificate: format!("{}{}", alone.certificate, authority.pem),
            ..alone.clone()
        };
        for (certified, told_of) in [
            (chain, [false, false]),
            (alone, [false, true]),
            (nameless, [true, false]),
        ] {
            let files = certificates::Files::of(&certified);
            let config = TlsConfig {
                cert_file: Some(files.certificate()),
                key_file: Some(files.key()),
                ..TlsConfig::default()
            };
            let mut out = Vec::new();
            examine(&config, SystemTime::now(), &mut Report::new(&mut out));
            let told = String::from_utf8(out).expect("text");
            let is_told =
                ["no subjectAltName", "do not know `CN=an authority"].map(|part| told.contains(part));
            assert_eq!(is_told, told_of, "{told}");
        }
    }

    #[test]
    fn who_has_little_time_left_is_warned() {
        let files = certificates::Files::of(&certificates::Authority::new().vouch_from_to(2020, 2030));
        let config = TlsConfig {
            cert_file: Some(files.certificate()),
            key_file: Some(files.key()),
            ..TlsConfig::default()
        };
        // 2030 begins with the 21915th day.
        for (days_left, word, part) in [
            (20, "ok", "good for 20 days"),
            (13, "warning", "good for 13 days"),
            (-1, "FAILURE", "expired on 2030-01-01"),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(((21_915 - days_left) * DAY_S) as u64);
            let mut out = Vec::new();
            examine(&config, now, &mut Report::new(&mut out));
            let told = String::from_utf8(out).expect("text");
            assert!(told.contains(word) && told.contains(part), "{days_left}: {told}");
        }
    }
}
