//! How many bytes all runs and answers hold together, from their making until their last holder drops them: a buffer
//! shared by a thousand outboxes counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The sum, of the whole process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LiveBytes(Arc<AtomicUsize>);

struct Tracked {
    bytes: Bytes,
    sum: LiveBytes,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.sum.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl LiveBytes {
    /// The same bytes, counted until the last clone or slice of the answer is gone.
    pub fn track(&self, bytes: Bytes) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Tracked {
            bytes,
            sum: self.clone(),
        })
    }

    /// The sum. Bytes.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
