//! The house's own rules: modules use only what lies below them, files stay small, and the pure parts stay pure.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules, the lowest first. A module may use those of lower rank; modules of one rank do not know each other.
const RANKS: [(&str, u32); 22] = [
    ("protocol", 0),
    ("secret", 0),
    ("wall", 0),
    ("checkup", 0),
    ("pem", 1),
    ("limit", 2),
    ("metrics", 2),
    ("tls", 2),
    ("adapter", 2),
    ("address", 3),
    ("app", 3),
    ("store", 4),
    ("relay", 3),
    ("roster", 4),
    ("hub", 4),
    ("webhook", 4),
    ("node", 5),
    ("shard", 6),
    ("api", 6),
    ("config", 7),
    ("server", 8),
    ("doctor", 9),
];

/// A file this long is asked which noun wants to leave it.
const LINES_MAX: usize = 600;

/// Modules without I/O, clock or async.
const PURE: [&str; 4] = ["protocol", "limit", "relay", "roster"];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The module of the crate that it belongs to; none for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<&'static str> {
        let path = self.path.strip_prefix(source_folder()).ok()?;
        let first = path.components().next()?.as_os_str().to_str()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        RANKS
            .iter()
            .find(|(module, _)| *module == name)
            .map(|(module, _)| *module)
    }

    /// Its code: what comes before the tests at its end.
    fn code(&self) -> &str {
        self.text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        let name = self
            .path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name == "tests" || name == "oracle"
    }
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut folders = vec![source_folder()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the source folder can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file can be read");
                sources.push(Source { path, text });
            }
        }
    }
    assert!(sources.len() > 30, "the sources were found");
    sources
}

fn rank(module: &str) -> Option<u32> {
    RANKS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, rank)| *rank)
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        for mention in source.code().split("crate::").skip(1) {
            let used: String = mention
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let Some(used_rank) = rank(&used) else {
                faults.push(format!(
                    "{}: crate::{used} is no module with a rank",
                    source.path.display()
                ));
                continue;
            };
            if used != module && Some(used_rank) >= rank(module) {
                faults.push(format!("{}: {module} uses {used}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_stay_small() {
    let sources = sources();
    let long = sources
        .iter()
        .filter(|source| source.text.lines().count() > LINES_MAX);
    let long: Vec<_> = long.map(|source| source.path.display().to_string()).collect();
    assert!(
        long.is_empty(),
        "over {LINES_MAX} lines; which noun wants to leave them? {long:?}"
    );
}

#[test]
fn every_module_says_what_it_is() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        assert!(
            source.text.starts_with("//! "),
            "{} begins with a description",
            source.path.display()
        );
    }
}

#[test]
fn the_pure_modules_have_no_clock_no_io_and_no_async() {
    for source in sources() {
        if !source.module().is_some_and(|module| PURE.contains(&module)) || source.is_test() {
            continue;
        }
        for forbidden in [
            "async fn",
            ".await",
            "tokio",
            "std::net",
            "std::fs",
            "Instant::now",
            "SystemTime",
            "crate::wall",
            "rand::",
        ] {
            assert!(
                !source.code().contains(forbidden),
                "{} holds {forbidden}",
                source.path.display()
            );
        }
    }
}

#[test]
fn the_hub_never_waits() {
    // But for `Inbox::room`, the one permission that publishers wait for, with no lock held.
    for source in sources().iter().filter(|source| source.module() == Some("hub")) {
        let waits = source.code().matches(".await").count();
        let allowed = usize::from(source.path.ends_with("hub/inbox.rs"));
        assert_eq!(waits, allowed, "{} awaits", source.path.display());
    }
}
