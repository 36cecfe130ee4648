//! Reading a request's body: bounded while it is read, not after; hashed as it arrives, so that no shard
//! is held by one large body. Does not know what the bytes mean.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use md5::{Digest, Md5};

use super::error::ApiError;

/// Bytes worked on before the shard gets a turn: hashing them takes some 50 µs.
const PIECE_BYTES: usize = 32 * 1024;

/// A refused body is still taken in, unread, up to this many bytes: to close on a client that is writing
/// resets the connection, and the client never sees the answer that tells it what is wrong.
const DISCARD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A whole body and the MD5 of exactly these bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) md5: [u8; 16],
}

/// Reads a body of at most `bytes_max` bytes. One that announces more is refused before its first byte is
/// read, one that announces nothing as soon as it is over. All of it must have come `within_s` seconds: a
/// caller who trickles must not hold a connection for ever.
pub(super) async fn receive<B>(body: &mut B, bytes_max: usize, within_s: u64) -> Result<Received, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_large(&format!("has {announced} bytes"), bytes_max));
    }
    let whole = collect(body, announced as usize, bytes_max);
    match tokio::time::timeout(Duration::from_secs(within_s), whole).await {
        Ok(received) => received,
        Err(_) => Err(ApiError::BodyTooSlow { within_s }),
    }
}

async fn collect<B>(body: &mut B, announced: usize, bytes_max: usize) -> Result<Received, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut md5 = Md5::new();
    // Most bodies come in one chunk, which is kept as it is; a second one starts the buffer.
    let mut only = Bytes::new();
    let mut buffer = Vec::new();
    while let Some(chunk) = next_chunk(body).await? {
        let size = only.len() + buffer.len() + chunk.len();
        if size > bytes_max {
            return Err(too_large("is larger", bytes_max));
        }
        if size == chunk.len() && size <= PIECE_BYTES {
            md5.update(&chunk);
            only = chunk;
            continue;
        }
        if size > buffer.capacity() {
            // Doubled like any vector, but never beyond what may come.
            let capacity = size.max(announced).max(2 * buffer.capacity()).min(bytes_max);
            buffer.reserve_exact(capacity - buffer.len());
        }
        buffer.extend_from_slice(&std::mem::take(&mut only));
        for (n, piece) in chunk.chunks(PIECE_BYTES).enumerate() {
            if n > 0 {
                tokio::task::yield_now().await;
            }
            md5.update(piece);
            buffer.extend_from_slice(piece);
        }
    }
    let bytes = if buffer.is_empty() {
        only
    } else {
        Bytes::from(buffer)
    };
    Ok(Received {
        bytes,
        md5: md5.finalize().into(),
    })
}

/// Takes in and forgets what is left of a refused body, within bounds of bytes and time.
pub(super) async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B, within: Duration) {
    if body.size_hint().lower() > DISCARD_BYTES_MAX {
        return;
    }
    let read = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Ok(Some(chunk)) = next_chunk(&mut body).await {
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                break;
            };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(within, read).await;
}

/// The next bytes of the body; `None` at its end. Trailers mean nothing here.
async fn next_chunk<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Result<Option<Bytes>, ApiError> {
    loop {
        if body.is_end_stream() {
            return Ok(None);
        }
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => {
                return Err(ApiError::bad(
                    "The request body ended too early or is badly framed.",
                ));
            }
        }
    }
}

fn too_large(how: &str, bytes_max: usize) -> ApiError {
    ApiError::TooLarge(format!(
        "The request body {how}; the limit is {bytes_max} bytes. Send fewer events at once, or raise \
         `server.body_bytes_max`."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::{Frame, SizeHint};
    use std::collections::VecDeque;
    use std::task::{Context, Poll};

    /// A body of chunks as they come off the wire, with or without a `Content-Length`.
    struct Chunks {
        left: VecDeque<Bytes>,
        announced: Option<u64>,
        polls: usize,
    }

    impl Chunks {
        fn new(chunks: &[&[u8]]) -> Chunks {
            Chunks {
                left: chunks.iter().map(|c| Bytes::copy_from_slice(c)).collect(),
                announced: None,
                polls: 0,
            }
        }
    }

    impl Body for Chunks {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.polls += 1;
            Poll::Ready(self.left.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }

        fn size_hint(&self) -> SizeHint {
            self.announced.map(SizeHint::with_exact).unwrap_or_default()
        }
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn receive_chunks(chunks: &[&[u8]], bytes_max: usize) -> Result<Received, ApiError> {
        run(receive(&mut Chunks::new(chunks), bytes_max, 30))
    }

    #[test]
    fn the_hash_is_that_of_the_whole_however_it_was_cut() {
        let text = vec![b'x'; 3 * PIECE_BYTES + 7];
        let md5: [u8; 16] = Md5::digest(&text).into();
        let (head, tail) = text.split_at(PIECE_BYTES + 1);
        let dribble: Vec<&[u8]> = text.chunks(1000).collect();
        for chunks in [
            vec![&text[..]],
            vec![head, tail],
            vec![&text[..1], &text[1..]],
            dribble,
        ] {
            let received = receive_chunks(&chunks, text.len()).unwrap();
            assert!(
                received.bytes == text && received.md5 == md5,
                "{} chunks",
                chunks.len()
            );
        }
    }

    #[test]
    fn no_body_is_an_empty_body() {
        for chunks in [&[][..], &[&b""[..]]] {
            let received = receive_chunks(chunks, 0).unwrap();
            assert_eq!(hex::encode(received.md5), "d41d8cd98f00b204e9800998ecf8427e");
            assert!(received.bytes.is_empty());
        }
    }

    #[test]
    fn a_body_at_the_limit_passes_and_one_byte_more_does_not() {
        assert!(receive_chunks(&[b"12345"], 5).is_ok());
        assert!(receive_chunks(&[b"123", b"45"], 5).is_ok());
        for chunks in [&[&b"123456"[..]][..], &[b"123", b"45", b"6"]] {
            let Err(ApiError::TooLarge(text)) = receive_chunks(chunks, 5) else {
                panic!("{chunks:?}")
            };
            assert!(
                text.contains("5 bytes") && text.contains("server.body_bytes_max"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_announces_too_much_is_refused_unread() {
        let mut body = Chunks {
            announced: Some(6),
            ..Chunks::new(&[b"123456"])
        };
        let Err(ApiError::TooLarge(text)) = run(receive(&mut body, 5, 30)) else {
            panic!()
        };
        assert!(text.contains("has 6 bytes"), "{text}");
        assert_eq!(body.polls, 0);
    }

    #[test]
    fn a_refused_body_is_taken_in_up_to_a_bound() {
        let megabyte = vec![0; 1 << 20];
        let mut body = Chunks::new(&[&megabyte[..]; 20]);
        run(discard(&mut body, Duration::from_secs(2)));
        assert_eq!(body.left.len(), 20 - 9);
    }

    #[test]
    fn a_body_that_never_comes_is_given_up() {
        struct Silent;
        impl Body for Silent {
            type Data = Bytes;
            type Error = std::io::Error;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }
        let refused = run(receive(&mut Silent, 5, 0));
        assert_eq!(refused, Err(ApiError::BodyTooSlow { within_s: 0 }));
        run(discard(Silent, Duration::ZERO));
    }
}
