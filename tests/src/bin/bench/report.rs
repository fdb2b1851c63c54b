//! What came of the runs, for programs and for people.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::args::Work;
use crate::measure::{Sample, median, percentile_us, spread};

/// The framework's sample of a run, and the raw program's if there is one.
type Pair = (Sample, Option<Sample>);

/// What a work came to on a backend: medians over the runs, `None` where a number makes no sense.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    work: String,
    backend: &'static str,
    jobs: usize,
    jobs_per_s: Option<f64>,
    raw_jobs_per_s: Option<f64>,
    /// The median of the ratios within the runs: 1 is as good as the raw program, of speeds and of latencies.
    ratio: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    cpu_s_per_million: Option<f64>,
    rss_mib: Option<f64>,
    raw_p50_us: Option<f64>,
    raw_p99_us: Option<f64>,
    raw_cpu_s_per_million: Option<f64>,
    /// Of one processor, while idle.
    cpu_percent: Option<f64>,
    runs: usize,
    /// From the slowest run to the fastest, as a part of the median.
    spread: Option<f64>,
    raw_spread: Option<f64>,
}

/// Sums up the runs of a work: one line, or one for each thing that was timed.
pub(crate) fn lines(work: Work, backend: &'static str, pairs: &[Pair]) -> Vec<Line> {
    let name =
        |what: &str| if what.is_empty() { work.name().to_owned() } else { format!("{}_{what}", work.name()) };
    let timed: Vec<&str> = pairs[0].0.spans.iter().map(|(what, _)| *what).collect();
    match timed.as_slice() {
        [] => vec![line(work, name(""), backend, pairs, None)],
        timed => timed
            .iter()
            .enumerate()
            .map(|(at, what)| line(work, name(what), backend, pairs, Some(at)))
            .collect(),
    }
}

/// One line, with the times at that index.
fn line(work: Work, name: String, backend: &'static str, pairs: &[Pair], at: Option<usize>) -> Line {
    let ours = |number: &dyn Fn(&Sample) -> Option<f64>| over(pairs.iter().map(|(ours, _)| number(ours)));
    let raws = |number: &dyn Fn(&Sample) -> Option<f64>| {
        over(pairs.iter().map(|(_, raw)| raw.as_ref().and_then(number)))
    };
    let at_rate = |sample: &Sample| (!work.is_long()).then(|| sample.per_second());
    let percentile = |part| move |sample: &Sample| percentile_us(&sample.spans.get(at?)?.1, part);
    let ratio = |(ours, raw): &Pair| {
        let raw = raw.as_ref()?;
        match work.is_long() {
            true => Some(percentile(0.5)(raw)? / percentile(0.5)(ours)?),
            false => Some(ours.per_second() / raw.per_second()),
        }
    };
    let median_of = |numbers: Vec<f64>| median(numbers).map(rounded);
    Line {
        work: name,
        backend,
        jobs: pairs[0].0.jobs,
        jobs_per_s: median_of(ours(&at_rate)),
        raw_jobs_per_s: median_of(raws(&at_rate)),
        ratio: median_of(over(pairs.iter().map(ratio))),
        p50_us: median_of(ours(&percentile(0.5))),
        p99_us: median_of(ours(&percentile(0.99))),
        cpu_s_per_million: median_of(ours(&cpu_s_per_million)),
        rss_mib: median_of(ours(&|sample| sample.rss_mib)),
        raw_p50_us: median_of(raws(&percentile(0.5))),
        raw_p99_us: median_of(raws(&percentile(0.99))),
        raw_cpu_s_per_million: median_of(raws(&cpu_s_per_million)),
        cpu_percent: median_of(ours(&|sample| idle_percent(work, sample))),
        runs: pairs.len(),
        spread: spread(&ours(&at_rate)).map(rounded),
        raw_spread: spread(&raws(&at_rate)).map(rounded),
    }
}

fn over(numbers: impl Iterator<Item = Option<f64>>) -> Vec<f64> {
    numbers.flatten().collect()
}

fn cpu_s_per_million(sample: &Sample) -> Option<f64> {
    (sample.jobs > 0).then_some(sample.cpu?.as_secs_f64() / sample.jobs as f64 * 1e6)
}

fn idle_percent(work: Work, sample: &Sample) -> Option<f64> {
    (work == Work::Idle).then_some(sample.cpu?.as_secs_f64() / sample.took.as_secs_f64() * 100.0)
}

/// Three digits behind the point at most, and no more digits than were measured.
fn rounded(number: f64) -> f64 {
    match number {
        1000.0.. => number.round(),
        _ => (number * 1000.0).round() / 1000.0,
    }
}

/// Prints lines as they come, and all of them in a table at the end.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Prints a line of JSON.
    pub(crate) fn add(&mut self, line: Line) -> io::Result<()> {
        let json = serde_json::to_string(&line).map_err(io::Error::other)?;
        writeln!(io::stdout().lock(), "{json}")?;
        self.lines.push(line);
        Ok(())
    }

    /// Prints the table, to standard error.
    pub(crate) fn table(&self) {
        let titles = [
            "jobs/s", "raw", "ratio", "spread", "p50 us", "p99 us", "raw p50", "raw p99", "cpu s/M",
            "raw cpu", "rss MiB", "cpu %",
        ];
        eprint!("\n{:<16}{:<8}", "work", "on");
        titles.iter().for_each(|title| eprint!("{title:>9}"));
        eprintln!();
        for line in &self.lines {
            eprint!("{:<16}{:<8}", line.work, line.backend);
            line.cells().iter().for_each(|cell| eprint!("{:>9}", shown(*cell)));
            eprintln!();
        }
    }
}

impl Line {
    fn cells(&self) -> [Option<f64>; 12] {
        [
            self.jobs_per_s,
            self.raw_jobs_per_s,
            self.ratio,
            self.spread,
            self.p50_us,
            self.p99_us,
            self.raw_p50_us,
            self.raw_p99_us,
            self.cpu_s_per_million,
            self.raw_cpu_s_per_million,
            self.rss_mib,
            self.cpu_percent,
        ]
    }
}

fn shown(cell: Option<f64>) -> String {
    match cell {
        None => "-".to_owned(),
        Some(number) if number >= 100.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.2}"),
    }
}
