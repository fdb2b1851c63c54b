//! Whether anybody takes jobs of a queue: asked for waits that last, once for all of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Client;
use crate::error::Result;

/// How long an answer is used.
const FRESH: Duration = Duration::from_secs(5);
/// How long nothing more is said of a queue.
const SILENCE: Duration = Duration::from_secs(60);
/// The most queues of which it is known that something was said.
const MOST_SAID: usize = 1_000;

#[derive(Default)]
pub(super) struct Heard(Mutex<State>);

#[derive(Default)]
struct State {
    answer: Option<(Instant, Answer)>,
    /// When something was said of a queue, by the queue and what it was.
    said: HashMap<(String, &'static str), Instant>,
}

struct Answer {
    paused: BTreeSet<String>,
    /// The queues that live workers listen to.
    heard: BTreeSet<String>,
}

impl Answer {
    fn why_unheard(&self, queue: &str) -> Option<&'static str> {
        if self.paused.contains(queue) {
            return Some("its queue is paused");
        }
        let why = "no worker listens to its queue: start one, or look at its `--queues`";
        (!self.heard.contains(queue)).then_some(why)
    }
}

impl Client {
    /// Why nobody takes jobs of the queue; `None` if somebody does, or if it was said less than a minute ago.
    ///
    /// # Errors
    /// What the backend reports.
    pub(crate) async fn why_unheard(&self, queue: &str) -> Result<Option<&'static str>> {
        // Whoever waits for the lock gets the answer to the question of the one before.
        let mut state = self.0.heard.0.lock().await;
        if state.answer.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= FRESH) {
            state.answer = Some((Instant::now(), self.ask_who_listens().await?));
        }
        let why = state.answer.as_ref().and_then(|(_, answer)| answer.why_unheard(queue));
        Ok(why.filter(|why| state.is_to_be_said(queue, why)))
    }

    async fn ask_who_listens(&self) -> Result<Answer> {
        let paused = self.queues().paused().await?;
        let workers = self.workers().list().await?;
        let alive = workers.into_iter().filter(|worker| worker.is_alive());
        Ok(Answer { paused, heard: alive.flat_map(|worker| worker.queues).collect() })
    }
}

impl State {
    fn is_to_be_said(&mut self, queue: &str, why: &'static str) -> bool {
        let now = Instant::now();
        if self.said.len() >= MOST_SAID {
            self.said.retain(|_, said| now - *said < SILENCE);
        }
        let key = (queue.to_owned(), why);
        let is_due = self.said.get(&key).is_none_or(|said| now - *said >= SILENCE);
        if is_due {
            self.said.insert(key, now);
        }
        is_due
    }
}
