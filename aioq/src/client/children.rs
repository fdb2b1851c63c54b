//! Bulk kicks of jobs that wait for each other: parents go before their children.

use std::collections::HashMap;

use super::hooks::Sent;
use crate::error::{Error, ErrorKind, Result};
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
    pub(super) fn of(messages: Vec<Placed>) -> Self {
        let mut children: HashMap<JobId, Vec<usize>> = HashMap::with_capacity(messages.len());
        for (_, message) in &messages {
            children.entry(message.id.clone()).or_default();
        }
        // For each message, the number of parents whose generation is not known yet. The door
        // refuses a job that waits for itself.
        let mut missing = vec![0_usize; messages.len()];
        for (index, (_, message)) in messages.iter().enumerate() {
            for parent in message.parents().iter().filter(|parent| **parent != message.id) {
                if let Some(children) = children.get_mut(parent) {
                    children.push(index);
                    missing[index] += 1;
                }
            }
        }
        let mut messages: Vec<Option<Placed>> = messages.into_iter().map(Some).collect();
        let mut next: Vec<usize> = (0..missing.len()).filter(|index| missing[*index] == 0).collect();
        let mut generations = Vec::new();
        while !next.is_empty() {
            let generation: Vec<Placed> = next.drain(..).filter_map(|index| messages[index].take()).collect();
            for (_, parent) in &generation {
                // Of two messages under one id, the first one releases their children.
                for child in children.remove(&parent.id).unwrap_or_default() {
                    missing[child] -= 1;
                    if missing[child] == 0 {
                        next.push(child);
                    }
                }
            }
            generations.push(generation);
        }
        let left: Vec<Placed> = messages.into_iter().flatten().collect();
        Self { generations, cyclic: cyclic(&left) }
    }
}

/// Jobs of a bulk that were not kicked, each with the kind of its error.
#[derive(Default)]
pub(super) struct Unsent(HashMap<JobId, ErrorKind>);

impl Unsent {
    pub(super) fn note(&mut self, fate: &Result<Sent>) {
        if let Err(error) = fate
            && let Some(id) = error.id()
        {
            self.0.insert(id.clone(), error.kind());
        }
    }

    /// Takes the messages out of a generation that have parents among these jobs, each with its
    /// error. They are among these jobs from now on.
    pub(super) fn orphans(&mut self, generation: Vec<Placed>) -> (Vec<(usize, Error)>, Vec<Placed>) {
        if self.0.is_empty() {
            return (Vec::new(), generation);
        }
        let (mut orphans, mut others) = (Vec::new(), Vec::new());
        for (place, message) in generation {
            let parent = message.parents().iter().find_map(|parent| Some((parent, *self.0.get(parent)?)));
            let Some((parent, kind)) = parent else {
                others.push((place, message));
                continue;
            };
            let why =
                format!("not sent: its parent `{parent}` of the same bulk was not kicked; kick both again");
            orphans.push((place, Error::new(kind, why).with_id(message.id.clone())));
            self.0.insert(message.id, kind);
        }
        (orphans, others)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::{Arguments, Codec};

    fn placed(jobs: &[(&str, &[&str])]) -> Vec<Placed> {
        let message = |(id, parents): &(&str, &[&str])| {
            let arguments = Arguments::from_json(Codec::MessagePack, "{}").unwrap();
            let mut message = Message::new((*id).into(), "task", arguments);
            message.ties_mut().parents = parents.iter().map(|id| JobId::from(*id)).collect();
            message
        };
        jobs.iter().map(message).enumerate().collect()
    }

    #[test]
    fn parents_are_in_earlier_generations_than_their_children() {
        let jobs = placed(&[
            ("d", &["b", "c"]),
            ("b", &["a"]),
            ("a", &["elsewhere"]),
            ("c", &["a", "c"]),
            ("x", &["y"]),
            ("y", &["x"]),
            ("z", &["y"]),
            ("a", &[]),
        ]);
        let Generations { generations, cyclic } = Generations::of(jobs);
        let places: Vec<Vec<usize>> = generations
            .iter()
            .map(|generation| generation.iter().map(|(place, _)| *place).collect())
            .collect();
        assert_eq!(places, [vec![2, 7], vec![1, 3], vec![0]]);
        let cyclic: Vec<usize> = cyclic.iter().map(|(place, _)| *place).collect();
        assert_eq!(cyclic, [4, 5, 6]);
    }
}
