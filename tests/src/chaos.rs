//! Pulls plugs while jobs flow, and counts what became of them: [`Chaos`].
//!
//! Workers and producers are processes, so that they can be killed. What ran is in a ledger that
//! the jobs write; what was promised is what the producers were told.

mod figures;
mod flow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aioq::Client;
use aioq_nats::Nats;
use tokio::time::{Instant, sleep};

pub use self::figures::Figures;
use self::figures::Kill;
pub use self::flow::{Flow, produce};
use self::flow::{Producer, Tail};
use crate::demo::{Demo, DemoWorker};
use crate::nats_server::NatsServer;
use crate::patience::PATIENCE;
use crate::until::until;

/// Target of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Target {
    Worker,
    Producer,
    Server,
}

/// Means of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    /// SIGTERM, then started again.
    Term,
    /// SIGKILL, then started again.
    Kill,
    /// SIGSTOP, and SIGCONT when its leases are over.
    Freeze,
}

/// The lease of the jobs.
const ACK_WAIT: Duration = Duration::from_secs(1);

/// Span of a freeze: longer than the leases, also if they were extended just before.
const FROZEN: Duration = Duration::from_millis(2500);

/// Servers, two workers and two producers, supervised.
pub struct Chaos {
    servers: Vec<NatsServer>,
    demo: Demo,
    client: Client,
    workers: Vec<DemoWorker>,
    producers: Vec<Producer>,
    flow: Flow,
    program: PathBuf,
    tail: Tail,
    kills: Vec<Kill>,
    /// Producers that were started, for their names.
    started: usize,
}

impl Chaos {
    /// Jobs flow through a server of its own; `program` is one that calls [`produce`].
    ///
    /// # Panics
    /// Something does not start.
    pub async fn start(program: &Path) -> Self {
        let server = NatsServer::start().await.expect("a nats-server can be started");
        Self::start_on(vec![server], 1, program).await
    }

    /// Lets jobs flow through these servers, which keep `replicas` copies.
    ///
    /// # Panics
    /// Something does not start.
    pub async fn start_on(servers: Vec<NatsServer>, replicas: usize, program: &Path) -> Self {
        let demo = Demo::at(servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(","));
        // Before everybody else: it counts when the streams are created.
        let nats = Nats::new(demo.url()).prefix(demo.prefix()).replicas(replicas);
        let client = Client::connect(nats.deadline(PATIENCE)).await.expect("the backend starts");
        let workers = vec![worker(&demo).await, worker(&demo).await];
        let (flow, tail) = (Flow::default(), Tail::of(&demo.ledger()));
        let (producers, kills, program) = (Vec::new(), Vec::new(), program.to_owned());
        let mut chaos =
            Self { servers, demo, client, workers, producers, flow, program, tail, kills, started: 0 };
        for _ in 0..2 {
            let producer = chaos.producer().await;
            chaos.producers.push(producer);
        }
        chaos
    }

    async fn producer(&mut self) -> Producer {
        self.started += 1;
        let name = format!("p{}", self.started);
        Producer::start(&self.program, &self.demo, &name, &self.flow).await
    }

    /// Waits until this number of further jobs has run.
    ///
    /// # Panics
    /// They do not: the flow has stopped.
    pub async fn until_ran(&self, jobs: usize) {
        let wanted = self.tail.len() + jobs;
        until("jobs flow", async || self.tail.len() >= wanted).await;
    }

    /// Hits the one of this number (of all its kind, modulo), and sees that it runs again.
    ///
    /// # Panics
    /// It does not end as it should, or does not start again.
    pub async fn strike(&mut self, target: Target, means: Means, number: usize) {
        self.kills.push(Kill { target, means, at: Instant::now() });
        match target {
            Target::Worker => self.strike_worker(means, number % self.workers.len()).await,
            Target::Producer => self.strike_producer(means, number % self.producers.len()).await,
            Target::Server => self.strike_server(means, number % self.servers.len()).await,
        }
    }

    async fn strike_worker(&mut self, means: Means, index: usize) {
        match means {
            Means::Freeze => {
                self.workers[index].freeze();
                sleep(FROZEN).await;
                self.workers[index].thaw();
            }
            Means::Term => {
                self.workers.swap_remove(index).stop().await;
                self.workers.push(worker(&self.demo).await);
            }
            Means::Kill => {
                self.workers.swap_remove(index).kill().await;
                self.workers.push(worker(&self.demo).await);
            }
        }
    }

    async fn strike_producer(&mut self, means: Means, index: usize) {
        if means == Means::Freeze {
            self.producers[index].freeze();
            sleep(FROZEN).await;
            return self.producers[index].thaw();
        }
        self.producers.swap_remove(index).end(means).await;
        let next = self.producer().await;
        self.producers.push(next);
    }

    async fn strike_server(&mut self, means: Means, index: usize) {
        let server = &mut self.servers[index];
        match means {
            Means::Freeze => {
                server.freeze();
                sleep(FROZEN).await;
                return server.thaw();
            }
            Means::Term => server.terminate(),
            Means::Kill => server.kill(),
        }
        // An outage that everybody notices.
        sleep(Duration::from_millis(500)).await;
        server.restart().await.expect("the server starts again");
    }

    /// Stops the producers, waits until everything has run, and counts.
    ///
    /// # Panics
    /// Something is left in the queue, or a worker has ended on its own or does not end well.
    pub async fn end(mut self) -> Figures {
        for producer in self.producers.drain(..) {
            producer.end(Means::Term).await;
        }
        until("the queue is empty", async || {
            let depths = self.client.backend().broker().depths(&["default".to_owned()]).await;
            depths.is_ok_and(|depths| depths[0].ready + depths[0].held + depths[0].scheduled == 0)
        })
        .await;
        for worker in self.workers.drain(..) {
            worker.stop().await;
        }
        let ran = self.tail.stop().await;
        Figures::count(&self.demo, &self.client, &self.flow.confirmed(), &ran, &self.kills).await
    }

    /// The servers that the jobs flow through.
    #[must_use]
    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// Prefix of the names of this flow on the server.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.demo.prefix()
    }
}

async fn worker(demo: &Demo) -> DemoWorker {
    // Nobody here is poison, but many die of it.
    demo.worker(&["--ack-wait", &format!("{}s", ACK_WAIT.as_secs()), "--max-crashes", "1000"]).await
}
