//! The folder in which the account's key and the certificates with theirs are kept: for nobody else to read, and each file
//! written as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::geteuid;
use rustls_acme::{AccountCache, CertCache};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{AcmeConfig, OrderFault, Told};
use crate::secret::file::read_bytes;
use crate::tls::TlsFault;

/// Until what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// A certificate with a hundred names, its key and its chain take a tenth of it. Bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    account: String,
    certificate: String,
}

impl Folder {
    /// The folder that the settings name. What is kept for other names, or by another service, is not touched.
    pub(super) fn of(config: &AcmeConfig) -> Folder {
        let first = config.domains.first().map_or("", |domain| domain);
        let domains = config.domains.join(" ");
        let email = config.email.as_deref().unwrap_or_default();
        Folder {
            path: config.folder.clone(),
            account: format!("account-{}.der", mark(&[&config.directory_url, email])),
            certificate: format!("{first}-{}.pem", mark(&[&config.directory_url, &domains])),
        }
    }

    /// Makes the folder if it is not there, and sees whether it can be written to: what is issued and cannot be kept
    /// would be issued again and again.
    pub(super) fn prepare(&self) -> Result<(), TlsFault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.and_then(|()| only_ours(&self.path))
            .and_then(|()| write(&self.path, "writable", b""))
            .and_then(|()| fs::remove_file(self.path.join("writable")))
            .map_err(|error| {
                let text = format!(
                    "cannot keep anything in {}: {error}; it has to belong to the user that this server runs as (systemd: \
                     StateDirectory)",
                    self.path.display()
                );
                TlsFault::new("acme.folder", text)
            })
    }

    /// The certificate with its key, in one PEM file.
    pub(super) fn certificate(&self) -> PathBuf {
        self.path.join(&self.certificate)
    }
}

/// The folder, as the one reads and writes who orders: until it has succeeded, since what was issued is not to be lost, and
/// whoever cannot read it would have it issued again.
pub(super) struct Keeper {
    pub(super) folder: Folder,
    pub(super) told: Told,
}

impl Keeper {
    async fn find(&self, name: &str) -> Option<Vec<u8>> {
        loop {
            let path = self.folder.path.join(name);
            let read = spawn_blocking(move || match path.try_exists() {
                Ok(false) => Ok(None),
                _ => read_bytes(&path, BYTES_MAX).map(Some),
            });
            let text = match read.await {
                Ok(Ok(found)) => return found,
                Ok(Err(text)) => text,
                Err(panicked) => panicked.to_string(),
            };
            let name = self.folder.path.join(name);
            (self.told)(&OrderFault {
                text: format!("cannot read {}: {text}", name.display()),
                advice: format!(
                    "mend or remove that file; nothing is ordered before, and it is tried again every {} s",
                    AGAIN.as_secs()
                ),
            });
            sleep(AGAIN).await;
        }
    }

    async fn keep(&self, name: &str, bytes: &[u8]) {
        loop {
            let (path, name, bytes) = (self.folder.path.clone(), name.to_owned(), bytes.to_vec());
            let written = spawn_blocking(move || write(&path, &name, &bytes)).await;
            let Ok(Err(error)) = written else { return };
            (self.told)(&OrderFault {
                text: format!("cannot write to {}: {error}", self.folder.path.display()),
                advice: format!("make room there; it is tried again every {} s", AGAIN.as_secs()),
            });
            sleep(AGAIN).await;
        }
    }
}

#[async_trait]
impl CertCache for Keeper {
    type EC = String;

    async fn load_cert(&self, _domains: &[String], _directory: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.find(&self.folder.certificate).await)
    }

    async fn store_cert(&self, _domains: &[String], _directory: &str, pem: &[u8]) -> Result<(), String> {
        self.keep(&self.folder.certificate, pem).await;
        Ok(())
    }
}

#[async_trait]
impl AccountCache for Keeper {
    type EA = String;

    async fn load_account(&self, _contact: &[String], _directory: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.find(&self.folder.account).await)
    }

    async fn store_account(&self, _contact: &[String], _directory: &str, key: &[u8]) -> Result<(), String> {
        self.keep(&self.folder.account, key).await;
        Ok(())
    }
}

/// Tells what was ordered with some settings from what was with others.
fn mark(settings: &[&str]) -> String {
    let mut digest = Sha256::new();
    for setting in settings {
        digest.update(setting.as_bytes());
        digest.update([0]);
    }
    hex::encode(&digest.finalize()[..6])
}

/// Whoever else could write to the folder could put an account's key there, and have certificates issued in its name.
fn only_ours(folder: &Path) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to somebody else"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to it (chmod 700)"));
    }
    Ok(())
}

