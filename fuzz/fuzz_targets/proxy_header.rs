//! Any bytes as the header of the PROXY protocol: read the same whole and in pieces, and not a byte of what follows it.
#![no_main]

use fanwire::address::proxy_header::{Broken, HEADER_BYTES_MAX, Parsed, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (begin, rest) = input;
    let begin: &[u8] = match begin % 3 {
        0 => b"",
        1 => b"PROXY ",
        _ => b"\r\n\r\n\0\r\nQUIT\n",
    };
    let stream = [begin, rest].concat();
    let whole = parse(&stream);
    match whole {
        Ok(Parsed::Complete(_, length)) => {
            assert!((15..=HEADER_BYTES_MAX).contains(&length) && length <= stream.len());
            for cut in 0..length {
                assert_eq!(parse(&stream[..cut]), Ok(Parsed::Incomplete));
            }
            assert_eq!(parse(&stream[..length]), whole);
        }
        // Whatever comes next, it will not be waited for endlessly.
        Ok(Parsed::Incomplete) => assert!(stream.len() < HEADER_BYTES_MAX),
        // More of it does not mend it.
        Err(broken) => {
            let more = [&stream[..], b"\r\n\r\n"].concat();
            let still = parse(&more);
            assert!(
                still == Err(broken) || still == Err(Broken::Malformed),
                "{still:?}"
            );
        }
    }
});
