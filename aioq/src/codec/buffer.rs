//! A buffer per thread. Encoding then takes one allocation, of the exact size.

use std::cell::Cell;

use bytes::Bytes;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Maximum capacity of a kept buffer.
const KEPT: usize = 64 * 1024;

/// An empty buffer to write into.
pub(crate) fn take() -> Vec<u8> {
    // Thread-local values are gone while a thread ends.
    BUFFER.try_with(Cell::take).unwrap_or_default()
}

/// Copies the written bytes, and gives the buffer back.
pub(crate) fn exact(buffer: Vec<u8>) -> Bytes {
    let bytes = Bytes::copy_from_slice(&buffer);
    give_back(buffer);
    bytes
}

pub(crate) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT {
        buffer.clear();
        // As in `take`.
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
}
