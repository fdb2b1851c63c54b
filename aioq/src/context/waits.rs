//! Waits of bodies for the end of other jobs. Meanwhile an async body lends its slot, and a
//! blocking body lends its thread of the pool. So jobs that wait for jobs of their own queue do not
//! block each other.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{self, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use tokio::sync::OwnedSemaphorePermit;

use super::Context;
use crate::run::LentSlot;
use crate::run::LentThread;

tokio::task_local! {
    /// The body that runs on this thread.
    static BODY: Body;
}

/// Waits that began outside of a known body, such as in a Tokio task that a body spawned.
static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

/// Number of pending waits in this process whose body is unknown.
pub(crate) fn waits_elsewhere() -> usize {
    ELSEWHERE.load(Ordering::Relaxed)
}

/// The body that a wait belongs to.
#[derive(Clone)]
struct Body {
    ctx: Context,
    on_thread: bool,
}

/// Runs the code of a blocking body.
pub(super) fn on_thread<T>(ctx: &Context, body: impl FnOnce() -> T) -> T {
    BODY.sync_scope(Body { ctx: ctx.clone(), on_thread: true }, body)
}

/// Runs an async body. While a wait for another job is pending in the body, the body lends its slot
/// between its polls. It takes a slot before it is polled again, so it never runs without one. That
/// holds for a dropped wait, too.
pub(crate) async fn lending<F: Future>(ctx: &Context, body: F) -> F::Output {
    let mut body = pin!(BODY.scope(Body { ctx: ctx.clone(), on_thread: false }, body));
    let mut lender = None;
    poll_fn(|context| {
        if lender.is_none() {
            let polled = body.as_mut().poll(context);
            if polled.is_ready() || !ctx.waits() {
                return polled;
            }
        }
        // Polls once more when the first wait begins, with a waker that tells if the body itself
        // was woken.
        lender.get_or_insert_with(Lender::new).poll(ctx, body.as_mut(), context)
    })
    .await
}

/// The slot of a body that waits for another job.
struct Lender {
    woken: Arc<Woken>,
    lent: Option<LentSlot>,
    taking: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
}

impl Lender {
    fn new() -> Box<Self> {
        Box::new(Self { woken: Arc::default(), lent: None, taking: None })
    }

    fn poll<F: Future>(
        &mut self,
        ctx: &Context,
        body: Pin<&mut F>,
        context: &mut task::Context<'_>,
    ) -> Poll<F::Output> {
        self.woken.outer.register(context.waker());
        if self.lent.is_some() && !self.reacquire(ctx, context) {
            return Poll::Pending;
        }
        self.woken.is_set.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self.woken));
        let polled = body.poll(&mut task::Context::from_waker(&waker));
        if polled.is_pending() && ctx.waits() {
            self.lend(ctx);
        }
        polled
    }

    /// Takes a slot if the body was woken. True if the body has a slot.
    fn reacquire(&mut self, ctx: &Context, context: &mut task::Context<'_>) -> bool {
        if self.taking.is_none() && !self.woken.is_set.load(Ordering::Acquire) {
            // Another future of the same Tokio task was woken.
            return false;
        }
        let taking = self.taking.get_or_insert_with(|| Box::pin(Arc::clone(&ctx.0.scope.slots).reacquire()));
        let Poll::Ready(slot) = taking.as_mut().poll(context) else { return false };
        (self.taking, self.lent) = (None, None);
        ctx.0.state.set_lent(false);
        ctx.put_slot(slot);
        true
    }

    fn lend(&mut self, ctx: &Context) {
        let Some(slot) = ctx.take_slot() else { return };
        self.lent = ctx.0.scope.slots.lend();
        if self.lent.is_some() {
            ctx.0.state.set_lent(true);
        } else {
            ctx.put_slot(Some(slot));
            warn_kept(ctx, "its slot");
        }
    }
}

/// Waker that records if the body was woken.
#[derive(Default)]
struct Woken {
    is_set: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_set.store(true, Ordering::Release);
        self.outer.wake();
    }
}

