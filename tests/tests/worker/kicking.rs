//! Arguments and options of a call: refused, sent, or failed by the worker.

use std::time::Duration;

use aioq::ErrorKind;
use aioq::broker::{Expect, Kicked};
use aioq::error::Reason;
use aioq::message::{Arguments, Codec, Envelope, Label};
use aioq::prelude::*;
use aioq::store::Status;
use aioq::tasks::KickOptions;
use aioq_tests::{Bed, PATIENCE, Running, ended, on_each_backend, record_when};
use serde_json::json;

use crate::bodies::{add, flaky, parse};
use crate::{options, probed};

#[task]
async fn huge(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Lists in lists.
#[task]
async fn nested(levels: usize) -> serde_json::Value {
    (0..levels).fold(json!([]), |inner, _| serde_json::Value::Array(vec![inner]))
}

on_each_backend! {
    async fn a_job_exists_the_moment_its_kick_returns(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(add(1, 1).label("team", "growth").priority(2)).await.unwrap();
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.priority.value()), (Status::Pending, 2));
        assert_eq!(record.labels["team"], Label::from("growth"));
        assert_eq!(handle.get_result().await.unwrap_err().kind(), ErrorKind::NotReady);
        assert_eq!(handle.result_within("20ms").await.unwrap_err().kind(), ErrorKind::NotReady);
    }

    async fn arguments_over_the_limit_are_refused_before_anything_is_sent(bed: Bed) {
        let client = bed.client().await;
        let call = parse("x".repeat(2 * 1024 * 1024)).id("large");
        let error = client.kiq(call).await.unwrap_err();
        assert_eq!((error.kind(), error.id().unwrap().as_str()), (ErrorKind::TooLarge, "large"));
        assert_eq!(client.jobs().get(&"large".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn options_that_make_no_sense_are_refused_at_the_kick(bed: Bed) {
        let client = bed.client().await;
        for call in [
            add(1, 1).delay("soon"),
            add(1, 1).priority(10),
            add(1, 1).queue(""),
            add(1, 1).id(""),
            add(1, 1).label("_retries", 3),
            add(1, 1).timeout("99999999d"),
            add(1, 1).at("tomorrow"),
            add(1, 1).label("x".repeat(129), 1),
            (0..129).fold(add(1, 1).delay("0s"), |call, number| call.label(format!("label-{number}"), number)),
        ] {
            let error = client.kiq(call.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{call:?}: {error}");
        }
        let error = client.kiq_by_name(&"x".repeat(256), &json!({}), KickOptions::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().len() < 300), (ErrorKind::InvalidArgument, true), "{error}");
    }

    async fn a_second_kick_under_a_chosen_id_is_the_first_job(bed: Bed) {
        let (app, probe) = probed(&bed);
        let client = bed.client().await;
        let first = client.kiq(flaky(0).id("order-1")).await.unwrap();
        let second = client.kiq(flaky(0).id("order-1")).await.unwrap();
        assert!(!first.existing() && second.existing());
        let worker = Running::start(app).await;
        assert_eq!(first.result_within(PATIENCE).await.unwrap(), 1);
        // Ended, but remembered.
        let third = client.kiq(flaky(0).id("order-1")).await.unwrap();
        assert!(third.existing());
        assert_eq!(third.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs(), 1);
        // Forgotten, the id is free, once its message is acked.
        let acked = async {
            while client.backend().broker().find(&"order-1".into()).await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, acked).await.expect("it is acked");
        assert!(client.jobs().remove(&"order-1".into()).await.unwrap());
        let fourth = client.kiq(flaky(0).id("order-1")).await.unwrap();
        assert!(!fourth.existing());
        assert_eq!(fourth.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs(), 2);
        worker.stop().await;
    }

    async fn a_delayed_job_reads_as_scheduled_and_runs_when_it_is_due(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        for delay in [Duration::from_millis(300), Duration::from_millis(1500)] {
            let handle = worker.client.kiq(add(1, 1).delay(delay)).await.unwrap();
            let waiting = handle.record().await.unwrap();
            assert!(!waiting.status.is_terminal(), "{waiting:?}");
            handle.result_within(PATIENCE).await.unwrap();
            let record = handle.record().await.unwrap();
            assert!(record.started_at.unwrap().since(record.kicked_at.unwrap()) >= delay);
        }
        let far = worker.client.kiq(add(1, 1).delay("30d")).await.unwrap();
        assert_eq!(far.record().await.unwrap().status, Status::Scheduled);
    }

    async fn a_job_that_was_not_started_in_time_expires_unrun(bed: Bed) {
        let (app, probe) = probed(&bed);
        let client = bed.client().await;
        let handle = client.kiq(flaky(0).ttl("1ms")).await.unwrap();
        record_when(&client, handle.id(), |record| record.status == Status::Expired).await;
        let worker = Running::start(app).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap_err().kind(), ErrorKind::Expired);
        let record = handle.record().await.unwrap();
        assert_eq!((record.reason, record.dead_lettered), (Some(Reason::Expired), true));
        assert_eq!(probe.runs(), 0);
        worker.stop().await;
    }

    async fn bulk_kicks_report_each_fate_in_order(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let calls = (0..500).map(|n| match n {
            77 => add(n, n).priority(77),
            _ => add(n, n).priority(5),
        });
        let fates = worker.client.kiq_all(calls).await;
        assert_eq!(fates.len(), 500);
        for (n, fate) in fates.into_iter().enumerate() {
            match n {
                77 => assert_eq!(fate.unwrap_err().kind(), ErrorKind::InvalidArgument),
                n => assert_eq!(fate.unwrap().result_within(PATIENCE).await.unwrap(), 2 * n as i64),
            }
        }
    }

    async fn bad_messages_fail_with_a_reason_and_hold_nobody_up(bed: Bed) {
        let impatient = options().patience(Duration::ZERO);
        let worker = Running::start(probed(&bed).0.worker_options(impatient)).await;
        let client = &worker.client;
        let undecodable = Envelope::new("broken".into(), "default", &b"\xc1 not a message"[..]);
        assert_eq!(client.backend().broker().kick(undecodable, Expect::Any).await.unwrap(), Kicked::New);
        let record = record_when(client, &"broken".into(), |record| record.status.is_terminal()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Undecodable)));
        assert!(record.dead_lettered);

        let options = KickOptions::new;
        for (args, named) in [
            (json!({"a": 1}), "missing argument `b`"),
            (json!({"a": 1, "b": 2, "c": 3}), "unexpected argument `c`"),
            (json!({"a": 1, "b": "hunter2"}), "argument `b` does not fit i64: invalid type: string, expected i64"),
            (json!({"a": 1, "b": [[[[[[[[[[[1]]]]]]]]]]]}), "argument `b` does not fit i64: invalid type: sequence"),
        ] {
            let handle = client.kiq_by_name("add", &args, options()).await.unwrap();
            let record = ended(&handle).await;
            assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::BadArguments)));
            let message = record.error.unwrap().message;
            assert!(message.contains(named) && !message.contains("hunter2"), "{message}");
        }
        for levels in [128, 1_000] {
            let record = ended(&client.kiq(nested(levels)).await.unwrap()).await;
            assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Unencodable)));
        }
        let record = ended(&client.kiq(huge(2 * 1024 * 1024)).await.unwrap()).await;
        assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::ResultTooLarge)));
        assert_eq!(client.kiq(add(1, 1)).await.unwrap().result_within(PATIENCE).await.unwrap(), 2);
    }

    async fn an_argument_that_does_not_fit_is_quoted_if_the_worker_may(bed: Bed) {
        for quote in [false, true] {
            let options = options().quote_arguments(quote).patience(Duration::ZERO);
            let worker = Running::start(probed(&bed).0.worker_options(options)).await;
            let wrong = json!({"a": "hunter2", "b": 1});
            let handle = worker.client.kiq_by_name("sum", &wrong, KickOptions::new()).await.unwrap();
            let error = ended(&handle).await.error.unwrap().to_string();
            assert_eq!(error.contains("hunter2"), quote, "{error}");
            assert!(error.contains("expected i64"), "{error}");
            worker.stop().await;
        }
    }
}

#[tokio::test]
async fn a_bare_kiq_without_a_client_says_what_to_do() {
    let error = add(1, 1).kiq().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoClient);
    assert!(error.to_string().contains("client.install()"), "{error}");
    // In scope, it finds its client.
    let client = Bed::memory().client().await;
    assert!(client.scope(async { add(1, 1).kiq().await }).await.is_ok());
}

#[test]
fn arguments_are_read_by_name_position_and_default() {
    let params = {
        const PARAMS: &[aioq::__private::Param] =
            &[aioq::__private::Param::required("a", "i64"), aioq::__private::Param::with_default("b", "i64")];
        PARAMS
    };
    let arguments = Arguments::from_json(Codec::MessagePack, r#"{"a": "5"}"#).unwrap();
    let mut reader = arguments.reader(params).unwrap();
    // `"5"` is a number where one is wanted.
    assert_eq!(reader.required::<i64>(0).unwrap(), 5);
    assert_eq!(reader.or_else::<i64>(1, || 9).unwrap(), 9);
}
