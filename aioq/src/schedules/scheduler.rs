//! Fires schedules at their ticks. Each worker has one; any number may run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};

use super::Schedules;
use super::entry::{self, SCHEDULES, ScheduleEntry, Source, StoredSchedule};
use super::fire::{Found, KnownTrigger, due_at};
use super::reconcile::Occasion;
use crate::client::Client;
use crate::error::Result;
use crate::message::Name;
use crate::registry::Registry;
use crate::store::{Expect, KvChange};
use crate::time::Timestamp;

/// Interval between reads of all schedules: the longest delay after a broken connection.
const RESCAN: Duration = Duration::from_secs(30);

/// Pause after an error of the backend.
const PAUSE: Duration = Duration::from_secs(1);

/// Time by which a scheduler lets that one go first which fired the tick before.
const HEAD_START: Duration = Duration::from_millis(300);

/// Longest random part of the time by which schedulers go one after the other, in milliseconds.
const JITTER_MS: u64 = 200;

/// Number of schedules that are fired at a time.
const AT_ONCE: usize = 64;

/// Interval between renewals of the schedules of the code.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// Time after its tick from which on a schedule that no living worker has in its code is marked.
const ORPHANED_AFTER: Duration = Duration::from_secs(3600);

/// Fires schedules at their ticks.
pub(crate) struct Scheduler {
    schedules: Schedules,
    /// Name by which other schedulers know who fired.
    name: Name,
    /// The schedules in the code of this program.
    code: BTreeMap<Box<str>, ScheduleEntry>,
}

impl Scheduler {
    /// A scheduler for a program, which other schedulers know by `name`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument): a schedule in the code cannot be.
    pub(crate) fn new(client: &Client, registry: &Registry, name: Name) -> Result<Self> {
        let schedules = client.schedules();
        let code = schedules.of_code(registry)?;
        Ok(Self { schedules, name, code })
    }

    /// Writes the schedules of the code.
    ///
    /// # Errors
    /// Those of the backend.
    pub(crate) async fn reconcile(&self) -> Result<()> {
        self.write_code(Occasion::Start).await
    }

    async fn write_code(&self, occasion: Occasion) -> Result<()> {
        let ids: Vec<_> = self.code.iter().collect();
        let writes =
            (0..ids.len()).map(|index| self.schedules.reconcile(ids[index].0, ids[index].1, occasion));
        let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(())
    }

    /// Fires schedules until the future is dropped.
    pub(crate) async fn run(self) {
        loop {
            let error = match Run::start(&self).await {
                Ok(run) => run.go_on().await,
                Err(error) => error,
            };
            tracing::debug!(%error, "the schedules could not be read, trying again");
            sleep(PAUSE).await;
        }
    }

    fn kv(&self) -> &dyn crate::store::KvStore {
        &**self.schedules.client.backend().kv()
    }

    fn now(&self) -> Timestamp {
        self.schedules.client.now()
    }
}

type Firing<'a> = Pin<Box<dyn Future<Output = (Box<str>, Result<Outcome>)> + Send + 'a>>;

/// What has become of the ticks of a schedule.
enum Outcome {
    Found(Found),
    /// It is from the code of other workers, and none of those lives.
    LeftAlone,
}

/// A scheduler with its timers.
struct Run<'a> {
    scheduler: &'a Scheduler,
    changes: BoxStream<'static, KvChange>,
    known: HashMap<Box<str>, Known>,
    /// The schedules that are not being fired, by the time at which to look at them.
    timers: BTreeSet<(Instant, Box<str>)>,
    firing: FuturesUnordered<Firing<'a>>,
    rescan_at: Instant,
    renew_at: Instant,
}

/// A schedule as it was last seen.
struct Known {
    stored: StoredSchedule,
    trigger: KnownTrigger,
    /// Its timer; `None` while it is being fired, or has no tick to come.
    timer: Option<Instant>,
    is_firing: bool,
}

impl<'a> Run<'a> {
    async fn start(scheduler: &'a Scheduler) -> Result<Self> {
        // Watched first, read second: a change in between is seen by one of the two.
        let changes = scheduler.kv().watch(SCHEDULES).await?;
        let now = Instant::now();
        let mut run = Self {
            scheduler,
            changes,
            known: HashMap::new(),
            timers: BTreeSet::new(),
            firing: FuturesUnordered::new(),
            rescan_at: now + RESCAN,
            // A scheduler that begins anew each day renews, too.
            renew_at: now,
        };
        run.rescan().await?;
        Ok(run)
    }

    /// Fires schedules until the backend fails.
    async fn go_on(mut self) -> crate::error::Error {
        loop {
            let due = self.timers.first().map(|(at, _)| *at).filter(|_| self.firing.len() < AT_ONCE);
            let next = due.map_or(self.rescan_at, |due| due.min(self.rescan_at));
            tokio::select! {
                biased;
                Some((id, outcome)) = self.firing.next(), if !self.firing.is_empty() => self.fired(&id, outcome),
                change = self.changes.next() => match change {
                    Some(change) => self.changed(change),
                    None => return crate::error::Error::new(crate::ErrorKind::Connection, "the watch has ended"),
                },
                () = sleep_until(next) => {}
            }
            let now = Instant::now();
            if now >= self.rescan_at {
                if let Err(error) = self.rescan().await {
                    return error;
                }
                self.rescan_at = now + RESCAN;
            }
            while self.firing.len() < AT_ONCE
                && let Some((at, _)) = self.timers.first()
                && *at <= now
                && let Some((_, id)) = self.timers.pop_first()
            {
                self.fire(id);
            }
        }
    }

