//! Report of the runs, for programs and for people.

use serde::Serialize;

use crate::bench::{Plan, Sample, Work, median, spread};
use crate::cli::out::print_json;
use crate::cli::table::{self, Column, Table};
use crate::store::RecordLevel;

/// Sample of the framework in a run, and of the raw program if there is one.
type Pair = (Sample, Option<Sample>);

/// Report on one work on a backend: medians over the runs, `None` where a number makes no sense.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    work: &'static str,
    backend: &'static str,
    jobs: usize,
    concurrency: usize,
    records: &'static str,
    runs: usize,
    jobs_per_s: Option<f64>,
    raw_jobs_per_s: Option<f64>,
    /// Median of the ratios within the runs, of speeds or of latencies. 1 is as good as the raw
    /// program.
    ratio: Option<f64>,
    /// Difference of the fastest and the slowest run, as a fraction of the median.
    spread: Option<f64>,
    raw_spread: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    raw_p50_us: Option<f64>,
    raw_p99_us: Option<f64>,
    result_p50_us: Option<f64>,
    result_p99_us: Option<f64>,
    raw_result_p50_us: Option<f64>,
    raw_result_p99_us: Option<f64>,
    result_ratio: Option<f64>,
    cpu_s_per_million: Option<f64>,
    raw_cpu_s_per_million: Option<f64>,
    rss_mib: Option<f64>,
    /// Percent of one processor, while idle.
    cpu_percent: Option<f64>,
}

impl Line {
    /// Sums up the runs of a work.
    pub(super) fn of(work: Work, plan: Plan, backend: &'static str, pairs: &[Pair]) -> Self {
        let pairs = Pairs(pairs);
        let rate = |sample: &Sample| (!work.is_paced()).then(|| sample.per_second());
        let (rates, raw_rates) = (pairs.ours(rate), pairs.raws(rate));
        let at = |place, part| pairs.ours(|sample: &Sample| sample.percentile_us(place, part));
        let raw_at = |place, part| pairs.raws(|sample: &Sample| sample.percentile_us(place, part));
        let faster = |place: usize| {
            pairs.ratios(|ours, raw| Some(raw.percentile_us(place, 0.5)? / ours.percentile_us(place, 0.5)?))
        };
        let ratios = if work.is_paced() {
            faster(0)
        } else {
            pairs.ratios(|ours, raw| Some(ours.per_second() / raw.per_second()))
        };
        Self {
            work: work.name(),
            backend,
            jobs: plan.jobs,
            concurrency: plan.concurrency,
            records: records(plan.records),
            runs: pairs.0.len(),
            spread: spread(&rates).map(rounded),
            raw_spread: spread(&raw_rates).map(rounded),
            jobs_per_s: middle(rates),
            raw_jobs_per_s: middle(raw_rates),
            ratio: middle(ratios),
            p50_us: middle(at(0, 0.5)),
            p99_us: middle(at(0, 0.99)),
            raw_p50_us: middle(raw_at(0, 0.5)),
            raw_p99_us: middle(raw_at(0, 0.99)),
            result_p50_us: middle(at(1, 0.5)),
            result_p99_us: middle(at(1, 0.99)),
            raw_result_p50_us: middle(raw_at(1, 0.5)),
            raw_result_p99_us: middle(raw_at(1, 0.99)),
            result_ratio: middle(faster(1)),
            cpu_s_per_million: middle(pairs.ours(Sample::cpu_s_per_million)),
            raw_cpu_s_per_million: middle(pairs.raws(Sample::cpu_s_per_million)),
            rss_mib: middle(pairs.ours(|sample| sample.rss_mib)),
            cpu_percent: middle(pairs.ours(|sample| idle_percent(work, sample))),
        }
    }

    fn cells(&self) -> [Option<f64>; 14] {
        [
            self.jobs_per_s,
            self.raw_jobs_per_s,
            self.ratio,
            self.spread,
            self.p50_us,
            self.p99_us,
            self.raw_p50_us,
            self.raw_p99_us,
            self.result_p50_us,
            self.raw_result_p50_us,
            self.cpu_s_per_million,
            self.raw_cpu_s_per_million,
            self.rss_mib,
            self.cpu_percent,
        ]
    }
}

/// Titles of the columns of [`Line::cells`].
const TITLES: [&str; 14] = [
    "JOBS/S",
    "RAW",
    "RATIO",
    "SPREAD",
    "P50 US",
    "P99 US",
    "RAW P50",
    "RAW P99",
    "RESULT P50",
    "RAW RESULT",
    "CPU S/M",
    "RAW CPU",
    "RSS MIB",
    "IDLE %",
];

struct Pairs<'a>(&'a [Pair]);

impl Pairs<'_> {
    fn ours(&self, number: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
        self.0.iter().filter_map(|(ours, _)| number(ours)).collect()
    }

    fn raws(&self, number: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
        self.0.iter().filter_map(|(_, raw)| number(raw.as_ref()?)).collect()
    }

    fn ratios(&self, ratio: impl Fn(&Sample, &Sample) -> Option<f64>) -> Vec<f64> {
        self.0.iter().filter_map(|(ours, raw)| ratio(ours, raw.as_ref()?)).collect()
    }
}

fn records(level: RecordLevel) -> &'static str {
    match level {
        RecordLevel::None => "none",
        RecordLevel::Results => "results",
        RecordLevel::Full => "full",
    }
}

fn idle_percent(work: Work, sample: &Sample) -> Option<f64> {
    (work == Work::Idle).then_some(sample.cpu?.as_secs_f64() / sample.took.as_secs_f64() * 100.0)
}

fn middle(numbers: Vec<f64>) -> Option<f64> {
    median(numbers).map(rounded)
}

/// Rounds to the precision of the measurement: at most three digits behind the point.
fn rounded(number: f64) -> f64 {
    match number {
        1000.0.. => number.round(),
        _ => (number * 1000.0).round() / 1000.0,
    }
}

/// Prints each line as it comes, or one table at the end.
pub(super) struct Report {
    json: bool,
    lines: Vec<Line>,
}

impl Report {
    /// A report of JSON objects, or a table.
    pub(super) fn new(json: bool) -> Self {
        Self { json, lines: Vec::new() }
    }

    /// Adds a line.
    pub(super) fn add(&mut self, line: Line) {
        if self.json {
            print_json(&line);
        } else {
            self.lines.push(line);
        }
    }

    /// Prints the table, unless the lines are printed already.
    pub(super) fn finish(&self) {
        if self.lines.is_empty() {
            return;
        }
        let numbers: Vec<usize> = (0..TITLES.len()).filter(|place| self.has(*place)).collect();
        let names = [Column::Whole("WORK"), Column::Whole("ON")].into_iter();
        let mut table = Table::new(names.chain(numbers.iter().map(|place| Column::Number(TITLES[*place]))));
        for line in &self.lines {
            let cells = line.cells();
            let names = [table::text(line.work), table::text(line.backend)].into_iter();
            table.row(names.chain(numbers.iter().map(|place| table::text(shown(cells[*place])))));
        }
        table.print_or("nothing was measured");
    }

    /// True if any line has a number in this column.
    fn has(&self, place: usize) -> bool {
        self.lines.iter().any(|line| line.cells()[place].is_some())
    }
}

fn shown(cell: Option<f64>) -> String {
    match cell {
        None => String::new(),
        Some(number) if number >= 100.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.2}"),
    }
}
