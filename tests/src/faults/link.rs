//! The way of one process to the backend.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::Queued;
use aioq::store::Stored;
use aioq::{Backend, Error, ErrorKind, JobId, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::broker::FaultyBroker;
use super::stores::{FaultyJobs, FaultyKv};
use super::{Broken, Fact, Faults};

/// The link of one process. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    pub(super) faults: Faults,
    backend: Backend,
    inner: Arc<Inner>,
}

struct Inner {
    number: usize,
    down_until: Mutex<Option<Instant>>,
    frozen_until: Mutex<Option<Instant>>,
    /// Number of writes until the process freezes, and for how long.
    freezes_at: Mutex<Option<(u32, Duration)>>,
    /// Counts the cuts that watches noticed.
    cuts: watch::Sender<u64>,
    /// Requests arrive in the order in which they were sent, also behind one that is late.
    order: Arc<tokio::sync::Mutex<()>>,
    listened: AtomicBool,
    /// The jobs that a kick has asked for, where [`Broken::Takeovers`] holds.
    seen: Mutex<HashMap<JobId, Seen>>,
    /// True from a mark that was not made until the next write.
    doubts: AtomicBool,
    /// Planned faults of the next requests of a kind.
    plan: Mutex<Vec<(&'static str, Fault)>>,
}

/// What a kick has last seen of a job.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) record: Option<Stored>,
    pub(super) message: Option<Queued>,
}

/// Faults of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Nothing,
    /// It is not done.
    Refused,
    /// It is done, and its answer is lost.
    Lost,
    /// Its answer is lost, and it is done later.
    Late,
    /// It is done twice.
    Twice,
}

impl Link {
    pub(super) fn new(faults: Faults, number: usize, to: &Backend) -> Self {
        let inner = Inner {
            number,
            down_until: Mutex::default(),
            frozen_until: Mutex::default(),
            freezes_at: Mutex::default(),
            cuts: watch::Sender::new(0),
            order: Arc::default(),
            listened: AtomicBool::new(false),
            seen: Mutex::default(),
            doubts: AtomicBool::new(false),
            plan: Mutex::default(),
        };
        Self { faults, backend: to.clone(), inner: Arc::new(inner) }
    }

    /// The backend as it looks from this end of the link.
    ///
    /// # Panics
    /// The backend keeps no records.
    #[must_use]
    pub fn backend(&self) -> Backend {
        let jobs = Arc::clone(self.backend.jobs().expect("the backend keeps records"));
        let broker = FaultyBroker { link: self.clone(), inner: Arc::clone(self.backend.broker()) };
        let kv = FaultyKv { link: self.clone(), inner: Arc::clone(self.backend.kv()) };
        Backend::new(broker, FaultyJobs { link: self.clone(), inner: jobs }, kv)
    }

    /// The world that it is in.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Its number in its world.
    #[must_use]
    pub fn number(&self) -> usize {
        self.inner.number
    }

    /// True if a listener has begun to take messages over this link.
    #[must_use]
    pub fn has_listened(&self) -> bool {
        self.inner.listened.load(Ordering::Relaxed)
    }

    /// The next requests of that kind go wrong so, one after the other.
    ///
    /// # Panics
    /// A thread panicked while it planned a fault.
    pub fn plan(&self, what: &'static str, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().map(|fault| (what, fault));
        self.inner.plan.lock().expect("nothing panics while it is locked").extend(faults);
    }

    pub(super) fn planned(&self, what: &str) -> Option<Fault> {
        let mut plan = self.inner.plan.lock().expect("nothing panics while it is locked");
        let first = plan.iter().position(|(kind, _)| *kind == what)?;
        Some(plan.remove(first).1)
    }

    /// True if marks are not made: what this kick asks until its next write is answered as before.
    pub(super) fn doubts(&self) -> bool {
        let doubts = self.faults.breaks(Broken::Takeovers);
        self.inner.doubts.fetch_or(doubts, Ordering::Relaxed);
        doubts
    }

    /// The answer of before, if a kick that doubts this job asks for it.
    pub(super) fn doubted(&self, id: &JobId) -> Option<Seen> {
        let seen = self.inner.seen.lock().expect("nothing panics while it is locked");
        seen.get(id).filter(|_| self.inner.doubts.load(Ordering::Relaxed)).cloned()
    }

    pub(super) fn saw(&self, id: &JobId, see: impl FnOnce(&mut Seen)) {
        if self.faults.breaks(Broken::Takeovers) {
            let mut seen = self.inner.seen.lock().expect("nothing panics while it is locked");
            see(seen.entry(id.clone()).or_default());
        }
    }

    pub(super) fn listens(&self) {
        self.inner.listened.store(true, Ordering::Relaxed);
    }

    pub(super) fn note(&self, fact: Fact) {
        self.faults.journal().note(self.number(), fact);
    }

    fn fault(&self, what: &'static str, of: &str, fault: &'static str) {
        self.note(Fact::Fault(what, of.to_owned(), fault));
    }

    pub(super) fn is_down(&self) -> bool {
        let until = *self.inner.down_until.lock().expect("nothing panics while it is locked");
        self.faults.are_on() && until.is_some_and(|until| Instant::now() < until)
    }

    /// A request that changes nothing.
    pub(super) async fn ask<T>(
        &self,
        what: &'static str,
        of: &str,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let fault = match self.begin(what, of).await? {
            Fault::Late | Fault::Twice => Fault::Nothing,
            fault => fault,
        };
        drop(self.inner.order.lock().await);
        let answer = answer.await;
        self.end(what, of, fault, answer).await
    }

