//! The jobs of a world, and the clients that kick them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::flow::join;
use aioq::prelude::*;
use aioq::tasks::OnParentFailure;
use aioq::{JobId, Result};
use aioq_tests::faults::{Fact, Link};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::bodies::{Kind, Stage, perform, play};
use crate::crew::Crew;

/// Number of tries of a kick.
const TRIES: usize = 4;

/// The jobs of all clients. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Graph {
    nodes: Arc<Mutex<BTreeMap<JobId, Node>>>,
    flows: Arc<Mutex<Vec<Vec<JobId>>>>,
}

/// A job as its client knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) parents: Vec<JobId>,
    pub(super) on_failure: OnParentFailure,
    /// True if it takes the result of its first parent.
    pub(super) takes: bool,
    /// True if its kick was confirmed, and it was not there before.
    pub(super) confirmed: bool,
    /// True if a client has asked to remove it.
    pub(super) removed: bool,
}

impl Graph {
    pub(super) fn nodes(&self) -> BTreeMap<JobId, Node> {
        self.nodes.lock().unwrap().clone()
    }

    /// The jobs of each flow, the first one first.
    pub(super) fn flows(&self) -> Vec<Vec<JobId>> {
        self.flows.lock().unwrap().clone()
    }

    fn add(&self, id: &JobId, node: Node) {
        self.nodes.lock().unwrap().insert(id.clone(), node);
    }

    fn change(&self, id: &JobId, change: impl FnOnce(&mut Node)) {
        change(self.nodes.lock().unwrap().get_mut(id).unwrap());
    }

    fn confirmed(&self) -> Vec<JobId> {
        self.nodes().into_iter().filter(|(_, node)| node.confirmed).map(|(id, _)| id).collect()
    }
}

/// Takes the number of the run of its parent.
#[task(retry(max = 2, backoff = "1s"))]
async fn follow(
    parent: usize,
    kind: usize,
    millis: u64,
    #[inject] ctx: &Context,
    #[inject] stage: &Stage,
) -> TaskResult<usize> {
    perform(parent, kind, millis, ctx, stage).await
}

/// Takes the numbers of the runs of its parents.
#[task(retry(max = 2, backoff = "1s"))]
async fn gather(
    parents: Vec<usize>,
    kind: usize,
    millis: u64,
    #[inject] ctx: &Context,
    #[inject] stage: &Stage,
) -> TaskResult<usize> {
    perform(parents[0], kind, millis, ctx, stage).await
}

/// How jobs are kicked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Bulk,
    Flow,
}

/// A kick of one job, or of a diamond.
struct Plan {
    ids: Vec<JobId>,
    jobs: Vec<Node>,
    /// What the bodies do, and how long they last.
    bodies: Vec<(usize, u64)>,
    shape: Shape,
}

impl Plan {
    async fn send(&self, client: &Client) -> Result<()> {
        let call = |place: usize| {
            let ((kind, millis), Node { parents, on_failure, .. }) = (self.bodies[place], &self.jobs[place]);
            play(kind, millis).id(&self.ids[place]).after_ids(parents).on_parent_failure(*on_failure)
        };
        match self.shape {
            Shape::One => client.kiq(call(0)).await.map(drop),
            Shape::Bulk => {
                let kicked = client.kiq_all((0..self.ids.len()).rev().map(call)).await;
                kicked.into_iter().try_for_each(|kicked| kicked.map(drop))
            }
            Shape::Flow => {
                let root = play(self.bodies[0].0, self.bodies[0].1).id(&self.ids[0]).shared();
                let side = |place: usize| {
                    let (kind, millis) = self.bodies[place];
                    root.clone().then(follow::with(kind, millis)).id(&self.ids[place])
                };
                let (kind, millis) = self.bodies[3];
                let end = join([side(1), side(2)]).then(gather::with(kind, millis)).id(&self.ids[3]);
                client.kiq_flow(end).await.map(drop)
            }
        }
    }
}

struct Kicker {
    name: String,
    made: usize,
    /// True if its jobs end well and at once, so that parents end at the same time.
    is_hurried: bool,
    link: Link,
    client: Client,
    graph: Graph,
    random: fastrand::Rng,
}

pub(super) async fn start_client(crew: &mut Crew, graph: &Graph, number: usize) -> JoinHandle<()> {
    let (link, clock) = (crew.faults.link(&crew.backend), crew.clock());
    let client = Client::builder(link.backend().clock(&clock)).deadline(Duration::from_secs(4));
    let client = client.connect().await.unwrap();
    let (graph, is_hurried, random) = (graph.clone(), crew.random.bool(), crew.random.fork());
    let kicker = Kicker { name: format!("d{number}"), made: 0, is_hurried, link, client, graph, random };
    tokio::spawn(kicker.work(crew.random.usize(4..16)))
}

