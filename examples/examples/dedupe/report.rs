//! The report on all jobs, for people and for programs.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanBytes;
use serde::{Serialize, Serializer};

use crate::hash::Hashed;

/// The report on all jobs.
#[derive(Default)]
pub(crate) struct Report {
    /// Regular files that were found, those that failed included.
    pub(crate) files: u64,
    pub(crate) failed: Vec<Failure>,
    hashed: Vec<Copied>,
}

/// A path that could not be read.
#[derive(Serialize)]
pub(crate) struct Failure {
    #[serde(serialize_with = "lossy")]
    pub(crate) path: PathBuf,
    pub(crate) error: String,
}

/// One file whose content is known.
struct Copied {
    sha256: [u8; 32],
    bytes: u64,
    path: PathBuf,
}

/// Files with the same content.
struct Group<'a> {
    bytes: u64,
    paths: Vec<&'a Path>,
}

#[derive(Serialize)]
struct Json<'a> {
    files: u64,
    failed: &'a [Failure],
    groups: Vec<Vec<String>>,
    reclaimable_bytes: u64,
    seconds: f64,
}

impl Report {
    pub(crate) fn add(&mut self, path: PathBuf, Hashed { sha256, bytes }: Hashed) {
        self.hashed.push(Copied { sha256, bytes, path });
    }

    /// Prints everything, in an order that does not depend on which job ended first.
    pub(crate) fn print(mut self, took: Duration, json: bool) -> io::Result<()> {
        self.failed.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
        self.hashed
            .sort_by(|a, b| a.sha256.cmp(&b.sha256).then_with(|| a.path.as_os_str().cmp(b.path.as_os_str())));
        self.warn_of_odd_names();
        let mut out = BufWriter::new(io::stdout().lock());
        let written = if json { self.print_json(&mut out, took) } else { self.print_text(&mut out, took) };
        match written.and_then(|()| out.flush()) {
            // A reader that has seen enough, such as `head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    fn print_json(&self, out: &mut impl Write, took: Duration) -> io::Result<()> {
        let groups = self.groups();
        let json = Json {
            files: self.files,
            failed: &self.failed,
            reclaimable_bytes: reclaimable(&groups),
            groups: groups.iter().map(|group| group.paths.iter().map(|path| text(path)).collect()).collect(),
            seconds: took.as_secs_f64(),
        };
        serde_json::to_writer(&mut *out, &json)?;
        writeln!(out)
    }

    fn print_text(&self, out: &mut impl Write, took: Duration) -> io::Result<()> {
        let groups = self.groups();
        for group in &groups {
            writeln!(out, "{} files of {}", group.paths.len(), HumanBytes(group.bytes))?;
            group.paths.iter().try_for_each(|path| writeln!(out, "  {}", path.display()))?;
        }
        let (files, failed, seconds) = (self.files, self.failed.len(), took.as_secs_f64());
        writeln!(
            out,
            "{files} files, {failed} failed, {} groups, {} could be saved; {seconds:.2} s, {:.0} jobs/s",
            groups.len(),
            HumanBytes(reclaimable(&groups)),
            files as f64 / seconds.max(f64::EPSILON),
        )
    }

    /// Files with the same content, two or more, by the first path of each group.
    fn groups(&self) -> Vec<Group<'_>> {
        let same = self.hashed.chunk_by(|a, b| a.sha256 == b.sha256).filter(|same| same.len() > 1);
        let mut groups: Vec<_> = same
            .map(|same| Group { bytes: same[0].bytes, paths: same.iter().map(|copy| &*copy.path).collect() })
            .collect();
        groups.sort_by_key(|group| group.paths[0].as_os_str());
        groups
    }

    fn warn_of_odd_names(&self) {
        let paths =
            self.hashed.iter().map(|copy| &copy.path).chain(self.failed.iter().map(|failure| &failure.path));
        match paths.filter(|path| path.to_str().is_none()).count() {
            0 => {}
            odd => eprintln!("{odd} not in UTF-8: such file names are printed with a \u{fffd}"),
        }
    }
}

/// Bytes that would be saved if one file of each group were kept.
fn reclaimable(groups: &[Group<'_>]) -> u64 {
    groups.iter().map(|group| (group.paths.len() as u64 - 1) * group.bytes).sum()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
