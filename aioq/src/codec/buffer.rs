//! A buffer for each thread: what is encoded then costs one allocation, of its exact size.

use std::cell::Cell;

use bytes::Bytes;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger buffer is not kept.
const KEPT: usize = 64 * 1024;

/// An empty buffer to write into.
pub(crate) fn take() -> Vec<u8> {
    // A thread that ends has none any more.
    BUFFER.try_with(Cell::take).unwrap_or_default()
}

/// What was written, and the buffer back.
pub(crate) fn exact(buffer: Vec<u8>) -> Bytes {
    let bytes = Bytes::copy_from_slice(&buffer);
    give_back(buffer);
    bytes
}

pub(crate) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT {
        buffer.clear();
        // As in `take`: then there is nobody to keep it for.
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
}
