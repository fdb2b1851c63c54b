//! Limits of the account and their use.

use std::time::Duration;

use aioq::__private::bytes;
use aioq::broker::{Expect, Finding};
use aioq::{ErrorKind, Result};
use bytes::Bytes;
use serde_json::Value;

use crate::api::call;
use crate::keys;
use crate::session::Session;

/// Names of one limit in the server's account report.
struct Limit {
    label: &'static str,
    used_field: &'static str,
    /// Empty if the account reserves nothing of this kind.
    reserved_field: &'static str,
    max_field: &'static str,
}

const LIMITS: [Limit; 4] = [
    Limit {
        label: "file storage",
        used_field: "storage",
        reserved_field: "reserved_storage",
        max_field: "max_storage",
    },
    Limit {
        label: "memory storage",
        used_field: "memory",
        reserved_field: "reserved_memory",
        max_field: "max_memory",
    },
    Limit { label: "consumers", used_field: "consumers", reserved_field: "", max_field: "max_consumers" },
    Limit { label: "streams", used_field: "streams", reserved_field: "", max_field: "max_streams" },
];

pub(super) async fn examine(session: &Session) -> Result<Vec<Finding>> {
    let mut found = judge(&call(&session.link, session.deadline(), "INFO", None).await??);
    found.extend(probe(session).await);
    Ok(found)
}

/// Writes a key that lasts for a second. The limit of the server's storage cannot be read over this
/// connection.
async fn probe(session: &Session) -> Option<Finding> {
    let written = keys::put(session, "doctor", Bytes::new(), Expect::Any, Some(Duration::from_secs(1))).await;
    let full = written.err().filter(|error| error.kind() == ErrorKind::StorageFull)?;
    let text = format!("Nothing can be stored: {full}. Kicks are refused, and workers cannot save results.");
    Some(
        Finding::warning("storage", text)
            .advice("Make room: remove results or other streams, or raise the limit."),
    )
}

fn judge(account: &Value) -> Vec<Finding> {
    // An account with tiers has limits for each number of copies instead of one for all.
    let tiers = account["tiers"].as_object().into_iter().flatten();
    let tiers = tiers.map(|(name, tier)| (format!(" of the tier {name}"), tier));
    let all: Vec<(String, &Value)> = std::iter::once((String::new(), account)).chain(tiers).collect();
    let uses: Vec<Use> = all.iter().flat_map(|(tier, usage)| uses(tier, usage)).collect();
    let mut found: Vec<Finding> = uses.iter().filter_map(Use::judge).collect();
    if found.is_empty() {
        found.push(Finding::fine("account_limits", summary(&uses)));
    }
    found
}

fn summary(uses: &[Use]) -> String {
    match uses.iter().max_by_key(|usage| usage.percent()) {
        Some(fullest) => format!("Of what the account may use, at most {} % is used.", fullest.percent()),
        None => "The account has no limits of its own; those of the server's disk cannot be read from here."
            .to_owned(),
    }
}

/// One limit and its use.
struct Use {
    what: String,
    is_bytes: bool,
    is_streams: bool,
    used: u64,
    limit: u64,
}

fn uses(tier: &str, usage: &Value) -> Vec<Use> {
    LIMITS.iter().filter_map(|limit| use_of(limit, tier, usage)).collect()
}

fn use_of(limit: &Limit, tier: &str, usage: &Value) -> Option<Use> {
    let Limit { label, used_field, reserved_field, max_field } = limit;
    let used = [*used_field, *reserved_field].into_iter().filter_map(|field| usage[field].as_u64()).max()?;
    // A limit of zero forbids a kind, such as storage in memory, which aioq does not use.
    let max = usage["limits"][*max_field]
        .as_i64()
        .and_then(|max| u64::try_from(max).ok())
        .filter(|max| *max > 0)?;
    let (is_bytes, is_streams) = (label.ends_with("storage"), *label == "streams");
    Some(Use { what: format!("{label}{tier}"), is_bytes, is_streams, used, limit: max })
}

impl Use {
    fn percent(&self) -> u64 {
        self.used.saturating_mul(100) / self.limit
    }

    /// Finding if the use is near the limit.
    fn judge(&self) -> Option<Finding> {
        let Self { what, is_bytes, is_streams, used, limit } = self;
        let shown = |amount: u64| if *is_bytes { bytes(amount) } else { amount.to_string() };
        let used = format!("The account uses {} of {} {what}", shown(*used), shown(*limit));
        let advice = "Raise the account's limits, or keep fewer results: retention by age and number.";
        match self.percent() {
            ..80 => None,
            // The three streams of aioq exist already.
            _ if *is_streams => {
                Some(Finding::remark("account_limits", format!("{used}; aioq needs no more than it has.")))
            }
            _ => Some(
                Finding::warning(
                    "account_limits",
                    format!("{used}: when it is full, kicks are refused and results are not stored."),
                )
                .advice(advice),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aioq::broker::Level;
    use serde_json::json;

    fn levels(account: Value) -> Vec<Level> {
        judge(&account).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn limits_are_reported_from_four_fifths_on() {
        let with = |storage: u64, streams: u64| {
            json!({ "storage": storage, "memory": 0, "streams": streams, "consumers": 0,
                "limits": { "max_storage": 1000, "max_memory": -1, "max_streams": 10, "max_consumers": -1 } })
        };
        assert_eq!(levels(with(799, 3)), [Level::Fine]);
        assert_eq!(levels(with(800, 3)), [Level::Warning]);
        assert_eq!(levels(with(0, 10)), [Level::Remark]);
        let unlimited =
            json!({ "storage": 9, "streams": 3, "limits": { "max_storage": -1, "max_streams": -1 } });
        assert_eq!(levels(unlimited), [Level::Fine]);
    }

    #[test]
    fn reservations_count_and_so_do_tiers() {
        let tier = json!({ "storage": 0, "reserved_storage": 900, "limits": { "max_storage": 1000 } });
        let found = judge(&json!({ "limits": {}, "tiers": { "R3": tier } }));
        assert!(found[0].level == Level::Warning && found[0].text.contains("the tier R3"), "{found:?}");
    }
}
