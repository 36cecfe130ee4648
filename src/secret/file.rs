//! Text in a file that an operator named: settings, passwords, keys. Read whole, so it is looked first whether there is an
//! end to it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// A secret is longer than this in no format. Bytes.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The text of a file of so many bytes at most.
///
/// # Errors
/// Why it cannot be read, for a person, with its path: it is not there, longer than that, no text, or no file but
/// something that might never end, such as a pipe or a device.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let told = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let failed = |error: io::Error| told(&error);
    // Asked before it is opened: to open a pipe is to wait for somebody to write.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(told(&"it is no regular file"));
    }
    let mut text = String::new();
    let mut file = File::open(path).map_err(failed)?.take(bytes_max + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > bytes_max {
        true => Err(told(&format_args!("it is longer than {bytes_max} bytes"))),
        false => Ok(text),
    }
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
    }
}
