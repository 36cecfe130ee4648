//! A certificate authority of the test's own, and a key that it signed for 127.0.0.1, for servers and for us.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes them in a directory.
pub(crate) fn certificates(directory: &Path) -> Certificates {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
            -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=broker -keyout key.pem -out request.pem
        echo 'subjectAltName=IP:127.0.0.1,DNS:localhost' > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem";
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let made = made.expect("sh runs").success();
    assert!(
        made,
        "no certificates. If openssl is missing: `make tools`, or apt-get install openssl"
    );
    Certificates {
        ca: directory.join("ca.pem"),
        cert: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    }
}
