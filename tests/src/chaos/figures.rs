//! Results of the kills: [`Figures`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use aioq::Client;
use aioq::store::{JobRecord, Status};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::flow::{Confirmed, Kind, Ran};
use super::{Means, Target};
use crate::demo::Demo;
use crate::records::statuses;

/// A plug that was pulled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) target: Target,
    pub(super) means: Means,
    pub(super) at: Instant,
}

/// Results of a flow, job by job.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Jobs whose kick was confirmed.
    pub confirmed: usize,
    /// Of these, what never ran: must be empty.
    pub lost: Vec<String>,
    /// Of these, what has not exactly one final record, or one that is wrong: must be empty.
    pub wrong: Vec<String>,
    /// Records of an earlier status beside the last one, which lists and counts see until their TTL
    /// is over.
    pub left_over: usize,
    /// Runs beyond the first of a job, or of one of its attempts.
    repeated: BTreeMap<Kind, usize>,
    /// Longest wait of a job that was due at once, from the confirmation to the line in the ledger.
    pub longest_wait: Duration,
    /// From each kill to the end of the first job that was kicked after it.
    recovery: Times,
    /// From the kill to the start of each job that ran again.
    again: Times,
}

/// By what was hit, and how.
type Times = BTreeMap<(Target, Means), Vec<Duration>>;

impl Figures {
    pub(super) async fn count(
        demo: &Demo,
        client: &Client,
        confirmed: &[Confirmed],
        ran: &Ran,
        kills: &[Kill],
    ) -> Self {
        let runs = Runs::of(demo, ran);
        let lost = confirmed.iter().filter(|job| runs.of_job(job) == 0).map(|job| job.line.clone());
        let mut figures = Self { confirmed: confirmed.len(), lost: lost.collect(), ..Self::default() };
        figures.repeated = runs.repeated(confirmed);
        let statuses = statuses(demo.url(), demo.prefix()).await;
        figures.left_over = statuses.values().map(|records| records.len() - 1).sum();
        figures.wrong = wrong(client, &statuses, confirmed).await;
        let plain = confirmed.iter().filter(|job| job.kind == Kind::Plain);
        let waits =
            plain.filter_map(|job| Some(runs.first.get(&*job.line)?.saturating_duration_since(job.at)));
        figures.longest_wait = waits.max().unwrap_or_default();
        for kill in kills {
            let later = confirmed.iter().filter(|job| job.at > kill.at);
            let ended = later.filter_map(|job| runs.first.get(&*job.line)).min();
            let recovered = ended.map(|seen| seen.saturating_duration_since(kill.at));
            figures.recovery.entry((kill.target, kill.means)).or_default().extend(recovered);
        }
        for seen in &runs.again {
            if let Some(kill) = kills.iter().rfind(|kill| kill.at < *seen) {
                figures.again.entry((kill.target, kill.means)).or_default().push(*seen - kill.at);
            }
        }
        figures
    }

    /// Runs beyond the first of a job, or of one of its attempts.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.repeated.values().sum()
    }

    /// True if every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.wrong.is_empty()
    }

    /// The figures of two rounds together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.confirmed += other.confirmed;
        self.lost.extend(other.lost);
        self.wrong.extend(other.wrong);
        self.left_over += other.left_over;
        for (kind, runs) in other.repeated {
            *self.repeated.entry(kind).or_default() += runs;
        }
        self.longest_wait = self.longest_wait.max(other.longest_wait);
        for (all, more) in [(&mut self.recovery, other.recovery), (&mut self.again, other.again)] {
            for (kind, times) in more {
                all.entry(kind).or_default().extend(times);
            }
        }
        self
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { confirmed, lost, wrong, left_over, repeated, longest_wait, recovery, again } = self;
        writeln!(f, "{confirmed} jobs confirmed, {} lost, {} with a wrong record", lost.len(), wrong.len())?;
        writeln!(f, "{} runs repeated: {repeated:?}", self.repeated())?;
        writeln!(f, "{left_over} records of an earlier status are left over")?;
        writeln!(f, "a job that was due waited {longest_wait:.1?} at most")?;
        for job in lost.iter().chain(wrong).take(20) {
            writeln!(f, "  {job}")?;
        }
        writeln!(f, "from the kill to the end of the first job that was kicked after it:")?;
        show(f, recovery)?;
        writeln!(f, "from the kill to the start of each job that ran again:")?;
        show(f, again)
    }
}

