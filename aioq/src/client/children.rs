//! Bulk kicks of jobs that wait for each other: parents go before their children.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, ErrorKind};
use crate::message::{JobId, Message};

/// A message with its place among those of the bulk kick.
pub(super) type Placed = (usize, Message);

/// Messages with parents, in the order in which to send them.
pub(super) struct Generations {
    /// Each message is in a later generation than its parents.
    pub(super) generations: Vec<Vec<Placed>>,
    /// Messages that wait for each other, each with its error.
    pub(super) cyclic: Vec<(usize, Error)>,
}

impl Generations {
    /// Sorts messages by their parents among each other.
    pub(super) fn of(mut messages: Vec<Placed>) -> Self {
        let mut generations = Vec::new();
        loop {
            let waiting: HashSet<JobId> = messages.iter().map(|(_, message)| message.id.clone()).collect();
            let is_next = |(_, message): &Placed| {
                message.parents().iter().all(|parent| !waiting.contains(parent) || *parent == message.id)
            };
            let (next, later): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_next);
            messages = later;
            if next.is_empty() {
                break;
            }
            generations.push(next);
        }
        Self { generations, cyclic: cyclic(&messages) }
    }
}

/// An error for each message that waits for itself over others, or for such a message.
fn cyclic(messages: &[Placed]) -> Vec<(usize, Error)> {
    let by_id: HashMap<&JobId, &Message> =
        messages.iter().map(|(_, message)| (&message.id, message)).collect();
    let error = |message: &Message| {
        let why = format!("jobs of the bulk wait for each other: {}", cycle_from(message, &by_id));
        Error::new(ErrorKind::InvalidArgument, why).with_id(message.id.clone())
    };
    messages.iter().map(|(place, message)| (*place, error(message))).collect()
}

/// The ids of a cycle that a walk from child to parent runs into.
fn cycle_from(message: &Message, by_id: &HashMap<&JobId, &Message>) -> String {
    let mut way = vec![&message.id];
    let mut at = message;
    loop {
        let parent = at.parents().iter().find_map(|parent| by_id.get(parent));
        let Some(parent) = parent else { break };
        if let Some(start) = way.iter().position(|id| **id == parent.id) {
            way.drain(..start);
            way.push(&parent.id);
            break;
        }
        way.push(&parent.id);
        at = parent;
    }
    let names: Vec<String> = way.into_iter().map(|id| format!("`{id}`")).collect();
    names.join(" after ")
}
