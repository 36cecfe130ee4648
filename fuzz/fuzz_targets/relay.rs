//! Any bytes as another node's: read or refused, and what was read says the same when it is written and read again.
#![no_main]

use bytes::Bytes;
use fanwire::relay::envelope::Envelope;
use fanwire::relay::parcel::{Content, Parcel};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(parcel) = Parcel::decode(bytes.clone()) {
        if let Content::Envelopes(run) = &parcel.content {
            run.envelopes.iter().cloned().for_each(read);
        }
        assert_eq!(Parcel::decode(parcel.encode()), Ok(parcel));
    }
    read(bytes);
});

fn read(bytes: Bytes) {
    if let Ok(envelope) = Envelope::decode(bytes) {
        assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
    }
}
