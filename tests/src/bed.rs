//! A test bed: one backend, shared by everything in a test and by nothing else.

use aioq::backend::{OpenBackend, Settings};
use aioq::worker::WorkerOptions;
use aioq::{App, Backend, Client, Memory};
use aioq_nats::Nats;

use crate::{NatsServer, unique_prefix};

/// One backend for one test.
#[derive(Clone)]
pub enum Bed {
    /// In this process's memory.
    Memory(Memory),
    /// On the shared server, under a prefix of its own.
    Nats(Box<Nats>),
}

impl Bed {
    /// A bed in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(Memory::new())
    }

    /// A bed on the server that all tests of this process share.
    ///
    /// # Panics
    /// There is no nats-server, and none can be fetched: a NATS test is never skipped.
    pub async fn nats() -> Self {
        let server = NatsServer::shared().await.expect("a nats-server can be started");
        Self::Nats(Box::new(Nats::new(server.url()).prefix(unique_prefix())))
    }

    /// The backend, opened anew: another connection to the same content.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self {
            Self::Memory(memory) => memory.open(),
            Self::Nats(nats) => nats.open(),
        }
    }

    /// An app on this bed.
    pub fn app(&self) -> App {
        App::new(Opener(self.clone()))
    }

    /// An app on this bed whose worker consumes these queues, so that a test's jobs are its own.
    pub fn app_for(&self, queue: &str) -> App {
        self.app().worker_options(WorkerOptions::new().queues([queue]))
    }

    /// A client of its own on this bed.
    ///
    /// # Panics
    /// The backend does not start.
    pub async fn client(&self) -> Client {
        Client::connect(self.backend()).await.expect("the backend starts")
    }
}

struct Opener(Bed);

impl OpenBackend for Opener {
    fn configure(&mut self, _settings: &Settings) -> aioq::Result<()> {
        Ok(())
    }

    fn open(&self) -> Backend {
        self.0.backend()
    }

    fn scheme(&self) -> Option<&'static str> {
        None
    }
}

/// Makes each test twice: on memory and on NATS.
#[macro_export]
macro_rules! on_each_backend {
    ($($(#[$attribute:meta])* async fn $name:ident($bed:ident: Bed) $body:block)*) => {
        $(async fn $name($bed: $crate::Bed) $body)*

        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            $(#[$attribute])*
            async fn $name() {
                super::$name($crate::Bed::memory()).await;
            })*
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread")]
            $(#[$attribute])*
            async fn $name() {
                super::$name($crate::Bed::nats().await).await;
            })*
        }
    };
}
