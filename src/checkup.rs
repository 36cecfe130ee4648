//! What a checkup tells: one finding after the other, as they are made, each with what to do about it.
//!
//! Knows nothing of what is checked. What is told is for a person: no secret may be part of it.

use std::io::{self, Write};

/// How a finding is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing; also what could not be checked, and why.
    Note,
    /// It works, yet not as well, or not for ever.
    Warning,
    /// It does not work.
    Failure,
}

/// Writes findings down and counts them.
pub struct Report<'a> {
    out: &'a mut (dyn Write + Send),
    written: io::Result<()>,
    warnings: usize,
    failures: usize,
}

impl<'a> Report<'a> {
    /// An empty one, that goes to `out` line by line.
    pub fn new(out: &'a mut (dyn Write + Send)) -> Report<'a> {
        Report {
            out,
            written: Ok(()),
            warnings: 0,
            failures: 0,
        }
    }

    /// What the findings that follow are about.
    pub fn section(&mut self, title: &str) {
        self.write(format_args!("{title}\n"));
    }

    /// As it should be.
    pub fn good(&mut self, text: impl AsRef<str>) {
        self.tell(Verdict::Good, text.as_ref(), "");
    }

    /// Worth knowing.
    pub fn note(&mut self, text: impl AsRef<str>) {
        self.tell(Verdict::Note, text.as_ref(), "");
    }

    /// Works, but; and what to do.
    pub fn warning(&mut self, text: impl AsRef<str>, advice: impl AsRef<str>) {
        self.tell(Verdict::Warning, text.as_ref(), advice.as_ref());
    }

    /// Does not work; and what to do.
    pub fn failure(&mut self, text: impl AsRef<str>, advice: impl AsRef<str>) {
        self.tell(Verdict::Failure, text.as_ref(), advice.as_ref());
    }

    /// A finding with its verdict; the advice may be empty.
    pub fn tell(&mut self, verdict: Verdict, text: &str, advice: &str) {
        let word = match verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Warning => "warning",
            Verdict::Failure => "FAILURE",
        };
        self.warnings += usize::from(verdict == Verdict::Warning);
        self.failures += usize::from(verdict == Verdict::Failure);
        self.write(format_args!("  {word:<8} {text}\n"));
        if !advice.is_empty() {
            self.write(format_args!("           -> {advice}\n"));
        }
    }

    /// Sums up and says how many failures there are.
    ///
    /// # Errors
    /// What could not be written.
    pub fn end(mut self) -> io::Result<usize> {
        let (warnings, failures) = (self.warnings, self.failures);
        let many = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        match (failures, warnings) {
            (0, 0) => self.write(format_args!("All is well.\n")),
            _ => {
                let (failures, warnings) = (many(failures, "failure"), many(warnings, "warning"));
                self.write(format_args!("{failures}, {warnings}.\n"));
            }
        }
        self.written.map(|()| failures)
    }

    /// Each line goes out at once: the next check may take seconds.
    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        if self.written.is_ok() {
            self.written = self.out.write_fmt(text).and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_what_to_do_below_it() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        report.section("ports");
        report.good("6001 is free");
        report.note("9601 is not checked");
        report.warning("few files", "ulimit -n 100000");
        report.failure("taken", "choose another");
        assert_eq!(report.end().expect("written"), 1);
        let expected = "ports\n  ok       6001 is free\n  note     9601 is not checked\n  \
                        warning  few files\n           -> ulimit -n 100000\n  \
                        FAILURE  taken\n           -> choose another\n1 failure, 1 warning.\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn a_reader_that_has_gone_is_told_at_the_end() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gone = Gone;
        let mut report = Report::new(&mut gone);
        report.good("well");
        assert!(report.end().is_err());
    }
}
