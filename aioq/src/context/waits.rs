//! Waits of bodies for the end of other jobs: meanwhile an async body lends its slot, and a
//! blocking one the place of its thread. So jobs that wait for jobs of their own queue do not block
//! each other.

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
    /// The body that is polled here.
    static BODY: Body;
}

/// Waits that began outside of any known body, such as in a task that a body spawned.
static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

/// How many waits for jobs are under way in this process of which no body is known.
pub(crate) fn waits_elsewhere() -> usize {
    ELSEWHERE.load(Ordering::Relaxed)
}

/// A body, as a wait inside of it sees it.
#[derive(Clone)]
struct Body {
    ctx: Context,
    on_thread: bool,
}

/// Runs code of a blocking body.
pub(super) fn on_thread<T>(ctx: &Context, body: impl FnOnce() -> T) -> T {
    BODY.sync_scope(Body { ctx: ctx.clone(), on_thread: true }, body)
}

/// Runs an async body, which lends its slot between its polls while a wait for another job is
/// pending in it. Before it is polled again it takes a slot, so it never runs without one. A slot
/// that a dropped wait had lent is taken again in the same way.
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
        // Polled once more when the first wait begins: from then on it is known whether the body
        // itself was woken.
        lender.get_or_insert_with(Lender::new).poll(ctx, body.as_mut(), context)
    })
    .await
}

/// The slot of a body that has waited for another job.
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

    /// Takes a slot if the body is to go on; whether it has one.
    fn reacquire(&mut self, ctx: &Context, context: &mut task::Context<'_>) -> bool {
        if self.taking.is_none() && !self.woken.is_set.load(Ordering::Acquire) {
            // Something around the body was woken.
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

/// Whether a body was woken.
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

/// The place of a blocking body in the pool.
#[derive(Default)]
pub(super) struct Thread {
    place: Option<OwnedSemaphorePermit>,
    lent: Option<LentThread>,
    /// Waits for other jobs that are pending in it.
    waits: usize,
}

/// The run has a place in the pool as long as this lives.
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

    /// Whether waits for other jobs are pending in its async body.
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

    /// Ends a wait on a thread; what is left to do if it was the last one.
    fn end_wait_on_thread(&self) -> Option<BoxFuture<'static, ()>> {
        let mut thread = self.0.thread.lock();
        thread.waits -= 1;
        (thread.waits == 0 && thread.lent.is_some()).then(|| Box::pin(self.clone().take_place_again()) as _)
    }

    async fn take_place_again(self) {
        let place = self.0.scope.pool.reacquire().await;
        let mut thread = self.0.thread.lock();
        // Another wait may have begun meanwhile, for which the place stays lent.
        if thread.waits == 0 && thread.place.is_none() {
            (thread.place, thread.lent) = (place, None);
        }
    }
}

/// Says that a body keeps what it would lend, because too many have lent theirs.
fn warn_kept(ctx: &Context, what: &str) {
    if ctx.0.scope.kept.is_due() {
        tracing::warn!(
            "task `{}` of queue `{}` waits for another job and keeps {what}, as too many bodies wait already: \
             start fewer at a time, or give the jobs that they wait for a queue of their own",
            ctx.task(),
            ctx.queue()
        );
    }
}

/// A wait for the end of a job, from its begin to its end. A body that it is in lends its slot
/// meanwhile, or the place of its thread.
pub(crate) struct Waiting {
    /// `None` once it has ended.
    of: Option<Option<Body>>,
    taking: Option<BoxFuture<'static, ()>>,
}

impl Waiting {
    /// Begins one.
    pub(crate) fn begin() -> Self {
        let body = BODY.try_with(Body::clone).ok();
        match &body {
            Some(body) if body.on_thread => body.ctx.lend_place(),
            Some(body) => _ = body.ctx.0.waits.fetch_add(1, Ordering::Relaxed),
            None => _ = ELSEWHERE.fetch_add(1, Ordering::Relaxed),
        }
        Self { of: Some(body), taking: None }
    }

    /// Ends it, once the body may go on.
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
        // A thread can wait here until it may go on; whoever else dropped the wait must not.
        if BODY.try_with(|body| body.on_thread).unwrap_or(false) {
            // An error is the end that is waited for.
            let _ = taken.recv();
        }
    }
}