/// The thread of the pool that a blocking body holds or lends.
#[derive(Default)]
pub(super) struct Thread {
    place: Option<OwnedSemaphorePermit>,
    lent: Option<LentThread>,
    /// Number of pending waits for other jobs in the body.
    waits: usize,
}

/// A run's hold of a thread of the pool. Dropping it gives the thread back.
pub(crate) struct Placed<'a>(&'a Context);

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        let mut thread = self.0.0.thread.lock();
        (thread.place, thread.lent) = (None, None);
    }
}

impl Context {
    pub(super) fn place(&self, place: OwnedSemaphorePermit) -> Placed<'_> {
        self.0.thread.lock().place = Some(place);
        Placed(self)
    }

    /// True if a wait for another job is pending in the async body.
    fn waits(&self) -> bool {
        self.0.waits.load(Ordering::Relaxed) > 0
    }

    fn lend_place(&self) {
        let mut thread = self.0.thread.lock();
        thread.waits += 1;
        if thread.place.is_none() {
            return;
        }
        thread.lent = self.0.scope.pool.lend(self.queue());
        if thread.lent.is_some() {
            thread.place = None;
            self.0.scope.pool.notify_lent();
        } else {
            drop(thread);
            warn_kept(self, "its thread");
        }
    }

    /// Ends a wait of a blocking body. If it was the last one, returns the future that takes a
    /// thread again.
    fn end_wait_on_thread(&self) -> Option<BoxFuture<'static, ()>> {
        let mut thread = self.0.thread.lock();
        thread.waits -= 1;
        (thread.waits == 0 && thread.lent.is_some()).then(|| Box::pin(self.clone().take_place_again()) as _)
    }

    async fn take_place_again(self) {
        let place = self.0.scope.pool.reacquire().await;
        let mut thread = self.0.thread.lock();
        // Another wait may have begun meanwhile. Then the thread stays lent.
        if thread.waits == 0 && thread.place.is_none() {
            (thread.place, thread.lent) = (place, None);
        }
    }
}

/// Warns that a waiting body keeps its slot or thread, because too many bodies have lent theirs.
fn warn_kept(ctx: &Context, what: &str) {
    if ctx.0.scope.kept.is_due() {
        tracing::warn!(
            "task `{}` of queue `{}` waits for another job and keeps {what}, because too many bodies wait already: \
             start fewer such jobs at a time, or put the jobs that they wait for on another queue",
            ctx.task(),
            ctx.queue()
        );
    }
}

/// A pending wait for the end of a job. Meanwhile its body lends its slot or its thread.
pub(crate) struct Waiting {
    /// The body of the wait, if known; `None` once the wait has ended.
    of: Option<Option<Body>>,
    taking: Option<BoxFuture<'static, ()>>,
}

impl Waiting {
    /// Begins a wait.
    pub(crate) fn begin() -> Self {
        let body = BODY.try_with(Body::clone).ok();
        match &body {
            Some(body) if body.on_thread => body.ctx.lend_place(),
            Some(body) => _ = body.ctx.0.waits.fetch_add(1, Ordering::Relaxed),
            None => _ = ELSEWHERE.fetch_add(1, Ordering::Relaxed),
        }
        Self { of: Some(body), taking: None }
    }

    /// Ends the wait. Resolves once the body has a thread again, if it had lent one.
    pub(crate) async fn end(mut self) {
        self.stop();
        if let Some(taking) = &mut self.taking {
            taking.await;
            self.taking = None;
        }
    }

    fn stop(&mut self) {
        match self.of.take() {
            None => {}
            Some(None) => _ = ELSEWHERE.fetch_sub(1, Ordering::Relaxed),
            Some(Some(body)) if body.on_thread => self.taking = body.ctx.end_wait_on_thread(),
            Some(Some(body)) => _ = body.ctx.0.waits.fetch_sub(1, Ordering::Relaxed),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stop();
        let Some(taking) = self.taking.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (done, taken) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move {
            taking.await;
            drop(done);
        });
        // Only the thread of the blocking body may block here until the body has a thread again.
        if BODY.try_with(|body| body.on_thread).unwrap_or(false) {
            // The sender is dropped when the thread is taken: `recv` then returns an error.
            let _ = taken.recv();
        }
    }
}