impl Kicker {
    async fn work(mut self, steps: usize) {
        for _ in 0..steps {
            sleep(Duration::from_millis(self.random.u64(..1_200))).await;
            if self.random.u32(..4) == 0 {
                let span = Duration::from_millis(self.random.u64(200..4_000));
                self.link.freeze_at_write(self.random.u32(1..8), span);
            }
            match self.random.u32(..12) {
                0..2 => self.kick_root().await,
                2..5 => self.kick_child().await,
                5..7 => self.kick_diamond(Shape::Bulk).await,
                7..9 => self.kick_diamond(Shape::Flow).await,
                _ => self.steer().await,
            }
        }
    }

    fn new_id(&mut self) -> JobId {
        self.made += 1;
        format!("{}-{:03}", self.name, self.made).into()
    }

    /// What a body does, and how long it lasts.
    fn body(&mut self) -> (usize, u64) {
        if self.is_hurried {
            return (Kind::WELL, 0);
        }
        (Kind::draw(&mut self.random), *self.random.choice(&[0, 0, 20, 300, 1_500]).unwrap())
    }

    fn plan(&mut self, shape: Shape, parents: Vec<Vec<JobId>>, on_failure: OnParentFailure) -> Plan {
        let jobs = parents.into_iter().map(|parents| {
            let takes = shape == Shape::Flow && !parents.is_empty();
            Node { parents, on_failure, takes, ..Node::default() }
        });
        let jobs: Vec<_> = jobs.collect();
        let bodies = jobs.iter().map(|_| self.body()).collect();
        Plan { ids: Vec::new(), jobs, bodies, shape }
    }

    async fn kick_root(&mut self) {
        let mut plan = self.plan(Shape::One, vec![Vec::new()], OnParentFailure::Fail);
        plan.ids.push(self.new_id());
        self.kick(plan).await;
    }

    /// A child of one to three jobs that were confirmed, or of one that nobody knows.
    async fn kick_child(&mut self) {
        let known = self.graph.confirmed();
        let mut parents: Vec<JobId> =
            (0..self.random.usize(1..=3)).filter_map(|_| self.random.choice(known.clone())).collect();
        parents.sort_unstable();
        parents.dedup();
        if parents.is_empty() || self.random.u32(..20) == 0 {
            parents.push("nobody".into());
        }
        let on_failure = match self.random.u32(..6) {
            0 => OnParentFailure::Run,
            1 => OnParentFailure::Wait,
            _ => OnParentFailure::Fail,
        };
        let mut plan = self.plan(Shape::One, vec![parents], on_failure);
        plan.ids.push(self.new_id());
        self.kick(plan).await;
    }

    /// A diamond, or three parents of one job: in one bulk, its children before their parents, or
    /// as a flow.
    async fn kick_diamond(&mut self, shape: Shape) {
        let ids: Vec<JobId> = (0..4).map(|_| self.new_id()).collect();
        let root = vec![ids[0].clone()];
        let parents = match shape == Shape::Bulk && self.random.bool() {
            true => vec![Vec::new(), Vec::new(), Vec::new(), ids[..3].to_vec()],
            false => vec![Vec::new(), root.clone(), root, ids[1..3].to_vec()],
        };
        let plan = self.plan(shape, parents, OnParentFailure::Fail);
        self.kick(Plan { ids, ..plan }).await;
    }

    /// Kicks until it is confirmed, a few times.
    async fn kick(&mut self, plan: Plan) {
        for (id, node) in plan.ids.iter().zip(&plan.jobs) {
            self.graph.add(id, node.clone());
        }
        if plan.shape == Shape::Flow {
            self.graph.flows.lock().unwrap().push(plan.ids.clone());
        }
        let ids = &plan.ids;
        self.note(format!("kicks {ids:?}"));
        for _ in 0..TRIES {
            match plan.send(&self.client).await {
                Ok(()) => {
                    self.note(format!("has kicked {ids:?}"));
                    ids.iter().for_each(|id| self.graph.change(id, |node| node.confirmed = true));
                    return;
                }
                Err(error) => self.note(format!("a kick of {ids:?} fails: {:?}", error.kind())),
            }
            if self.random.u32(..3) == 0 {
                return;
            }
        }
    }

    /// Cancels, removes or reruns a job.
    async fn steer(&mut self) {
        let Some(id) = self.random.choice(self.graph.confirmed()) else { return };
        let (jobs, draw) = (self.client.jobs(), self.random.u32(..8));
        self.note(format!("steers {id}: {draw}"));
        let answer = match draw {
            0 => jobs.cancel(&id).await,
            1 => {
                self.graph.change(&id, |node| node.removed = true);
                jobs.remove(&id).await
            }
            _ => jobs.retry(&id).await,
        };
        self.note(format!("has steered {id}: {:?}", answer.map_err(|error| error.kind())));
    }

    fn note(&self, what: String) {
        self.link.faults().journal().note(self.link.number(), Fact::Note(what));
    }
}