    /// Reads all schedules.
    async fn rescan(&mut self) -> Result<()> {
        let all = entry::all(self.scheduler.kv()).await?;
        let there: HashSet<Box<str>> = all.iter().map(|stored| stored.id.clone()).collect();
        let gone: Vec<Box<str>> = self.known.keys().filter(|id| !there.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
        all.into_iter().for_each(|stored| self.see(stored));
        if Instant::now() >= self.renew_at {
            self.scheduler.write_code(Occasion::Daily).await?;
            self.renew_at = Instant::now() + DAILY;
        }
        Ok(())
    }

    /// Takes a change for a hint: what a scheduler does follows a read of its own.
    fn changed(&mut self, change: KvChange) {
        match change {
            KvChange::Put(entry) => match entry::read(&entry) {
                Some(stored) if stored.entry.is_removed => self.forget(&stored.id),
                Some(stored) => self.see(stored),
                None => {}
            },
            KvChange::Deleted(key) => {
                if let Some(id) = key.strip_prefix(SCHEDULES) {
                    self.forget(id);
                }
            }
        }
    }

    /// Notes a schedule, and sets its timer.
    fn see(&mut self, stored: StoredSchedule) {
        let id = stored.id.clone();
        if let Some(known) = self.known.get_mut(&id) {
            if stored.revision <= known.stored.revision {
                return;
            }
            if known.trigger.timing == stored.entry.timing {
                known.stored = stored;
                return self.set_timer(&id);
            }
        }
        let trigger = match stored.entry.timing.trigger() {
            Ok(trigger) => trigger,
            Err(error) => {
                tracing::warn!(schedule = %id, %error, "cannot be fired by this version");
                return self.forget(&id);
            }
        };
        let is_firing = self.known.get(&id).is_some_and(|known| known.is_firing);
        let timer = self.known.get(&id).and_then(|known| known.timer);
        let trigger = KnownTrigger { timing: stored.entry.timing.clone(), trigger: Arc::new(trigger) };
        let known = Known { stored, trigger, timer, is_firing };
        self.known.insert(id.clone(), known);
        self.set_timer(&id);
    }

    fn forget(&mut self, id: &str) {
        if let Some(known) = self.known.remove(id)
            && let Some(at) = known.timer
        {
            self.timers.remove(&(at, id.into()));
        }
    }

    fn set_timer(&mut self, id: &str) {
        let now = self.scheduler.now();
        let Some(known) = self.known.get_mut(id) else { return };
        if let Some(at) = known.timer.take() {
            self.timers.remove(&(at, id.into()));
        }
        if known.is_firing {
            return;
        }
        let Some(due) = due_at(&known.stored, &known.trigger.trigger) else { return };
        let jitter = Duration::from_millis(fastrand::u64(..=JITTER_MS));
        let turn = match &known.stored.entry.by {
            Some(by) if *by == self.scheduler.name => Duration::ZERO,
            Some(_) => HEAD_START + jitter,
            None => jitter,
        };
        let at = Instant::now() + due.since(now) + turn;
        known.timer = Some(at);
        self.timers.insert((at, id.into()));
    }

    /// Begins to fire a schedule.
    fn fire(&mut self, id: Box<str>) {
        let Some(known) = self.known.get_mut(&id) else { return };
        known.timer = None;
        known.is_firing = true;
        let scheduler = self.scheduler;
        let due = due_at(&known.stored, &known.trigger.trigger);
        let trigger = known.trigger.clone();
        let is_foreign = known.stored.entry.source == Source::Code && !scheduler.code.contains_key(&id);
        self.firing.push(Box::pin(async move {
            let outcome = scheduler.fire(&id, &trigger, due.filter(|_| is_foreign)).await;
            (id, outcome)
        }));
    }

    /// Takes note of what has become of the ticks of a schedule.
    fn fired(&mut self, id: &str, outcome: Result<Outcome>) {
        let Some(known) = self.known.get_mut(id) else { return };
        known.is_firing = false;
        let pause = match outcome {
            Ok(Outcome::Found(Found::Removed)) => return self.forget(id),
            Ok(Outcome::Found(Found::Schedule(newest))) => {
                let is_newer = newest.revision > known.stored.revision;
                if is_newer && newest.entry.timing == known.trigger.timing {
                    known.stored = *newest;
                } else if is_newer {
                    return self.see(*newest);
                }
                return self.set_timer(id);
            }
            Ok(Outcome::LeftAlone) => RESCAN,
            Err(error) if error.is_outage() => {
                tracing::debug!(schedule = id, %error, "could not be fired, trying again");
                PAUSE
            }
            Err(error) => {
                tracing::warn!(schedule = id, %error, "could not be fired, trying again later");
                RESCAN
            }
        };
        let at = Instant::now() + pause;
        known.timer = Some(at);
        self.timers.insert((at, id.into()));
    }
}

impl Scheduler {
    /// Fires the ticks of a schedule. One of the code of other programs, or of another release, is
    /// fired only while a worker with that code lives; `foreign` is its due tick.
    async fn fire(&self, id: &str, trigger: &KnownTrigger, foreign: Option<Timestamp>) -> Result<Outcome> {
        let Some(due) = foreign else {
            return self.schedules.fire_due(id, &self.name, trigger).await.map(Outcome::Found);
        };
        if self.schedules.is_in_code(id).await? {
            return self.schedules.fire_due(id, &self.name, trigger).await.map(Outcome::Found);
        }
        if self.now().since(due) > ORPHANED_AFTER
            && let Some(StoredSchedule { mut entry, revision, .. }) = entry::get(self.kv(), id).await?
            && entry.source == Source::Code
        {
            tracing::info!(schedule = id, "no living worker has it in its code, so it rests");
            entry.orphaned_at = Some(self.now());
            entry::put(self.kv(), id, &entry, Expect::Revision(revision)).await?;
        }
        Ok(Outcome::LeftAlone)
    }
}
