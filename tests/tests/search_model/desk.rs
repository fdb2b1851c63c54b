//! The desk: requests wait here until the search lets one through.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};

use aioq::Result;
use tokio::sync::oneshot;

/// An actor: a kicker, a worker, or a client that reruns a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Actor {
    Kicker(usize),
    Worker(usize),
    Rerunner(usize),
}

/// The desk of one world. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// True once every request passes without waiting.
    open: bool,
    waiting: BTreeMap<u64, Waiting>,
    last: u64,
    /// What each actor knows. An actor is a function of it.
    pasts: BTreeMap<Actor, Past>,
    /// Number of times that time has passed.
    passes: u64,
    /// The revisions of a key or record, numbered as they come.
    revisions: HashMap<(String, u64), usize>,
    trace: Vec<String>,
}

/// What an actor knows, by the answers that it has got.
#[derive(Default, Hash)]
struct Past {
    /// Hash of the answers to each request, in their order, since the last one that made it forget.
    /// The order of answers to different requests follows from them, or does not matter.
    answers: BTreeMap<String, u64>,
    /// Time of its last write of an entry.
    wrote: u64,
    waits: Waits,
    /// Number of messages that were delivered to it and are not acked.
    held: u32,
}

/// The wait of a kick for the job that an entry names.
#[derive(Clone, Copy, Default, Hash)]
struct Waits {
    /// Hash of the job.
    job: u64,
    /// Time at which the job was asked for first.
    since: u64,
    /// True once the entry was read again after that.
    began: bool,
}

impl Waits {
    fn learn(&mut self, fact: &str, passes: u64) {
        if let Some(entry) = fact.strip_prefix("get entry -> ") {
            let mut hasher = DefaultHasher::new();
            entry.split(' ').next().hash(&mut hasher);
            let job = hasher.finish();
            *self = if self.job == job {
                Self { began: true, ..*self }
            } else {
                Self { job, since: passes, began: false }
            };
        } else if !self.began {
            self.since = passes;
        }
    }
}

struct Waiting {
    actor: Actor,
    what: String,
    answers: &'static [&'static str],
    let_through: oneshot::Sender<usize>,
}

/// A request that waits, with one of its possible answers.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) actor: Actor,
    pub(crate) what: String,
    number: u64,
    answer: usize,
}

/// Takes a request back when its actor dies.
struct Place {
    desk: Desk,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.desk.lock().waiting.remove(&self.number);
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Waits until the search lets the request through, and returns the answer that it chose.
    pub(crate) async fn wait(&self, actor: Actor, what: String, answers: &'static [&'static str]) -> usize {
        let (let_through, through) = oneshot::channel();
        let place = {
            let mut desk = self.lock();
            if desk.open {
                return 0;
            }
            desk.last += 1;
            let number = desk.last;
            desk.waiting.insert(number, Waiting { actor, what, answers, let_through });
            Place { desk: self.clone(), number }
        };
        let answer = through.await.unwrap_or_default();
        drop(place);
        answer
    }

    /// Waits, makes the request, and notes what the actor learns of it.
    pub(crate) async fn pass<T>(
        &self,
        actor: Actor,
        what: String,
        request: impl Future<Output = Result<T>>,
        learns: impl FnOnce(&Self, &T) -> String,
    ) -> Result<T> {
        self.wait(actor, what.clone(), &[""]).await;
        let answer = request.await;
        let learned = match &answer {
            Ok(answer) => learns(self, answer),
            Err(error) => format!("{:?}", error.kind()),
        };
        self.learn(actor, &format!("{what} -> {learned}"));
        answer
    }

    /// Notes what an actor has learned.
    pub(crate) fn learn(&self, actor: Actor, fact: &str) {
        let mut desk = self.lock();
        if desk.open {
            return;
        }
        let passes = desk.passes;
        let past = desk.pasts.entry(actor).or_default();
        let (is_delivered, is_acked) = (fact.ends_with("is delivered"), fact.starts_with("ack"));
        past.held += u32::from(is_delivered);
        past.held = past.held.saturating_sub(u32::from(is_acked));
        let of_entry = fact.starts_with("get entry") || fact.starts_with("put entry");
        let forgets = match actor {
            // A kick begins anew with what an entry says, but for the time of its wait.
            Actor::Kicker(_) => of_entry,
            Actor::Worker(_) => (is_delivered && past.held == 1) || (is_acked && past.held == 0),
            Actor::Rerunner(_) => false,
        };
        if fact.starts_with("put entry") && !fact.ends_with("Conflict") {
            past.wrote = passes;
        }
        past.waits.learn(fact, passes);
        if forgets {
            past.answers.clear();
        }
        let request = fact.split(" -> ").next().unwrap_or_default();
        let answers = past.answers.entry(request.to_owned()).or_default();
        let mut hasher = DefaultHasher::new();
        (*answers, fact, passes).hash(&mut hasher);
        *answers = hasher.finish();
        desk.trace.push(format!("{actor:?} {fact}"));
    }

    /// Forgets an actor that died.
    pub(crate) fn forget(&self, actor: Actor) {
        self.lock().pasts.remove(&actor);
    }

    /// The number of a revision: 1 for the first one of its key.
    pub(crate) fn number(&self, key: &str, revision: u64) -> usize {
        let mut desk = self.lock();
        let next = desk.revisions.keys().filter(|(known, _)| known == key).count() + 1;
        *desk.revisions.entry((key.to_owned(), revision)).or_insert(next)
    }

    /// The requests that wait, in an order that does not depend on the time of their arrival.
    pub(crate) fn waiting(&self) -> Vec<Request> {
        let desk = self.lock();
        let mut requests: Vec<Request> = Vec::new();
        for (number, waiting) in &desk.waiting {
            for (answer, chosen) in waiting.answers.iter().enumerate() {
                let what = format!("{} {chosen}", waiting.what);
                requests.push(Request { actor: waiting.actor, what, number: *number, answer });
            }
        }
        requests.sort_by(|one, other| (one.actor, &one.what).cmp(&(other.actor, &other.what)));
        requests
    }

    /// The same request, in a world that has come to the same state.
    pub(crate) fn same(&self, request: &Request) -> Request {
        let same = |own: &Request| own.actor == request.actor && own.what == request.what;
        let found = self.waiting().into_iter().find(same);
        found.unwrap_or_else(|| panic!("{request:?} does not come again\n{}", self.trace()))
    }

    /// Lets a request through.
    pub(crate) fn let_through(&self, request: &Request) {
        let waiting = self.lock().waiting.remove(&request.number).unwrap();
        let _ = waiting.let_through.send(request.answer);
    }

    pub(crate) fn time_passes(&self) {
        let mut desk = self.lock();
        desk.passes += 1;
        desk.trace.push("time passes".to_owned());
    }

    pub(crate) fn note(&self, what: String) {
        self.lock().trace.push(what);
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        let waiting = {
            let mut desk = self.lock();
            desk.open = true;
            std::mem::take(&mut desk.waiting)
        };
        drop(waiting);
    }

    pub(crate) fn trace(&self) -> String {
        self.lock().trace.join("\n")
    }

    /// The pasts of all actors, and the time.
    pub(crate) fn hash(&self, hasher: &mut DefaultHasher) {
        let desk = self.lock();
        (&desk.pasts, desk.passes).hash(hasher);
    }
}
