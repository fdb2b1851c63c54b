//! The jobs of a flow, and the messages that they become.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Flow;
use super::step::Step;
use super::takes::Takes;
use crate::codec::{Codec, Payload};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message, Name, OnParentFailure, ParentWait, Take, TakeOf};
use crate::task::{Call, KickOptions, Task};
use crate::time::Timestamp;

/// The jobs that the next one waits for, and all jobs before them.
#[derive(Clone)]
pub struct Branches {
    /// All jobs, parents before their children. A shared one may be there more than once.
    nodes: Vec<Arc<Node>>,
    /// The last job of each branch.
    ends: Vec<Parent>,
    /// True if the next job takes the outputs as one list.
    is_list: bool,
}

/// A job of a flow.
#[derive(Debug)]
pub(super) struct Node {
    key: u64,
    step: Step,
    pub(super) options: KickOptions,
    parents: Vec<Parent>,
    /// The arguments that are results of the parents, by their places in `parents`.
    takes: Vec<(Name, TakeOf)>,
    /// True if the job runs whatever becomes of its parents.
    settled: bool,
}

/// A job that another one waits for.
#[derive(Clone, Debug)]
enum Parent {
    /// A job of the flow, by its key.
    Node(u64),
    /// A job that was kicked before.
    Job(JobId),
}

impl Node {
    fn new(step: Step, options: KickOptions) -> Self {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        Self { key, step, options, parents: Vec::new(), takes: Vec::new(), settled: false }
    }
}

impl Branches {
    /// One call.
    pub(super) fn root(step: Step, options: KickOptions) -> Self {
        Self::of(Vec::new(), Node::new(step, options))
    }

    /// A flow.
    pub(super) fn of(mut before: Vec<Arc<Node>>, last: Node) -> Self {
        let ends = vec![Parent::Node(last.key)];
        before.push(Arc::new(last));
        Self { nodes: before, ends, is_list: false }
    }

    /// A job that was kicked before.
    pub(crate) fn job(id: JobId) -> Self {
        Self { nodes: Vec::new(), ends: vec![Parent::Job(id)], is_list: false }
    }

    /// Branches whose outputs are one list.
    pub(super) fn list(branches: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self { nodes: Vec::new(), ends: Vec::new(), is_list: true };
        for branch in branches {
            all.nodes.extend(branch.nodes);
            all.ends.extend(branch.ends);
        }
        all
    }

    /// Branches whose outputs are an argument each.
    pub(super) fn tuple(branches: impl IntoIterator<Item = Self>) -> Self {
        Self { is_list: false, ..Self::list(branches) }
    }

    /// The flow that goes on with a job which takes the outputs.
    pub(crate) fn then<In, N: Takes<In>>(self, next: N) -> Flow<N::Task> {
        let step = next.into_step();
        let takes = self.takes(&step);
        self.go_on(Node { takes, ..Node::new(step, KickOptions::new()) })
    }

    /// The flow that goes on with a job which takes the outputs or errors.
    pub(crate) fn then_settled<In, N: Takes<In>>(self, next: N) -> Flow<N::Task> {
        let step = next.into_step();
        let takes = self.takes(&step);
        self.go_on(Node { takes, settled: true, ..Node::new(step, KickOptions::new()) })
    }

    /// The flow that goes on with a job which takes nothing.
    pub(crate) fn finally<T: Task, S>(self, next: Call<T, S>) -> Flow<T> {
        let (args, options) = next.into_parts();
        self.go_on(Node { settled: true, ..Node::new(Step::with_all::<T>(args), options) })
    }

    /// The first arguments of a task as outputs of the branches.
    fn takes(&self, step: &Step) -> Vec<(Name, TakeOf)> {
        let outputs = if self.is_list {
            vec![TakeOf::Each((0..self.ends.len()).collect())]
        } else {
            (0..self.ends.len()).map(TakeOf::One).collect()
        };
        step.params.iter().map(|param| Name::from_static(param.name())).zip(outputs).collect()
    }

