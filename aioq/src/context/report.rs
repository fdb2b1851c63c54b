//! Progress and log lines that a running body reports.

use std::sync::OnceLock;

use tokio::sync::Notify;

use crate::store::{JobRecord, LogLine, Progress};
use crate::sync::Lock;
use crate::time::Timestamp;

/// Progress and log lines of a running body that are not on the record yet.
#[derive(Default)]
pub(crate) struct Report {
    /// Empty for most bodies: they report nothing.
    content: OnceLock<Box<Lock<Content>>>,
    news: Notify,
}

#[derive(Default)]
struct Content {
    progress: Option<Box<Progress>>,
    logs: Vec<LogLine>,
}

impl Report {
    pub(super) fn progress(&self, mut progress: Progress) {
        if let Some(note) = &mut progress.note {
            JobRecord::cut(note);
        }
        self.update(|content| content.progress = Some(Box::new(progress)));
    }

    pub(super) fn log(&self, line: String) {
        self.update(|content| JobRecord::push_log(&mut content.logs, LogLine { at: Timestamp::now(), line }));
    }

    fn update(&self, update: impl FnOnce(&mut Content)) {
        update(&mut self.content.get_or_init(Box::default).lock());
        self.news.notify_one();
    }

    /// Resolves when the body has reported something since the last call.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Adds the report to the record, which has the reports of earlier runs.
    pub(crate) fn fill(&self, record: &mut JobRecord) {
        if let Some(content) = self.content.get() {
            let content = content.lock();
            if content.progress.is_some() {
                record.progress.clone_from(&content.progress);
            }
            content.logs.iter().for_each(|line| JobRecord::push_log(&mut record.logs, line.clone()));
        }
    }
}
