//! Options of a job, for the commands that kick one now or by a schedule.

use std::time::Duration;

use clap::Args;

use super::listing::parse_label;
use super::queues::parse_queue;
use crate::message::Label;
use crate::task::KickOptions;
use crate::time::parse_duration;

#[derive(Args)]
pub(super) struct JobArgs {
    /// The queue, instead of the task's own
    #[arg(long, value_parser = parse_queue)]
    pub(super) queue: Option<String>,
    /// Priority from 0 to 9; lower runs first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Expire if not started this long after it was due
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    ttl: Option<Duration>,
    /// Time limit of one attempt
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// Retries after the first run
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// A unique key: while a job of the task with this key is unfinished, none is added
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// How long from the kick a completed job still holds its unique key
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    unique_for: Option<Duration>,
    /// A label, as name=value; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

impl JobArgs {
    pub(super) fn options(&self) -> KickOptions {
        let mut options = KickOptions::new();
        if let Some(queue) = &self.queue {
            options = options.queue(queue);
        }
        if let Some(priority) = self.priority {
            options = options.priority(priority);
        }
        if let Some(ttl) = self.ttl {
            options = options.ttl(ttl);
        }
        if let Some(timeout) = self.timeout {
            options = options.timeout(timeout);
        }
        if let Some(retries) = self.retries {
            options = options.retries(retries);
        }
        if let Some(key) = &self.unique_key {
            options = options.unique_key(key.as_str());
        }
        if let Some(span) = self.unique_for {
            options = options.unique_for(span);
        }
        for (name, value) in &self.labels {
            options = options.label(name, Label::Str(value.clone()));
        }
        options
    }
}