/// Whoever reads the file meanwhile, or after a crash, finds what was there before or what is there now.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let next = folder.join(format!("{name}.next"));
    match fs::remove_file(&next) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn config(folder: PathBuf) -> AcmeConfig {
        AcmeConfig {
            domains: vec!["ws.example.com".into(), "b.example.com".into()],
            folder,
            ..AcmeConfig::default()
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn what_is_kept_is_for_nobody_else_and_found_again() {
        let parent = tempfile::tempdir().expect("a folder");
        let config = config(parent.path().join("state/acme"));
        let folder = Folder::of(&config);
        folder.prepare().expect("it can be made");
        assert_eq!(mode(&config.folder), 0o700);
        assert_eq!(fs::read_dir(&config.folder).expect("a folder").count(), 0);

        let keeper = || Keeper {
            folder: Folder::of(&config),
            told: Arc::new(|fault| panic!("{}", fault.text)),
        };
        assert_eq!(keeper().load_cert(&[], "").await, Ok(None));
        assert_eq!(keeper().load_account(&[], "").await, Ok(None));
        for pem in [&b"one"[..], b"another"] {
            keeper().store_cert(&[], "", pem).await.expect("it is written");
            assert_eq!(keeper().load_cert(&[], "").await, Ok(Some(pem.to_vec())));
        }
        keeper()
            .store_account(&[], "", b"key")
            .await
            .expect("it is written");
        assert_eq!(keeper().load_account(&[], "").await, Ok(Some(b"key".to_vec())));
        let kept = fs::read_dir(&config.folder).expect("a folder");
        let kept: Vec<_> = kept.map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(kept.len(), 2, "nothing is left over: {kept:?}");
        assert!(kept.contains(&folder.certificate()));
        assert!(kept.iter().all(|path| mode(path) == 0o600));
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let parent = tempfile::tempdir().expect("a folder");
        let config = config(parent.path().join("acme"));
        let folder = Folder::of(&config);
        folder.prepare().expect("it can be made");
        for (mode, is_ours) in [(0o770, false), (0o707, false), (0o755, true)] {
            fs::set_permissions(&config.folder, fs::Permissions::from_mode(mode)).expect("it is ours");
            let prepared = folder.prepare();
            assert_eq!(prepared.is_ok(), is_ours, "{mode:o}: {prepared:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_told_and_never_taken_for_nothing() {
        let parent = tempfile::tempdir().expect("a folder");
        let config = config(parent.path().join("acme"));
        let folder = Folder::of(&config);
        folder.prepare().expect("it can be made");
        // No file can be read that is a folder.
        fs::create_dir(folder.certificate()).expect("it is made");
        let told = Arc::new(Mutex::new(Vec::new()));
        let (tell, path) = (told.clone(), folder.certificate());
        let keeper = Keeper {
            folder,
            told: Arc::new(move |fault| {
                tell.lock().expect("nobody panicked").push(fault.text.clone());
                if path.is_dir() {
                    fs::remove_dir(&path).expect("it is empty");
                }
            }),
        };
        assert_eq!(keeper.load_cert(&[], "").await, Ok(None));
        let told = told.lock().expect("nobody panicked");
        assert!(told.len() == 1 && told[0].starts_with("cannot read "), "{told:?}");
    }

    #[test]
    fn other_names_another_service_or_another_account_have_files_of_their_own() {
        let usual = config("/acme".into());
        let certificate = |config: &AcmeConfig| Folder::of(config).certificate;
        let mut other = usual.clone();
        other.email = Some("a@b.example".into());
        assert_eq!(certificate(&other), certificate(&usual));
        assert_ne!(Folder::of(&other).account, Folder::of(&usual).account);
        other.directory_url.push('2');
        assert_ne!(certificate(&other), certificate(&usual));
        let mut fewer = usual.clone();
        fewer.domains.pop();
        assert_ne!(certificate(&fewer), certificate(&usual));
        assert!(certificate(&fewer).starts_with("ws.example.com-"));
    }

    #[test]
    fn a_folder_that_takes_nothing_is_told_before_anything_is_ordered() {
        let fault = Folder::of(&config("/proc/acme".into()))
            .prepare()
            .expect_err("nothing can be made there");
        assert_eq!(fault.key, "acme.folder");
        assert!(fault.text.contains("/proc/acme"), "{fault}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_kept_is_not_lost() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("later");
        let faults = Arc::new(Mutex::new(Vec::new()));
        let (heard, made) = (faults.clone(), path.clone());
        let keeper = Keeper {
            folder: Folder::of(&config(path)),
            told: Arc::new(move |fault| {
                heard.lock().expect("nobody panicked").push(fault.text.clone());
                if heard.lock().expect("nobody panicked").len() == 2 {
                    fs::create_dir(&made).expect("it can be made");
                }
            }),
        };
        keeper.store_cert(&[], "", b"pem").await.expect("at last");
        assert_eq!(keeper.load_cert(&[], "").await, Ok(Some(b"pem".to_vec())));
        let faults = faults.lock().expect("nobody panicked");
        assert!(faults.len() == 2 && faults[0].contains("later"), "{faults:?}");
    }
}
