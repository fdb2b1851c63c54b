//! What a running body says of itself.

use std::sync::OnceLock;

use tokio::sync::Notify;

use crate::store::{JobRecord, LogLine, Progress};
use crate::sync::Lock;
use crate::time::Timestamp;

/// What a running body says of itself, until it is written into the record.
#[derive(Default)]
pub(crate) struct Report {
    /// Most bodies say nothing.
    said: OnceLock<Box<Lock<Said>>>,
    news: Notify,
}

#[derive(Default)]
struct Said {
    progress: Option<Box<Progress>>,
    logs: Vec<LogLine>,
}

impl Report {
    pub(super) fn progress(&self, mut progress: Progress) {
        if let Some(note) = &mut progress.note {
            JobRecord::cut(note);
        }
        self.say(|said| said.progress = Some(Box::new(progress)));
    }

    pub(super) fn log(&self, line: String) {
        self.say(|said| JobRecord::push_log(&mut said.logs, LogLine { at: Timestamp::now(), line }));
    }

    fn say(&self, say: impl FnOnce(&mut Said)) {
        say(&mut self.said.get_or_init(Box::default).lock());
        self.news.notify_one();
    }

    /// Resolves when something was said since it was waited for last.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Adds what was said to the record, which holds what earlier runs said.
    pub(crate) fn fill(&self, record: &mut JobRecord) {
        if let Some(said) = self.said.get() {
            let said = said.lock();
            if said.progress.is_some() {
                record.progress.clone_from(&said.progress);
            }
            said.logs.iter().for_each(|line| JobRecord::push_log(&mut record.logs, line.clone()));
        }
    }
}