fn show(f: &mut fmt::Formatter<'_>, times: &Times) -> fmt::Result {
    for ((target, means), times) in times {
        let mut times = times.clone();
        times.sort_unstable();
        let (half, max) = (times.get(times.len() / 2), times.last());
        let (half, max) = (half.copied().unwrap_or_default(), max.copied().unwrap_or_default());
        let kind = format!("{target:?} {means:?}");
        writeln!(f, "  {kind:<16} {:>4} times  p50 {half:>8.1?}  max {max:>8.1?}", times.len())?;
    }
    Ok(())
}

/// Number of runs of each job, and the time of the first.
struct Runs<'a> {
    demo: &'a Demo,
    /// By the line in the ledger.
    lines: HashMap<&'a str, usize>,
    /// Time at which each line was there first.
    first: HashMap<&'a str, Instant>,
    /// Times of the runs of jobs that had run before.
    again: Vec<Instant>,
}

impl<'a> Runs<'a> {
    fn of(demo: &'a Demo, ran: &'a Ran) -> Self {
        let (mut lines, mut first, mut again) = (HashMap::new(), HashMap::new(), Vec::new());
        for (seen, line) in ran {
            let runs: &mut usize = lines.entry(line.as_str()).or_default();
            // A run that was cut off has a start and no end.
            if *runs > 0 && !line.starts_with("end ") {
                again.push(*seen);
            }
            *runs += 1;
            first.entry(line.as_str()).or_insert(*seen);
        }
        Self { demo, lines, first, again }
    }

    fn line(&self, line: &str) -> usize {
        self.lines.get(line).copied().unwrap_or(0)
    }

    /// Number of runs of a job that reached their end.
    fn of_job(&self, job: &Confirmed) -> usize {
        match job.kind {
            Kind::Plain | Kind::Delayed => self.line(&job.line),
            Kind::Slow => self.line(&format!("end {}", job.line)),
            Kind::Flaky => self.attempts(job).saturating_sub(1),
        }
    }

    /// The runs of a job that fails once: it counts them in a file.
    fn attempts(&self, job: &Confirmed) -> usize {
        let file = std::fs::metadata(self.demo.path(&job.line));
        file.map_or(0, |file| usize::try_from(file.len()).unwrap_or(usize::MAX))
    }

    fn repeated(&self, confirmed: &[Confirmed]) -> BTreeMap<Kind, usize> {
        let mut repeated = BTreeMap::new();
        for job in confirmed {
            let runs = match job.kind {
                Kind::Plain | Kind::Delayed => self.line(&job.line),
                Kind::Slow => self.line(&format!("start {}", job.line)),
                Kind::Flaky => self.of_job(job),
            };
            *repeated.entry(job.kind).or_default() += runs.saturating_sub(1);
        }
        repeated
    }
}

/// Mistakes in the records of these jobs.
async fn wrong(
    client: &Client,
    statuses: &HashMap<String, Vec<String>>,
    confirmed: &[Confirmed],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut read = stream::iter(
        confirmed.iter().map(|job| async move { (job, client.jobs().get(&job.id.as_str().into()).await) }),
    )
    .buffered(64);
    while let Some((job, record)) = read.next().await {
        let found = statuses.get(&job.id).map(Vec::as_slice).unwrap_or_default();
        let is_final = |status: &&String| status.parse::<Status>().is_ok_and(Status::is_terminal);
        let last: Vec<_> = found.iter().filter(is_final).collect();
        let fault = match record {
            _ if last != ["completed"] => Some(format!("has the records {found:?}")),
            Ok(record) if record.status != Status::Completed => Some(format!("is {}", record.status)),
            Err(error) => Some(error.to_string()),
            Ok(record) => attempts_too_many(job, &record),
        };
        wrong.extend(fault.map(|fault| format!("{} {:?} {}: {fault}", job.id, job.kind, job.line)));
    }
    wrong
}

/// A second retry would show as an attempt too many.
fn attempts_too_many(job: &Confirmed, record: &JobRecord) -> Option<String> {
    let most = if job.kind == Kind::Flaky { 2 } else { 1 };
    (record.attempt > most).then(|| format!("took {} attempts", record.attempt))
}
