//! Fires schedules at their ticks. Each worker has one; any number may run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};

use super::Schedules;
use super::entry::{self, SCHEDULES, ScheduleEntry, Source, StoredSchedule};
use super::fire::{Found, KnownTrigger, due_at};
use super::reconcile::Occasion;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
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
    /// The errors of the backend.
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

    /// Fires schedules, and renews those of the code, until the future is dropped.
    pub(crate) async fn run(self) {
        tokio::join!(self.fire_on(), self.renew_on());
    }

    async fn fire_on(&self) {
        loop {
            let error = match Run::start(self).await {
                Ok(run) => run.go_on().await,
                Err(error) => error,
            };
            tracing::debug!(%error, "the schedules could not be read, trying again");
            sleep(PAUSE).await;
        }
    }

    async fn renew_on(&self) {
        loop {
            sleep(DAILY).await;
            while let Err(error) = self.write_code(Occasion::Daily).await {
                tracing::debug!(%error, "the schedules of the code could not be renewed, trying again");
                sleep(RESCAN).await;
            }
        }
    }

    /// All schedules, as they are at that moment.
    async fn read_at(&self, moment: Instant) -> Result<Vec<StoredSchedule>> {
        sleep_until(moment).await;
        entry::all(self.kv()).await
    }

    fn kv(&self) -> &dyn crate::store::KvStore {
        &**self.schedules.client.backend().kv()
    }

    fn now(&self) -> Timestamp {
        self.schedules.client.now()
    }
}

type Firing<'a> = Pin<Box<dyn Future<Output = (Box<str>, Result<Found>)> + Send + 'a>>;

/// A scheduler with its timers.
struct Run<'a> {
    scheduler: &'a Scheduler,
    changes: BoxStream<'static, KvChange>,
    known: HashMap<Box<str>, Known>,
    /// The schedules that are not being fired, by the time at which to look at them.
    timers: BTreeSet<(Instant, Box<str>)>,
    firing: FuturesUnordered<Firing<'a>>,
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
        let (known, timers, firing) = Default::default();
        let mut run = Self { scheduler, changes, known, timers, firing };
        run.see_all(scheduler.read_at(Instant::now()).await?);
        Ok(run)
    }

    /// Fires schedules until the backend fails.
    ///
    /// All requests go on at the same time. One that nobody polls while another one is awaited
    /// might have what that one waits for, such as its turn to send.
    async fn go_on(mut self) -> Error {
        let scheduler = self.scheduler;
        let read = || Box::pin(scheduler.read_at(Instant::now() + RESCAN));
        let mut reading = read();
        loop {
            let due = self.timers.first().map(|(at, _)| *at).filter(|_| self.firing.len() < AT_ONCE);
            tokio::select! {
                biased;
                Some((id, found)) = self.firing.next(), if !self.firing.is_empty() => self.fired(&id, found),
                change = self.changes.next() => match change {
                    Some(change) => self.changed(change),
                    None => return Error::new(ErrorKind::Connection, "the watch has ended"),
                },
                all = &mut reading => match all {
                    Ok(all) => {
                        self.see_all(all);
                        reading = read();
                    }
                    Err(error) => return error,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            let now = Instant::now();
            while self.firing.len() < AT_ONCE
                && let Some((at, _)) = self.timers.first()
                && *at <= now
                && let Some((_, id)) = self.timers.pop_first()
            {
                self.fire(id);
            }
        }
    }

    /// Notes all schedules that there are.
    fn see_all(&mut self, all: Vec<StoredSchedule>) {
        let there: HashSet<Box<str>> = all.iter().map(|stored| stored.id.clone()).collect();
        let gone: Vec<Box<str>> = self.known.keys().filter(|id| !there.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
        all.into_iter().for_each(|stored| self.see(stored));
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

    /// Notes a schedule, unless a newer state of it is known, and sets its timer.
    fn see(&mut self, stored: StoredSchedule) {
        let id = stored.id.clone();
        let before = self.known.get(&id);
        if before.is_some_and(|known| stored.revision <= known.stored.revision) {
            return;
        }
        let trigger = match before {
            Some(known) if known.trigger.timing == stored.entry.timing => Ok(known.trigger.clone()),
            _ => KnownTrigger::of(&stored.entry.timing),
        };
        let trigger = match trigger {
            Ok(trigger) => trigger,
            Err(error) => {
                tracing::warn!(schedule = %id, %error, "cannot be fired by this version");
                return self.forget(&id);
            }
        };
        let (timer, is_firing) = before.map(|known| (known.timer, known.is_firing)).unwrap_or_default();
        self.known.insert(id.clone(), Known { stored, trigger, timer, is_firing });
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
    fn fired(&mut self, id: &str, found: Result<Found>) {
        let Some(known) = self.known.get_mut(id) else { return };
        known.is_firing = false;
        let pause = match found {
            Ok(Found::Removed) => return self.forget(id),
            Ok(Found::Schedule(newest)) => {
                self.see(*newest);
                return self.set_timer(id);
            }
            Ok(Found::LeftAlone) => RESCAN,
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
    async fn fire(&self, id: &str, trigger: &KnownTrigger, foreign: Option<Timestamp>) -> Result<Found> {
        if let Some(due) = foreign
            && !self.schedules.is_in_code(id).await?
        {
            self.note_orphan(id, due).await?;
            return Ok(Found::LeftAlone);
        }
        self.schedules.fire_due(id, &self.name, trigger).await
    }

    /// Marks a schedule that has been in the code of no living worker for long.
    async fn note_orphan(&self, id: &str, due: Timestamp) -> Result<()> {
        if self.now().since(due) > ORPHANED_AFTER
            && let Some(StoredSchedule { mut entry, revision, .. }) = entry::get(self.kv(), id).await?
            && entry.source == Source::Code
        {
            tracing::info!(schedule = id, "no living worker has it in its code, so it rests");
            entry.orphaned_at = Some(self.now());
            entry::put(self.kv(), id, &entry, Expect::Revision(revision)).await?;
        }
        Ok(())
    }
}
