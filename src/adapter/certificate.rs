//! How long certificates are still good for: those that a broker shows, and those in our own files.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::checkup::Report;
use crate::pem;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Whoever renews by hand needs some time; what renews by itself has done so by then.
const SOON_DAYS: u64 = 14;

/// Tells of the certificates in our own files, as far as they are named, each by its setting in a section.
pub(super) fn examine_files(
    section: &str,
    files: [(&str, &Option<PathBuf>); 2],
    now: SystemTime,
    report: &mut Report<'_>,
) {
    for (key, file) in files {
        let Some(file) = file else { continue };
        match pem::read(file).and_then(|read| pem::certificates(file, &read)) {
            Ok(certificates) => {
                for certificate in certificates {
                    let whose = format!("{section}.{key}: the certificate in {}", file.display());
                    examine(&whose, &certificate, now, report);
                }
            }
            Err(text) => report.failure(format!("{section}.{key}: {text}"), ""),
        }
    }
}

/// Tells of the time in which a certificate is valid. `whose` begins the sentence.
pub(super) fn examine(whose: &str, certificate: &[u8], now: SystemTime, report: &mut Report<'_>) {
    let validity = match Certificate::from_der(certificate) {
        Ok(certificate) => certificate.tbs_certificate.validity,
        Err(error) => {
            return report.failure(format!("{whose} cannot be read: {error}"), "have it issued anew");
        }
    };
    let (begin, end) = (validity.not_before, validity.not_after);
    if now < begin.to_system_time() {
        return report.failure(
            format!("{whose} is valid only from {begin} on"),
            "is the clock of this machine right?",
        );
    }
    match end.to_system_time().duration_since(now) {
        Err(_) => report.failure(format!("{whose} expired on {end}"), "renew it"),
        Ok(left) if left < DAY * SOON_DAYS as u32 => report.warning(
            format!(
                "{whose} expires on {end}, in {} days",
                left.as_secs() / DAY.as_secs()
            ),
            "renew it; a node takes up the files of new certificates at its next start",
        ),
        Ok(_) => report.good(format!("{whose} is valid until {end}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Valid from 2026-01-01 to 2027-01-01, signed with its own key.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBADCBpgIBATAKBggqhkjOPQQDAjAMMQowCAYDVQQDDAF0MB4XDTI2MDEwMTAw\n\
MDAwMFoXDTI3MDEwMTAwMDAwMFowDDEKMAgGA1UEAwwBdDBZMBMGByqGSM49AgEG\n\
CCqGSM49AwEHA0IABCrQRQjUTggBYKODerCqEpJPhtLT/0bEYHRnxp94NoXKNiuv\n\
BDihd0Q/fnMwsmGMEctRZOlZuvrAeWku9IH2xtswCgYIKoZIzj0EAwIDSQAwRgIh\n\
AKtirTHKsiaXJneN0TeEe3Z3JSWlVsPBPC+kT+gg/5r0AiEAzQCAjuXylIkhDOA4\n\
dRNsMdVzMz/WTKH2iOhWTSToiX0=\n\
-----END CERTIFICATE-----\n\
";

    #[test]
    fn a_certificate_is_judged_by_the_time_that_is_left() {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("PEM");
        // Days since 1970-01-01: 2026 begins with the 20454th.
        for (day, word, part) in [
            (20_453, "FAILURE", "only from 2026-01-01"),
            (20_455, "ok", "until 2027-01-01"),
            (20_454 + 365 - 10, "warning", "in 10 days"),
            (20_454 + 365 - 20, "ok", "until 2027-01-01"),
            (20_454 + 366, "FAILURE", "expired on 2027-01-01"),
        ] {
            let mut out = Vec::new();
            examine(
                "it",
                &certificate,
                UNIX_EPOCH + DAY * day,
                &mut Report::new(&mut out),
            );
            let told = String::from_utf8(out).expect("text");
            assert!(told.contains(word) && told.contains(part), "day {day}: {told}");
        }
        let mut out = Vec::new();
        examine("it", b"nonsense", SystemTime::now(), &mut Report::new(&mut out));
        assert!(String::from_utf8(out).expect("text").contains("cannot be read"));
    }
}