    fn go_on<T: Task>(self, next: Node) -> Flow<T> {
        Flow::new(self.nodes, Node { parents: self.ends, ..next })
    }
}

impl fmt::Debug for Branches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branches").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// The messages of jobs, each of which comes after its parents.
pub(super) fn messages<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    codec: Codec,
    mut new_id: impl FnMut() -> JobId,
    now: Timestamp,
) -> Result<Vec<Message>> {
    let (mut messages, mut ids) = (Vec::new(), HashMap::new());
    for node in nodes {
        if ids.contains_key(&node.key) {
            continue;
        }
        let message = node.message(&ids, codec, &mut new_id, now)?;
        ids.insert(node.key, message.id.clone());
        messages.push(message);
    }
    Ok(messages)
}

impl Node {
    /// The message of the job. `ids` are those of the jobs before it.
    fn message(
        &self,
        ids: &HashMap<u64, JobId>,
        codec: Codec,
        new_id: impl FnOnce() -> JobId,
        now: Timestamp,
    ) -> Result<Message> {
        let parents: Vec<JobId> = self.parents.iter().filter_map(|parent| parent.id(ids)).collect();
        let options = self.options.clone().after_ids(parents.iter().cloned());
        self.check(&options)?;
        let (task, arguments) = (Name::from_static(self.step.task), self.step.encode(codec)?);
        let mut message =
            Message::first_attempt(task, arguments, options, Some(self.step.options), new_id, now)?;
        let Some(ties) = message.ties.as_mut().filter(|ties| ties.wait.is_some()) else {
            // An empty list of parents: nothing is waited for, and the argument is known.
            let empty = self.takes.iter().map(|(name, _)| (name, Payload::array(codec, &[])));
            message.arguments = message.arguments.with(empty)?;
            return Ok(message);
        };
        let places: HashMap<&JobId, usize> =
            ties.parents.iter().enumerate().map(|(place, id)| (id, place)).collect();
        let place = |parent: &usize| places.get(&parents[*parent]).copied().unwrap_or_default();
        let take = |(argument, of): &(Name, TakeOf)| {
            let of = match of {
                TakeOf::One(parent) => TakeOf::One(place(parent)),
                TakeOf::Each(parents) => TakeOf::Each(parents.iter().map(place).collect()),
            };
            Take { argument: argument.clone(), of, settled: self.settled }
        };
        let takes = self.takes.iter().map(take).collect();
        if let Some(wait) = &mut ties.wait {
            let on_failure = if self.settled { OnParentFailure::Run } else { wait.on_failure };
            *wait = ParentWait { takes, on_failure, ..std::mem::take(wait) };
        }
        Ok(message)
    }

    /// Refuses options that cannot hold for a job that takes results.
    fn check(&self, options: &KickOptions) -> Result<()> {
        let task = self.step.task;
        let takes = |name: &str| self.takes.iter().any(|(argument, _)| **argument == *name);
        let why = if self.step.is_misnamed {
            format!(
                "name the task itself, as `then({0})` or `then({0}::with(..))`: a closure would not be called",
                self.step.name()
            )
        } else if self.takes.is_empty() {
            return Ok(());
        } else if !self.settled && options.runs_after_failure() {
            "without the result of a parent it has nothing to take: use `then_settled`".to_owned()
        } else if let Some(unique) = self.step.options.unique.filter(|_| !options.has_unique_key())
            && (unique.by.is_empty() || unique.by.iter().any(|name| takes(name)))
        {
            "its unique key is made of results that are not known yet: give it one with `.unique_key(..)`"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidArgument, format!("task `{task}`: {why}")))
    }
}

impl Parent {
    fn id(&self, ids: &HashMap<u64, JobId>) -> Option<JobId> {
        match self {
            Self::Node(key) => ids.get(key).cloned(),
            Self::Job(id) => Some(id.clone()),
        }
    }
}
