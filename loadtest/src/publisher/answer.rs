//! An HTTP answer, in whatever pieces it comes: its status, and where it ends.
//!
//! It looks no further than that: no header matters but those that say how long the body is.

/// An answer, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The status, zero if this is no HTTP.
    pub(super) fn status(&self) -> u16 {
        let status = self
            .bytes
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        status
            .filter(|_| self.bytes.starts_with(b"HTTP/1."))
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0)
    }

    /// Whether nothing more of it is to come.
    pub(super) fn is_complete(&self) -> bool {
        let Some((head, body)) = self.parts() else {
            return false;
        };
        if let Some(length) = header(head, "content-length").and_then(|value| value.parse::<usize>().ok()) {
            return body.len() >= length;
        }
        if header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return body.ends_with(b"0\r\n\r\n");
        }
        true
    }

    /// Whether the server ends the connection with it.
    pub(super) fn is_last(&self) -> bool {
        let value = self.parts().and_then(|(head, _)| header(head, "connection"));
        value.is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn parts(&self) -> Option<(&str, &[u8])> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        Some((
            std::str::from_utf8(&self.bytes[..end]).unwrap_or_default(),
            &self.bytes[end + 4..],
        ))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_not_before() {
        for (text, status, is_last) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 200, false),
            (
                "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 5\r\n\r\nwrong",
                401,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
                200,
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, false),
        ] {
            let mut answer = Answer::default();
            for (index, byte) in text.bytes().enumerate() {
                assert!(!answer.is_complete(), "{text:?} after {index} bytes");
                answer.feed(&[byte]);
            }
            assert!(answer.is_complete(), "{text:?}");
            assert_eq!((answer.status(), answer.is_last()), (status, is_last), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_http_has_no_status() {
        let mut answer = Answer::default();
        answer.feed(b"SSH-2.0-OpenSSH\r\n\r\n");
        assert_eq!(answer.status(), 0);
    }
}
