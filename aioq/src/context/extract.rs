//! Extractors of `#[inject]` parameters.

use std::any::{TypeId, type_name};
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use super::Context;
use crate::client::Client;
use crate::error::{TaskError, TaskResult};

/// A type of `#[inject]` parameters. A value is made for each run.
///
/// ```
/// use aioq::context::FromContext;
/// use aioq::{Context, TaskResult};
///
/// /// The tenant that a job is for, from its label.
/// struct Tenant(String);
///
/// impl FromContext for Tenant {
///     async fn from_context(ctx: &Context) -> TaskResult<Self> {
///         let name = ctx.label("tenant").and_then(|label| label.as_str());
///         Ok(Self(name.ok_or("the job has no label `tenant`")?.to_owned()))
///     }
/// }
///
/// #[aioq::task]
/// async fn report(#[inject] tenant: Tenant) -> String {
///     format!("report for {}", tenant.0)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be injected into a task",
    label = "not an extractor",
    note = "inject state by reference (`#[inject] x: &{Self}`), or implement `aioq::context::FromContext` for `{Self}`"
)]
pub trait FromContext: Sized + Send {
    /// States that the extractor needs. A worker without them refuses to start.
    #[must_use]
    fn needs() -> Vec<Need> {
        Vec::new()
    }

    /// Makes the value for one run; an error fails the attempt.
    fn from_context(ctx: &Context) -> impl Future<Output = TaskResult<Self>> + Send;
}

impl FromContext for Context {
    async fn from_context(ctx: &Context) -> TaskResult<Self> {
        Ok(ctx.clone())
    }
}

impl FromContext for Client {
    async fn from_context(ctx: &Context) -> TaskResult<Self> {
        Ok(ctx.client().clone())
    }
}

/// A shared state, for bodies that must own it. `#[inject] x: &T` borrows it instead.
#[derive(Debug)]
pub struct State<T>(pub Arc<T>);

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + Sync + 'static> FromContext for State<T> {
    fn needs() -> Vec<Need> {
        vec![Need::state::<T>()]
    }

    async fn from_context(ctx: &Context) -> TaskResult<Self> {
        let state = ctx.0.scope.states.get_shared();
        state
            .map(Self)
            .ok_or_else(|| TaskError::fatal(format!("the worker has no state `{}`", type_name::<T>())))
    }
}

/// Need of a task or an extractor. Checked when the worker starts.
#[derive(Clone, Copy, Debug)]
pub struct Need(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    State { type_id: fn() -> TypeId, type_name: fn() -> &'static str },
    Extractor(fn() -> Vec<Need>),
}

impl Need {
    /// A state of type `T`.
    #[must_use]
    pub const fn state<T: Send + Sync + 'static>() -> Self {
        Self(Kind::State { type_id: TypeId::of::<T>, type_name: type_name::<T> })
    }

    /// All needs of the extractor `T`.
    #[must_use]
    pub const fn extractor<T: FromContext>() -> Self {
        Self(Kind::Extractor(T::needs))
    }

    /// The needed states, as types and their names.
    pub(crate) fn states(self) -> Vec<(TypeId, &'static str)> {
        match self.0 {
            Kind::State { type_id, type_name } => vec![(type_id(), type_name())],
            Kind::Extractor(needs) => needs().into_iter().flat_map(Self::states).collect(),
        }
    }
}