    /// A request that changes something: `act` does it, each time that it is called.
    pub(super) async fn tell<T, F>(&self, what: &'static str, of: &str, act: impl Fn() -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.freeze_if_planned();
        self.inner.doubts.store(false, Ordering::Relaxed);
        let fault = self.begin(what, of).await?;
        let order = Arc::clone(&self.inner.order).lock_owned().await;
        if fault == Fault::Late {
            self.fault(what, of, "gets no answer and arrives late");
            let (late, act) = (self.delay(), act());
            tokio::spawn(async move {
                sleep(late).await;
                // The caller does not wait any more.
                drop(act.await);
                drop(order);
            });
            return Err(unanswered(what, self.delay()).await);
        }
        drop(order);
        let answer = act().await;
        if fault == Fault::Twice {
            self.fault(what, of, "arrives twice");
            drop(act().await);
        }
        self.end(what, of, fault, answer).await
    }

    /// The way there, and what goes wrong on it.
    async fn begin(&self, what: &'static str, of: &str) -> Result<Fault> {
        if !self.faults.are_on() {
            return Ok(Fault::Nothing);
        }
        self.thawed().await;
        let odds = self.faults.odds();
        if self.faults.happens(odds.outage) {
            self.go_down();
        }
        sleep(self.faults.span()).await;
        if self.is_down() {
            return Err(refused(what));
        }
        match self.planned(what) {
            Some(Fault::Refused) => return Err(refused(what)),
            Some(fault) => return Ok(fault),
            None => {}
        }
        for (fault, often) in [
            (Fault::Refused, odds.refused),
            (Fault::Lost, odds.lost),
            (Fault::Late, odds.late),
            (Fault::Twice, odds.twice),
        ] {
            if self.faults.happens(often) {
                if fault == Fault::Refused {
                    self.fault(what, of, "is refused");
                    return Err(refused(what));
                }
                return Ok(fault);
            }
        }
        Ok(Fault::Nothing)
    }

    /// The way back.
    async fn end<T>(&self, what: &'static str, of: &str, fault: Fault, answer: Result<T>) -> Result<T> {
        if !self.faults.are_on() {
            return answer;
        }
        sleep(self.faults.span()).await;
        self.thawed().await;
        if fault == Fault::Lost || self.is_down() {
            self.fault(what, of, "is done and gets no answer");
            return Err(unanswered(what, self.delay()).await);
        }
        answer
    }

    fn delay(&self) -> Duration {
        self.faults.random(|random| Duration::from_millis(random.u64(50..2_500)))
    }

    fn go_down(&self) {
        let span = self.faults.random(|random| Duration::from_millis(random.u64(10..8_000)));
        self.cut(span);
        if self.faults.random(fastrand::Rng::bool) {
            self.end_watches();
        }
    }

    /// Nothing gets through for so long.
    ///
    /// # Panics
    /// A thread panicked while it held the lock.
    pub fn cut(&self, span: Duration) {
        self.note(Fact::Note(format!("the link is down for {span:?}")));
        let until = Instant::now() + span;
        *self.inner.down_until.lock().expect("nothing panics while it is locked") = Some(until);
    }

    /// Its process stands still for so long, as all others see it: what it was about to ask comes
    /// late, and so does every answer.
    ///
    /// # Panics
    /// A thread panicked while it held the lock.
    pub fn freeze(&self, span: Duration) {
        self.note(Fact::Note(format!("the process is frozen for {span:?}")));
        let until = Instant::now() + span;
        *self.inner.frozen_until.lock().expect("nothing panics while it is locked") = Some(until);
    }

    /// Freezes its process just before a later write; 0 is the next one.
    ///
    /// # Panics
    /// A thread panicked while it held the lock.
    pub fn freeze_at_write(&self, number: u32, span: Duration) {
        *self.inner.freezes_at.lock().expect("nothing panics while it is locked") = Some((number, span));
    }

    fn freeze_if_planned(&self) {
        let mut freezes_at = self.inner.freezes_at.lock().expect("nothing panics while it is locked");
        match freezes_at.as_mut() {
            Some((0, span)) if self.faults.are_on() => self.freeze(*span),
            Some((left, _)) => {
                *left = left.saturating_sub(1);
                return;
            }
            None => return,
        }
        *freezes_at = None;
    }

    fn frozen_until(&self) -> Option<Instant> {
        let until = *self.inner.frozen_until.lock().expect("nothing panics while it is locked");
        until.filter(|until| self.faults.are_on() && Instant::now() < *until)
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen_until().is_some()
    }

    /// Waits until the process is not frozen.
    pub(super) async fn thawed(&self) {
        while let Some(until) = self.frozen_until() {
            sleep_until(until).await;
        }
    }

    /// Ends all watches.
    pub fn end_watches(&self) {
        self.inner.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// A watch over this link: slow, cut off at times, and deaf while the link is down.
    pub(super) fn stream<T: Send + 'static>(&self, stream: BoxStream<'static, T>) -> BoxStream<'static, T> {
        let next = |(link, mut stream, mut cuts): (Self, BoxStream<'static, T>, watch::Receiver<u64>)| async {
            loop {
                let item = tokio::select! {
                    biased;
                    _ = cuts.changed() => return None,
                    item = stream.next() => item?,
                };
                link.thawed().await;
                if link.is_down() {
                    continue;
                }
                if link.faults.are_on() {
                    sleep(link.faults.span()).await;
                }
                return Some((item, (link, stream, cuts)));
            }
        };
        unfold((self.clone(), stream, self.inner.cuts.subscribe()), next).boxed()
    }
}

pub(super) fn refused(what: &'static str) -> Error {
    Error::new(ErrorKind::Connection, format!("{what}: the link is down"))
}

async fn unanswered(what: &'static str, after: Duration) -> Error {
    sleep(after).await;
    Error::new(ErrorKind::Deadline, format!("{what}: no answer"))
}
