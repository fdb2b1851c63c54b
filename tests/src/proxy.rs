//! A way to a server that can lose answers: [`Proxy`].

use std::io::Result;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Treatment of the connections of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Passes on everything.
    Open,
    /// Passes on what clients say, and keeps what the server answers.
    Deaf,
    /// Closes the connections it has; takes new ones once it is open again.
    Cut,
}

/// Passes connections on to a server, until told otherwise. Ends when dropped.
pub struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before the server at `url` (`nats://host:port`).
    ///
    /// # Errors
    /// There is no free port.
    pub async fn before(url: &str) -> Result<Self> {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (mode, changes) = watch::channel(Mode::Open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), changes.clone()));
            }
        });
        Ok(Self { port, mode, accepting })
    }

    /// URL at which it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// From now on, what clients say reaches the server, and what it answers is lost.
    pub fn lose_answers(&self) {
        self.mode.send_replace(Mode::Deaf);
    }

    /// Breaks all connections, and lets new ones through.
    pub fn reconnect(&self) {
        self.mode.send_replace(Mode::Cut);
        self.mode.send_replace(Mode::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.mode.send_replace(Mode::Cut);
    }
}

async fn pass(client: TcpStream, server: String, changes: watch::Receiver<Mode>) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut broken = changes.clone();
    // A connection that has seen one change sees it out: deaf ones never hear again.
    broken.mark_unchanged();
    tokio::select! {
        done = forward(from_client, to_server, None) => done,
        done = forward(from_server, to_client, Some(changes)) => done,
        () = until_cut(broken) => Ok(()),
    }
}

/// Waits until the connections of this time are broken: cut, or opened again after they were deaf.
async fn until_cut(mut changes: watch::Receiver<Mode>) {
    while changes.changed().await.is_ok() {
        if *changes.borrow_and_update() != Mode::Deaf {
            return;
        }
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    changes: Option<watch::Receiver<Mode>>,
) -> Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let heard = changes.as_ref().is_none_or(|changes| *changes.borrow() == Mode::Open);
        if heard {
            to.write_all(&bytes[..read]).await?;
        }
    }
}
