//! The task of the measured jobs: what `#[task]` generates from the function below, without adding
//! it to the tasks of the program.
//!
//! ```text
//! #[task(name = "bench.noop", queue = "bench")]
//! async fn noop(number: u64, text: &str, #[inject] tally: &Tally) {
//!     std::hint::black_box(text);
//!     tally.started(number);
//!     tally.count();
//! }
//! ```

use crate::bench::{QUEUE, TASK, TEXT, Tally};
use crate::codec::{ArgsEncoder, Arguments, Param, Payload, Str};
use crate::context::{Context, Need};
use crate::error::{Result, TaskResult};
use crate::registry::{Location, RunTask};
use crate::task::{Call, WorkerOnly};
use crate::task::{Task, TaskOptions};

/// Task whose body only counts.
pub(super) struct Noop {}

/// A call of the task.
pub(super) fn noop(number: u64) -> Call<Noop> {
    Call::new((number, TEXT.to_owned()))
}

impl Task for Noop {
    const NAME: &'static str = TASK;
    const OPTIONS: TaskOptions = TaskOptions::new().queue(QUEUE);
    const PARAMS: &'static [Param] = &[Param::required("number", "u64"), Param::required("text", "&str")];
    type Args = (u64, String);
    type Output = ();
    type Bare = WorkerOnly;

    fn encode((number, text): &Self::Args, out: &mut ArgsEncoder) -> Result<()> {
        out.arg("number", number)?;
        out.arg("text", text)
    }
}

impl RunTask for Noop {
    const BLOCKING: bool = false;
    const LOCATION: Location = Location::new(file!(), line!());
    const NEEDS: &'static [Need] = &[Need::state::<Tally>()];

    fn check(arguments: &Arguments) -> TaskResult<()> {
        let mut reader = arguments.reader(Self::PARAMS)?;
        let _: u64 = reader.required(0)?;
        let _: Str<'_> = reader.required(1)?;
        Ok(())
    }

    async fn run(ctx: Context) -> TaskResult<Payload> {
        let (number, text): (u64, Str<'_>) = {
            let mut reader = ctx.arguments(Self::PARAMS)?;
            (reader.required(0)?, reader.required(1)?)
        };
        let tally = ctx.state::<Tally>()?;
        std::hint::black_box(&*text);
        tally.started(number);
        tally.count();
        ctx.output(&())
    }
}
