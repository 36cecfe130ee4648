//! The documents for operators say what happens: their files are written, their commands are run in their order, and
//! what they show is what came out.
//!
//! In a document, a fence that names a file (`json fanwire.json`) is that file. In a `console` fence, a line that begins
//! with `$ ` is a command (a `\` at its end continues it), and the lines behind it are its output, `…` standing for
//! anything, and a line of `…` alone for any lines. A `json` fence without a name is a whole configuration, which has to
//! be right. Ports are replaced by free ones.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

#[path = "support/port.rs"]
mod port;

/// Ports that the documents name, of the server, its admin listener, and a back end.
const PORTS: [&str; 4] = ["6001", "9601", "8080", "8081"];
/// A whole document must be through in this time. Seconds.
const DEADLINE_S: u32 = 120;

/// What is between two fences.
struct Fence {
    line: usize,
    language: String,
    name: Option<String>,
    text: String,
}

fn fences(document: &str) -> Vec<Fence> {
    let mut fences: Vec<Fence> = Vec::new();
    let mut is_open = false;
    for (index, line) in document.lines().enumerate() {
        match (line.strip_prefix("```"), is_open) {
            (Some(_), true) => is_open = false,
            (Some(said), false) => {
                is_open = true;
                let mut words = said.split_whitespace().map(str::to_owned);
                fences.push(Fence {
                    line: index + 1,
                    language: words.next().unwrap_or_default(),
                    name: words.next(),
                    text: String::new(),
                });
            }
            (None, true) => {
                let fence = fences.last_mut().expect("a fence is open");
                fence.text.push_str(line);
                fence.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!is_open, "the last fence is not closed");
    fences
}

/// One command of a `console` fence, with what it is to print.
#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
}

fn steps(fence: &Fence) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut continues = false;
    for (index, line) in fence.text.lines().enumerate() {
        if continues {
            let step = steps.last_mut().expect("a command goes on");
            step.command.push('\n');
            step.command.push_str(line);
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                line: fence.line + index + 1,
                command: command.to_owned(),
                expected: Vec::new(),
            });
        } else {
            let step = steps.last_mut().expect("output comes behind a command");
            step.expected.push(line.to_owned());
            continue;
        }
        continues = line.ends_with('\\');
    }
    steps
}

/// Whether `printed` is what was expected: `…` is anything, a line of it any number of lines.
fn fits(expected: &[String], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((any, rest)), _) if any == "…" => {
            fits(rest, printed)
                || printed
                    .split_first()
                    .is_some_and(|(_, fewer)| fits(expected, fewer))
        }
        (Some((line, rest)), Some((printed, others))) => line_fits(line, printed) && fits(rest, others),
        _ => false,
    }
}

fn line_fits(expected: &str, printed: &str) -> bool {
    let (expected, printed) = (expected.trim_end(), printed.trim_end());
    let mut parts = expected.split('…');
    let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Writes the document's files, runs its commands, and compares.
fn run(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut document = fs::read_to_string(root.join("docs").join(name)).expect("the document is there");
    for port in PORTS {
        document = document.replace(port, &port::free_port().to_string());
    }

    let folder = tempfile::tempdir().expect("a folder for the document");
    let mut all = Vec::new();
    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n");
    for fence in fences(&document) {
        match (fence.language.as_str(), &fence.name) {
            // Written when it is its turn: a later version of a file replaces an earlier one.
            (_, Some(file)) => {
                let end = "end of the file that a document shows";
                script.push_str(&format!("cat > {file} <<'{end}'\n{}{end}\n", fence.text));
            }
            ("console", None) => {
                for step in steps(&fence) {
                    script.push_str(&format!("{{ {}\n}} 2>&1; echo; echo '@@ next'\n", step.command));
                    all.push(step);
                }
            }
            ("json", None) => {
                let file = format!("shown-{}.json", fence.line);
                fs::write(folder.path().join(&file), &fence.text).expect("the folder can be written");
                let checked = fanwire(folder.path())
                    .args(["--config", &file, "check-config"])
                    .output()
                    .expect("the binary runs");
                let said = String::from_utf8_lossy(&checked.stderr);
                assert!(checked.status.success(), "{name}:{}: {said}", fence.line);
            }
            _ => {}
        }
    }
    assert!(!all.is_empty(), "{name} shows no command");

    let binaries = Path::new(env!("CARGO_BIN_EXE_fanwire"))
        .parent()
        .expect("it is in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let tools = root.join("tests/sdk/.bin");
    let ran = Command::new("timeout")
        .args([&DEADLINE_S.to_string(), "bash", "-c", &script])
        .current_dir(folder.path())
        .env_clear()
        .env(
            "PATH",
            format!("{}:{}:{path}", binaries.display(), tools.display()),
        )
        .env("NODE_PATH", root.join("tests/sdk/node/node_modules"))
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let printed = String::from_utf8_lossy(&ran.stdout);
    let mut outputs = printed.split("@@ next\n");
    for step in &all {
        let output = outputs.next().unwrap_or_default();
        // A line end was put behind each output, since not all have one.
        let lines: Vec<_> = output.trim_end_matches('\n').lines().collect();
        assert!(
            fits(&step.expected, &lines),
            "docs/{name}:{}: $ {}\nprinted:\n{output}\ninstead of:\n{}",
            step.line,
            step.command,
            step.expected.join("\n")
        );
    }
}

/// The binary, without anything of this environment.
fn fanwire(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    command
}

#[test]
fn output_fits_what_a_document_shows() {
    let expected = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (shown, printed, is_right) in [
        ("a\nb", vec!["a", "b"], true),
        ("a", vec!["a", "b"], false),
        ("a\n…\nd", vec!["a", "b", "c", "d"], true),
        ("a\n…\nd", vec!["a", "d"], true),
        ("a\n…\nd", vec!["a", "b"], false),
        ("key …, secret …", vec!["key 17, secret 4"], true),
        ("key …, secret …", vec!["key 17"], false),
        ("…}", vec!["{\"a\":1}"], true),
        ("", vec![], true),
    ] {
        assert_eq!(fits(&expected(shown), &printed), is_right, "{shown}");
    }
}

#[test]
fn apps() {
    run("apps.md");
}

#[test]
fn rolling_deploys() {
    run("rolling-deploys.md");
}

#[test]
fn tls() {
    run("tls.md");
}

#[test]
fn webhooks() {
    run("webhooks.md");
}

#[test]
fn proxies() {
    run("proxies.md");
}
