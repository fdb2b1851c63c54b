//! The runtime that extends leases.

use std::cell::Cell;
use std::sync::{OnceLock, mpsc};

use tokio::runtime::{Builder, Handle};

/// The runtime on which workers extend leases. It has a thread of its own, so a body that blocks
/// its thread cannot cost a job its lease. A broker opens the connection for
/// [`Receipt::extend`](super::Receipt::extend) here.
///
/// Worker heartbeats and cancel requests run here too. A [`KvStore`](crate::store::KvStore) that
/// opens a connection per runtime can ask [`on_lease_runtime`].
///
/// One per process, for the life of the process.
#[must_use]
pub fn lease_runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        let run = move || {
            ON_LEASE_RUNTIME.set(true);
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("the system grants one more event queue");
            // The receiver waits below, so the handle arrives.
            let _ = sender.send(runtime.handle().clone());
            runtime.block_on(std::future::pending::<()>());
        };
        std::thread::Builder::new()
            .name("aioq-lease".to_owned())
            .spawn(run)
            .expect("the system grants one more thread");
        receiver.recv().expect("the lease thread says hello first")
    })
}

thread_local! {
    static ON_LEASE_RUNTIME: Cell<bool> = const { Cell::new(false) };
}

/// True if the caller runs on [`lease_runtime`], and so must not wait for anything that a body may
/// block.
#[must_use]
pub fn on_lease_runtime() -> bool {
    ON_LEASE_RUNTIME.get()
}
