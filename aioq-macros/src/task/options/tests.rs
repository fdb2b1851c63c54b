use super::*;

/// The errors of an option list on a task without parameters, and the builder calls.
fn read(attr: &str) -> (Vec<String>, String) {
    let mut errors = Errors::default();
    let options = Options::read(attr.parse().unwrap(), &mut errors);
    options.check("task", true, &Params::default(), &mut errors);
    (errors.messages(), options.to_tokens(&quote!(rt)).to_string().replace(' ', ""))
}

#[test]
fn every_option_reaches_its_builder() {
    let (errors, code) = read(
        "name = \"email.send\", queue = \"email\", priority = 3, timeout = \"30s\", ttl = \"1h\", ack = \"on_receive\", \
         keep = \"2h\", keep_failed = \"30d\", retry(max = 5, backoff = \"1s..5m\", jitter, retry_for = \"48h\"), labels(tier = 2), fallible, \
         alias(\"old\", \"older\"), crate = my::aioq,",
    );
    assert_eq!(errors, [""; 0]);
    let expected = "rt::TaskOptions::new().queue(\"email\").priority(3u8).timeout_ms(30000u64).ttl_ms(3600000u64)\
                    .keep_ms(7200000u64).keep_failed_ms(2592000000u64).retry(rt::RetryPolicy::new(5u32).exponential_ms(1000u64,300000u64).jitter()\
                    .retry_for_ms(172800000u64)).ack(rt::AckMode::OnReceive)\
                    .labels(&[(\"tier\",rt::ConstLabel::Int(2i64))]).aliases(&[\"old\",\"older\"])";
    assert_eq!(code, expected);
}

#[test]
fn no_option_is_an_empty_builder() {
    assert_eq!(read(""), (vec![], "rt::TaskOptions::new()".to_owned()));
}

#[test]
fn a_policy_needs_no_maximum() {
    let (errors, code) = read("retry(policy = mine)");
    assert_eq!(errors, [""; 0]);
    assert!(code.contains("RetryPolicy::new(4294967295u32).custom(mine)"), "{code}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let (errors, code) =
        read("timout = \"30s\", queue = 5, priority = 12, ttl = 30, queue = \"mail\", fallible = 3");
    assert_eq!(
        errors,
        [
            "unknown option `timout`, did you mean `timeout`?",
            "expected text, for example \"email\"",
            "a priority (lower first) is a whole number from 0 to 9",
            "a duration needs a unit, for example \"30s\"",
            "duplicate option `queue`",
            "write `fallible`",
        ]
    );
    assert_eq!(code, "rt::TaskOptions::new()");
}

#[test]
fn retry_without_an_end_is_refused() {
    assert_eq!(read("retry(jitter)").0, ["`retry` needs an end: write `retry(max = 5)`"]);
    assert_eq!(read("retry(max = \"5\")").0.len(), 1);
    assert_eq!(read("retry = 5").0, ["write `retry(max = 5, backoff = \"1s..5m\")`"]);
}

#[test]
fn an_option_whose_engine_comes_later_is_checked_then_refused() {
    assert_eq!(read("rate = \"100/week\"").0.len(), 1);
    assert_eq!(read("rate = \"100/s\"").0, ["`rate` is not yet supported"]);
    assert_eq!(read("unique(by = to, within = \"10m\")").0, ["no parameter is called `to`, none travels"]);
}

#[test]
fn a_schedule_is_a_constant_of_the_task() {
    let (errors, code) =
        read("cron = \"0 3 * * *\", tz = \"Europe/Berlin\", missed = \"once\", overlap = \"skip\"");
    assert_eq!(errors, [""; 0]);
    let schedule = ".schedule(rt::ScheduleOptions::cron(\"03***\",\"Europe/Berlin\").missed(rt::Missed::Once).overlap(rt::Overlap::Skip))";
    assert_eq!(code, format!("rt::TaskOptions::new(){schedule}"));
    assert_eq!(
        read("every = \"90s\"").1,
        "rt::TaskOptions::new().schedule(rt::ScheduleOptions::every_ms(90000u64))"
    );
    assert_eq!(read("missed = \"once\"").0, ["`missed` is about a schedule: add `cron` or `every`"]);
    assert_eq!(read("every = \"1m\", missed = \"al\"").0.len(), 1);
    assert_eq!(
        read("every = \"1m\", unique(debounce = \"5s\")").0,
        ["a task with a schedule cannot be debounced: each tick runs by itself"]
    );
    assert_eq!(
        read("cron = \"0 3 * * *\", every = \"1m\"").0,
        ["a task has one schedule: `cron` or `every`"]
    );
    assert_eq!(read("tz = \"UTC\"").0, ["`tz` is the time zone of `cron`, which is missing"]);
}

#[test]
fn names_fit_into_a_message() {
    let long = "x".repeat(129);
    assert_eq!(read("name = \"\"").0, ["the name of the task is empty"]);
    assert_eq!(
        read(&format!("queue = \"{long}\"")).0,
        ["the name of the queue has 129 bytes; it may have 128"]
    );
    assert_eq!(read("alias(\"task\")").0, ["`task` is the task's name already"]);
}
