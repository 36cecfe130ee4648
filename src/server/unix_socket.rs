//! The file of a Unix socket, from taking the path to giving it back.
//!
//! Whoever takes a path or gives it back holds a lock on its folder, so of several that start at once one gets it, and
//! nobody removes what has become another's. The lock ends with its holder and leaves nothing behind. Nobody waits for it
//! long: it is held for a moment, unless by somebody else who may read the folder.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// How often a lock that another holds is tried, and how long after each other.
const LOCK_TRIES: u32 = 50;
const LOCK_SPACING: Duration = Duration::from_millis(20);

/// Why a path cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Taken {
    #[error("another process listens there: stop it, or choose another path")]
    InUse,
    #[error("there is something else by that name: remove it, or choose another path")]
    NoSocket,
    #[error(
        "another process holds a lock on the folder (`lslocks` says which one): use one that nobody else may read"
    )]
    Locked,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Taken> for io::Error {
    fn from(taken: Taken) -> io::Error {
        match taken {
            Taken::System(error) => error,
            Taken::InUse => io::Error::new(io::ErrorKind::AddrInUse, taken),
            Taken::NoSocket => io::Error::new(io::ErrorKind::AlreadyExists, taken),
            Taken::Locked => io::Error::new(io::ErrorKind::WouldBlock, taken),
        }
    }
}

/// The file that this process has made, removed with it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: what tells it from one that another process has put in its place.
    is: (u64, u64),
}

/// Listens at a path. What a dead process has left there is taken over.
pub(super) fn listen_at(path: &Path, mode: u32, backlog: u32) -> Result<(TcpListener, SocketFile), Taken> {
    let _lock = lock_folder_soon(path)?;
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            if is_alive(path)? {
                return Err(Taken::InUse);
            }
            tracing::info!(path = %path.display(), "taking over the Unix socket of a process that is gone");
            fs::remove_file(path)?;
        }
        Ok(_) => return Err(Taken::NoSocket),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let socket = File::from(new_socket()?);
    let permissions = Permissions::from_mode(mode);
    // The file is made with these, less what the process masks: never with more. What was masked comes after.
    socket.set_permissions(permissions.clone())?;
    bind(&socket, &address(path)?).map_err(io::Error::from)?;
    let made = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        is: (made.dev(), made.ino()),
    };
    fs::set_permissions(path, permissions)?;
    listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(io::Error::from)?;
    // A listener is a descriptor too. What asks for its address of TCP is answered with an error.
    Ok((TcpListener::from(std::os::fd::OwnedFd::from(socket)), file))
}

/// Whether somebody listens at this path.
///
/// # Errors
/// It cannot be asked.
pub(crate) fn is_alive(path: &Path) -> io::Result<bool> {
    match connect(&new_socket()?, &address(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // As many wait as may, or it is a socket of another kind: there is somebody.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn new_socket() -> io::Result<std::os::fd::OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(path)?)
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The lock holds until the answer is dropped. None: another holds it.
fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(folder_of(path))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The same for who has the time to see a neighbour start or stop.
fn lock_folder_soon(path: &Path) -> Result<File, Taken> {
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = lock_folder(path)? {
            return Ok(lock);
        }
        std::thread::sleep(LOCK_SPACING);
    }
    Err(Taken::Locked)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Who leaves waits for nobody. What stays is a dead process's, and taken over by the next one.
        let Ok(Some(_lock)) = lock_folder(&self.path) else {
            return;
        };
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.is) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn mode(path: &Path) -> u32 {
        let there = fs::symlink_metadata(path).expect("the file is there");
        there.permissions().mode() & 0o777
    }

    #[test]
    fn the_file_has_its_mode_and_goes_with_its_owner() {
        let folder = folder();
        for mode_asked in [0o600, 0o660, 0o666] {
            let path = folder.path().join("fanwire.sock");
            let (_listener, file) = listen_at(&path, mode_asked, 8).expect("the path is free");
            assert_eq!(mode(&path), mode_asked);
            UnixStream::connect(&path).expect("somebody listens");
            drop(file);
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_file_of_a_dead_process_is_taken_over() {
        let folder = folder();
        let path = folder.path().join("fanwire.sock");
        drop(UnixListener::bind(&path).expect("the path is free"));
        assert!(path.exists(), "nobody removed it");
        let (_listener, _file) = listen_at(&path, 0o600, 8).expect("nobody listens there any more");
        UnixStream::connect(&path).expect("somebody listens");
    }

    #[test]
    fn what_is_in_use_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("fanwire.sock");
        let living = listen_at(&path, 0o600, 2).expect("the path is free");
        let refused = listen_at(&path, 0o600, 8).err();
        assert!(matches!(refused, Some(Taken::InUse)), "{refused:?}");
        // Nor is it when nobody answers there at the moment.
        let waiting: Vec<_> = std::iter::from_fn(|| {
            let socket = new_socket().expect("a socket");
            connect(&socket, &address(&path).expect("a short path")).ok()?;
            Some(socket)
        })
        .take(100)
        .collect();
        assert!(waiting.len() < 100, "its queue is full");
        let refused = listen_at(&path, 0o600, 8).err();
        assert!(matches!(refused, Some(Taken::InUse)), "{refused:?}");
        drop(living);

        let path = folder.path().join("datagrams");
        let _living = UnixDatagram::bind(&path).expect("the path is free");
        let refused = listen_at(&path, 0o600, 8).err();
        assert!(matches!(refused, Some(Taken::InUse)), "{refused:?}");

        let path = folder.path().join("text");
        fs::write(&path, "mine").expect("a file");
        let refused = listen_at(&path, 0o600, 8).err();
        assert!(matches!(refused, Some(Taken::NoSocket)), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).expect("it is still there"), "mine");
    }

    #[test]
    fn what_has_become_anothers_is_not_removed() {
        let folder = folder();
        let path = folder.path().join("fanwire.sock");
        let (_listener, file) = listen_at(&path, 0o600, 8).expect("the path is free");
        // Held open, so that its inode is not given to the next one.
        fs::hard_link(&path, folder.path().join("kept")).expect("a second name");
        fs::remove_file(&path).expect("it is there");
        let (_successor, _its_file) = listen_at(&path, 0o600, 8).expect("the path is free");
        drop(file);
        UnixStream::connect(&path).expect("the successor listens");
    }

    #[test]
    fn nobody_waits_for_a_lock_that_is_held_for_long() {
        let folder = folder();
        let path = folder.path().join("fanwire.sock");
        let (listener, file) = listen_at(&path, 0o600, 8).expect("the path is free");
        let lock = File::open(folder.path()).expect("a folder");
        lock.lock().expect("nobody else holds it");
        // Nobody lets go of it before both have given up.
        drop((listener, file));
        assert!(path.exists(), "it may be another's by now");
        let refused = listen_at(&path, 0o600, 8).err();
        assert!(matches!(refused, Some(Taken::Locked)), "{refused:?}");
        drop(lock);
        let (_listener, _file) = listen_at(&path, 0o600, 8).expect("nobody listens there any more");
    }

    #[test]
    fn of_many_that_start_at_once_one_gets_the_path() {
        let folder = folder();
        let path = folder.path().join("fanwire.sock");
        drop(UnixListener::bind(&path).expect("the path is free"));
        let start = || listen_at(&path, 0o600, 8);
        let started: Vec<_> = std::thread::scope(|threads| {
            let starting: Vec<_> = (0..8).map(|_| threads.spawn(start)).collect();
            starting
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert_eq!(started.iter().filter(|started| started.is_ok()).count(), 1);
    }
}
