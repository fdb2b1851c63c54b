//! Middlewares and kick hooks.

use std::sync::{Arc, Mutex};

use aioq::client::{KickNext, Sent};
use aioq::error::Reason;
use aioq::middleware::{Next, Outcome};
use aioq::prelude::*;
use aioq::store::Status;
use aioq::{ErrorKind, Message, Result, async_trait};
use aioq_tests::{PATIENCE, Running, ended, on_each_backend};

use crate::bodies::add;
use crate::probed;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Named(&'static str, Log);

impl Named {
    fn log(&self, what: &str) {
        self.1.0.lock().unwrap().push(format!("{} {what}", self.0));
    }
}

#[async_trait]
impl Middleware for Named {
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        self.log("run");
        let outcome = next.run(ctx).await;
        self.log("ran");
        outcome
    }

    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent> {
        self.log("kick");
        next.run(message).await
    }
}

struct Clumsy;

#[async_trait]
impl Middleware for Clumsy {
    async fn run(&self, _ctx: Context, _next: Next<'_>) -> Outcome {
        panic!("dropped it")
    }
}

struct Refuse;

#[async_trait]
impl Middleware for Refuse {
    async fn kick(&self, _message: Message, _next: KickNext<'_>) -> Result<Sent> {
        Err(aioq::Error::new(ErrorKind::InvalidArgument, "not today"))
    }
}

on_each_backend! {
    async fn middlewares_stand_around_runs_and_kicks_in_the_order_listed(bed: Bed) {
        let log = Log::default();
        let app = probed(&bed).0.middleware(Named("outer", log.clone())).middleware(Named("inner", log.clone()));
        let worker = Running::start(app).await;
        worker.client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap();
        let expected = ["outer kick", "inner kick", "outer run", "inner run", "inner ran", "outer ran"];
        assert_eq!(*log.0.lock().unwrap(), expected);
        worker.stop().await;
    }

    async fn a_panic_in_a_middleware_fails_the_job_and_settles_it(bed: Bed) {
        let worker = Running::start(probed(&bed).0.middleware(Clumsy)).await;
        let record = ended(&worker.client.kiq(add(1, 1)).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Panic)));
        worker.stop().await;
    }

    async fn a_hook_can_refuse_a_kick(bed: Bed) {
        let client = Client::builder(bed.backend()).hook(Refuse).connect().await.unwrap();
        assert_eq!(client.kiq(add(1, 1)).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let fates = client.kiq_all([add(1, 1), add(2, 2)]).await;
        assert!(fates.iter().all(Result::is_err));
    }
}
