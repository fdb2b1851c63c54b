//! The tasks of a program: linked in, or registered at run time.

mod definition;
mod run_task;

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use self::definition::{Location, TaskDef};
pub use self::run_task::{OutputType, RunTask, output_type};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Name, check_task_name};
use crate::states::States;

inventory::collect!(TaskDef);

/// Finds tasks by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    tasks: Arc<BTreeMap<Name, Arc<TaskDef>>>,
    /// The same tasks by all their names, including aliases.
    by_name: Arc<HashMap<Name, Arc<TaskDef>, RandomState>>,
}

impl Registry {
    /// All annotated functions that are linked into the program.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if two tasks have the same name; the message names both places.
    pub fn linked() -> Result<Self> {
        inventory::iter::<TaskDef>.into_iter().cloned().try_fold(Self::default(), Self::with)
    }

    /// Adds a task.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the name, or one of its aliases, is taken, empty or too long.
    pub fn with(mut self, mut task: TaskDef) -> Result<Self> {
        task.set_number(self.len());
        let task = Arc::new(task);
        for name in std::iter::once(task.name()).chain(task.options.aliases.iter().copied()) {
            if let Err(error) = check_task_name(name) {
                return Err(Error::new(ErrorKind::Config, format!("{error}{}", place(&task))));
            }
            if let Some(other) = self.find(name) {
                return Err(taken(name, &task, other));
            }
        }
        let names = task.options.aliases.iter().map(|alias| Name::from_static(alias));
        let names = names.chain([task.shared_name()]).map(|name| (name, Arc::clone(&task)));
        Arc::make_mut(&mut self.by_name).extend(names);
        Arc::make_mut(&mut self.tasks).insert(task.shared_name(), task);
        Ok(self)
    }

    /// The task with this name or alias.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&TaskDef> {
        self.by_name.get(name).map(Arc::as_ref)
    }

    /// All tasks, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TaskDef>> {
        self.tasks.values()
    }

    /// Number of tasks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// True if there are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Queues with only blocking tasks.
    pub(crate) fn blocking_queues(&self) -> HashSet<&'static str> {
        let (blocking, others): (Vec<_>, Vec<_>) = self.iter().partition(|task| task.is_blocking());
        let queues = |tasks: Vec<&Arc<TaskDef>>| tasks.into_iter().map(|task| task.queue()).collect();
        let (blocking, others): (HashSet<_>, HashSet<_>) = (queues(blocking), queues(others));
        blocking.difference(&others).copied().collect()
    }

    /// The known name most similar to `name`, if one is similar.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let near = self.tasks.keys().map(|known| (strsim::jaro_winkler(known, name), known));
        let best = near.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (best.0 > 0.75).then_some(best.1)
    }

    /// Error for an unknown task.
    pub(crate) fn unknown(&self, name: &str) -> Error {
        let hint = match self.nearest(name) {
            Some(near) => format!(", did you mean `{near}`?"),
            None => String::new(),
        };
        Error::new(ErrorKind::UnknownTask, format!("no task `{name}` is registered here{hint}"))
    }

    /// Fails for a program without tasks.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "no tasks are linked into this program: if they live in another crate, name it once, \
                 as in `use my_tasks as _;`",
            ));
        }
        Ok(())
    }

    /// Fails if a task of these queues lacks a state.
    pub(crate) fn check_states(&self, states: &States, queues: &[String]) -> Result<()> {
        let tasks = self.iter().filter(|task| queues.iter().any(|queue| queue == task.queue()));
        let missing: Vec<String> = tasks.flat_map(|task| missing_states(task, states)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Config, missing.join("; "))) }
    }
}

fn missing_states(task: &TaskDef, states: &States) -> Vec<String> {
    let needed = task.needs().iter().flat_map(|need| need.states());
    let missing = needed.filter(|(type_id, _): &(TypeId, _)| !states.has(*type_id));
    missing
        .map(|(_, full_name)| {
            let name = full_name.rsplit("::").next().unwrap_or(full_name);
            format!("task `{}`{} needs state `{name}`: add `.state({name}…)`", task.name(), place(task))
        })
        .collect()
}

fn taken(name: &str, task: &TaskDef, other: &TaskDef) -> Error {
    Error::new(
        ErrorKind::Config,
        format!(
            "two tasks are called `{name}`{} and{}: give one another name, as in `#[task(name = \"area.verb\")]`",
            place(other),
            place(task)
        ),
    )
}

fn place(task: &TaskDef) -> String {
    task.location().map(|location| format!(" ({location})")).unwrap_or_default()
}
