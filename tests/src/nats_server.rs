//! A nats-server for tests: [`NatsServer`].

use std::fs;
use std::io::{Error, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use crate::nats_server as find_program;
use crate::patience::PATIENCE;
use crate::process::Process;

/// A nats-server with JetStream: on a random loopback port, with a store directory of its own, gone
/// when this is dropped.
pub struct NatsServer {
    port: u16,
    home: PathBuf,
    extra: Vec<String>,
    child: Option<Child>,
    guard: Option<Guard>,
}

impl NatsServer {
    /// Starts a server, and waits until it answers.
    ///
    /// # Errors
    /// There is no program, or it does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(&["-js"]).await
    }

    /// Starts a server with these arguments instead of `-js`.
    ///
    /// # Errors
    /// There is no program, or it does not start.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        let home = std::env::temp_dir().join(unique_prefix());
        fs::create_dir_all(&home)?;
        let extra = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { port: 0, home, extra, child: None, guard: None };
        // Another program may take the free port first; then another port is tried.
        for _ in 0..5 {
            server.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            if server.run().await.is_ok() {
                return Ok(server);
            }
        }
        server.run().await?;
        Ok(server)
    }

    /// Starts three servers that keep copies for each other.
    ///
    /// # Errors
    /// There is no program, or one does not start.
    pub async fn cluster() -> Result<Vec<Self>> {
        let listeners = [0; 3].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        let mut urls = Vec::new();
        for listener in listeners {
            urls.push(format!("nats://127.0.0.1:{}", listener?.local_addr()?.port()));
        }
        let routes = urls.join(",");
        let mut servers = Vec::new();
        for (index, own) in urls.iter().enumerate() {
            let name = format!("n{index}");
            let arguments =
                ["-js", "-n", &name, "--cluster_name", "c", "--cluster", own, "--routes", &routes];
            servers.push(Self::start_with(&arguments).await?);
        }
        Ok(servers)
    }

    /// The server that all tests of this process share. It ends with the process.
    ///
    /// # Errors
    /// There is no program, or it does not start.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<NatsServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// URL at which it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once, as a crash would. What it had not written is lost.
    pub fn kill(&mut self) {
        // First, lest it end a stranger that got the same process id.
        self.guard = None;
        if let Some(mut child) = self.child.take() {
            // An error says that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the server to end, and waits until it has.
    ///
    /// # Panics
    /// It does not run.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        self.guard = None;
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Stops it where it is: SIGSTOP.
    ///
    /// # Panics
    /// It does not run.
    pub fn freeze(&self) {
        self.process().freeze();
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Panics
    /// It does not run.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The processor time that it has used so far, from `/proc`; `None` where there is none.
    #[must_use]
    pub fn cpu_time(&self) -> Option<Duration> {
        Process::of(Some(self.child.as_ref()?.id())).cpu_time()
    }

    /// The bytes of its memory that are resident, from `/proc`; `None` where there is none.
    #[must_use]
    pub fn rss_bytes(&self) -> Option<u64> {
        Process::of(Some(self.child.as_ref()?.id())).rss_bytes()
    }

    fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// # Panics
    /// It was killed.
    fn process(&self) -> Process {
        Process::of(self.child.as_ref().map(Child::id))
    }

    /// Kills the server if it runs, and starts it again on the same port with the same store.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.run().await
    }

    /// Kills the server if it runs, and starts it again on the same port without what it had
    /// stored.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_empty(&mut self) -> Result<()> {
        self.kill();
        fs::remove_dir_all(self.home.join("store"))?;
        self.run().await
    }

    async fn run(&mut self) -> Result<()> {
        let mut command = Command::new(find_program()?);
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string()]);
        command.arg("-sd").arg(self.home.join("store")).args(&self.extra);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = self.child.insert(command.spawn()?);
        self.guard = Some(Guard::of(child, &self.home)?);
        let answered = self.until_it_answers().await;
        if answered.is_err() {
            self.kill();
        }
        answered
    }

    /// Waits for the greeting that a server sends to each client.
    async fn until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
                return Err(Error::other(format!("nats-server ended with {status}: {log}")));
            }
            if greeted(self.port).await {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(Error::other(format!("nats-server does not answer on port {} after {PATIENCE:?}", self.port)))
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

async fn greeted(port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut start = [0; 4];
        stream.read_exact(&mut start).await?;
        Ok::<_, Error>(&start == b"INFO")
    };
    matches!(timeout(Duration::from_secs(1), greeting).await, Ok(Ok(true)))
}

/// Ends the server and removes its directory when this process ends, however that happens: a shell
/// waits for the end of its standard input, whose other end is here.
struct Guard(Child);

impl Guard {
    fn of(server: &Child, home: &Path) -> Result<Self> {
        const SCRIPT: &str = r#"cat >/dev/null; kill -9 "$1" 2>/dev/null; sleep 1; rm -rf "$2""#;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "guard"]).arg(server.id().to_string()).arg(home);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before its input closes, or it would do its work.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A name that no other test has, fit for a NATS prefix.
#[must_use]
pub fn unique_prefix() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    format!("t{}-{}-{now}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}
