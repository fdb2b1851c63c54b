#![allow(unused)]

mod bad_ack {
    use aioq::task;

    #[task(ack = "on_recieve")]
    async fn send() {}
}

mod bad_cron {
    use aioq::task;

    #[task(cron = "0 25 * * *")]
    async fn value() {}

    #[task(cron = "0 3 * *")]
    async fn fields() {}

    #[task(cron = "0 0 30 2 *")]
    async fn never() {}

    #[task(cron = "TZ=UTC 0 3 * * *")]
    async fn zone() {}

    #[task(cron = "0 3 * * *", missed = "al")]
    async fn policy() {}

    #[task(overlap = "skip")]
    async fn alone() {}

    #[task(every = "1m", unique(debounce = "5s"))]
    async fn debounced() {}
}

mod bad_duration {
    use aioq::task;

    #[task(timeout = "30", ttl = 3600)]
    async fn bare() {}

    #[task(timeout = "30 parsecs", ttl = "0s")]
    async fn wrong() {}
}

mod bad_every {
    use aioq::task;

    #[task(every = "500ms")]
    async fn tight() {}

    #[task(cron = "0 3 * * *", every = "1h")]
    async fn both() {}
}

mod bad_label {
    use aioq::task;

    #[task(labels(priority = 3, team = "a", team = "b"))]
    async fn send() {}

    #[task(labels(team = first))]
    async fn send_too() {}

    #[task(labels(team = [1]))]
    async fn send_three() {}
}

mod bad_name {
    use aioq::task;

    #[task(name = "", queue = "", alias("send", ""))]
    async fn empty() {}

    #[task(alias("send"))]
    async fn send() {}

    #[task(name = 5)]
    async fn number() {}
}

mod bad_priority {
    use aioq::task;

    #[task(priority = 10)]
    async fn high() {}

    #[task(priority = -1)]
    async fn low() {}

    #[task(priority = "3")]
    async fn text() {}
}

mod bad_rate {
    use aioq::task;

    #[task(rate = "100/week")]
    async fn send() {}
}

mod bad_retry {
    use aioq::task;

    #[task(retry(jitter))]
    async fn endless() {}

    #[task(retry(max = 5, backoff = "5m..1s"))]
    async fn falling() {}

    #[task(retry(max = 5, backoff = "linaer 1s..5m", when = "is_transient"))]
    async fn misspelled() {}

    #[task(retry(max = 5, when = is_transient))]
    async fn infallible() {}

    #[task(retry(policy = later, backoff = "1s"))]
    async fn twice() {}
}

mod bad_time_zone {
    use aioq::task;

    #[task(cron = "0 3 * * *", tz = "Europe/Berln")]
    async fn misspelled() {}

    #[task(tz = "Europe/Berlin")]
    async fn alone() {}
}

mod bad_unique {
    use aioq::task;

    #[task(unique(by = nope, within = "10m"))]
    async fn unknown(to: &str) {}

    #[task(unique(by = (to, mailer), within = "10m"))]
    async fn injected(to: &str, #[inject] mailer: &u8) {}

    #[task(unique(by = to, until = "now"))]
    async fn until_when(to: &str) {}

    #[task(unique())]
    async fn empty(to: &str) {}

    #[task(unique(until = "start", within = "10m"))]
    async fn before_and_after(to: &str) {}

    #[task(unique(max = "1m"))]
    async fn without_debounce(to: &str) {}

    #[task(unique(debounce = "1m", max = "5s"))]
    async fn shorter(to: &str) {}

    #[task(unique(debounce = "1m", within = "5m"))]
    async fn debounced_window(to: &str) {}

    #[task(unique(by = to), ack = "on_receive")]
    async fn acked_early(to: &str) {}
}

mod cron_with_required_arguments {
    use aioq::task;

    #[task(cron = "0 3 * * *")]
    async fn report(to: &str, #[default] cc: String, days: u8, #[inject] state: &u8) {}
}

mod duplicate_option {
    use aioq::task;

    #[task(queue = "email", queue = "mail")]
    async fn send() {}
}

mod foreign_option {
    use aioq::task;

    #[task(max_retries = 3)]
    async fn flaky() {}

    #[task(retries = 3)]
    async fn flakier() {}

    #[task(delay = "5m")]
    async fn late() {}
}

mod misshapen_option {
    use aioq::task;

    #[task("email")]
    async fn bare() {}

    #[task(queue("email"), retry = 5, fallible = true, alias = "old", labels)]
    async fn forms() -> Result<(), String> {
        Ok(())
    }

    #[task(queue = "email" priority = 3)]
    async fn comma() {}
}

mod not_yet_supported {
    use aioq::task;

    #[task(rate = "5 per 10m")]
    async fn send(to: &str, cc: &str) {}
}

mod unknown_option {
    use aioq::task;

    #[task(timout = "30s")]
    async fn near() {}

    #[task(zzz)]
    async fn far() {}

    #[task(retry(maximum = 5))]
    async fn inside() {}
}

fn main() {}
