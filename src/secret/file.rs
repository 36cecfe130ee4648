//! A file that an operator named: settings, passwords, keys. Read whole, so it is looked first whether there is an end to
//! it.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// A secret is longer than this in no format. Bytes.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The text of a file of so many bytes at most.
///
/// # Errors
/// As those of [`read_bytes`]; and it is no text.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let bytes = read_bytes(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| unread(path, &"stream did not contain valid UTF-8"))
}

/// A file of so many bytes at most.
///
/// # Errors
/// Why it cannot be read, for a person, with its path: it is not there, longer than that, or no file but something that
/// might never end, such as a pipe or a device.
pub fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| unread(path, &error);
    // Asked before it is opened: to open a pipe is to wait for somebody to write.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unread(path, &"it is no regular file"));
    }
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(failed)?.take(bytes_max + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(unread(path, &format_args!("it is longer than {bytes_max} bytes"))),
        false => Ok(bytes),
    }
}

fn unread(path: &Path, why: &dyn Display) -> String {
    format!("cannot read {}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_file_that_ends_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name| folder.path().join(name);
        fs::write(at("text"), "secret\n").expect("it is written");
        assert_eq!(read_text(&at("text"), 7), Ok("secret\n".to_owned()));
        let pipe = Command::new("mkfifo").arg(at("pipe")).status();
        assert!(pipe.expect("there is mkfifo").success());
        fs::write(at("bytes"), b"\xff").expect("it is written");
        for (path, max, why) in [
            (at("text"), 6, "longer than 6 bytes"),
            (at("nothing"), 9, "No such file"),
            (at("bytes"), 9, "UTF-8"),
            (at("pipe"), 9, "no regular file"),
            ("/dev/zero".into(), 9, "no regular file"),
            (folder.path().to_owned(), 9, "no regular file"),
        ] {
            let error = read_text(&path, max).expect_err("it is refused");
            assert!(
                error.contains(why) && error.contains(&*path.to_string_lossy()),
                "{error}"
            );
        }
        assert_eq!(read_bytes(&at("bytes"), 1), Ok(vec![0xff]));
    }
}
