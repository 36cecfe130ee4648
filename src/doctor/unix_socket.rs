//! Can the path of the Unix socket be taken, and if not, who has it already?

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Access, access};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ports::{ANSWER_MAX, UP, UP_SIGN, ask};
use crate::checkup::Report;
use crate::server::unix_socket::{folder_of, is_alive};

const SETTING: &str = "server.unix_socket";

pub(super) async fn examine(path: &str, report: &mut Report<'_>) {
    if path.is_empty() {
        return;
    }
    let path = Path::new(path);
    let shown = path.display();
    let folder = folder_of(path);
    let may_write = access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from);
    if let Err(error) = may_write {
        return no_folder(folder, &error, report);
    }
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report.good(format!("{shown} is free ({SETTING})"));
        }
        there => there,
    };
    if !there.is_ok_and(|there| there.file_type().is_socket()) {
        return report.failure(
            format!("{shown} is something else than a socket ({SETTING})"),
            "remove it, or choose another path",
        );
    }
    match is_alive(path) {
        Ok(true) => taken(path, report).await,
        Ok(false) => report.good(format!(
            "{shown} was left there by a process that is gone, and is taken over ({SETTING})"
        )),
        Err(error) => report.failure(
            format!("{shown} cannot be used: {error} ({SETTING})"),
            "remove it, or choose another path",
        ),
    }
}

fn no_folder(folder: &Path, error: &io::Error, report: &mut Report<'_>) {
    let folder = folder.display();
    let advice = "create it for the user that the server runs as, and for nobody else but its group: \
                  `RuntimeDirectory=` of a systemd unit does";
    match error.kind() {
        io::ErrorKind::NotFound => {
            report.failure(format!("the folder {folder} does not exist ({SETTING})"), advice);
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            report.failure(
                format!("the folder {folder} is not for this user to write ({SETTING})"),
                advice,
            );
        }
        _ => report.failure(format!("{folder}: {error} ({SETTING})"), advice),
    }
}

async fn taken(path: &Path, report: &mut Report<'_>) {
    let answer = async { ask(UnixStream::connect(path).await?, UP, "localhost", b"").await };
    let shown = path.display();
    match timeout(ANSWER_MAX, answer).await {
        Ok(Ok(answer)) if answer.contains(UP_SIGN) => report.note(format!(
            "{shown} is served by a Fanwire already ({SETTING}); a second one needs another path"
        )),
        _ => report.failure(
            format!("{shown} is taken by somebody else who listens there ({SETTING})"),
            format!("stop it (`ss -lxp src {shown}` says what it is) or choose another path"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    async fn told(path: &Path) -> String {
        let mut out = Vec::new();
        let path = path.to_str().expect("a path in UTF-8");
        examine(path, &mut Report::new(&mut out)).await;
        String::from_utf8(out).expect("text")
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        assert_eq!(told(Path::new("")).await, "");

        fs::write(path("text"), "mine").expect("a file");
        drop(UnixListener::bind(path("dead")).expect("the path is free"));
        let mute = UnixListener::bind(path("mute")).expect("the path is free");
        // It hangs up on whoever comes: one looks whether somebody listens, the other one asks.
        let hangs_up = std::thread::spawn(move || (0..2).for_each(|_| drop(mute.accept())));
        for (name, verdict, part) in [
            ("free", "ok", "is free"),
            ("dead", "ok", "taken over"),
            ("text", "FAILURE", "something else than a socket"),
            ("no/folder", "FAILURE", "does not exist"),
            ("text/below", "FAILURE", "text"),
            ("mute", "FAILURE", "taken by somebody else"),
        ] {
            let told = told(&path(name)).await;
            assert!(
                told.trim_start().starts_with(verdict) && told.contains(part),
                "{name}: {told}"
            );
        }
        hangs_up.join().expect("both came");
    }

    #[test]
    fn a_folder_of_somebody_else_is_told() {
        let mut out = Vec::new();
        let error = io::Error::from(rustix::io::Errno::ACCESS);
        no_folder(Path::new("/run/other"), &error, &mut Report::new(&mut out));
        let told = String::from_utf8(out).expect("text");
        assert!(told.contains("/run/other is not for this user"), "{told}");
    }
}
