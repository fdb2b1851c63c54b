//! What the account may use, and how much of it is used.

use std::time::Duration;

use aioq::broker::{Expect, Finding};
use aioq::{ErrorKind, Result};
use bytes::Bytes;
use serde_json::Value;

use super::bytes;
use crate::api::call;
use crate::connection::Session;
use crate::kv;

/// A limit of an account: what it bounds, the field of its use, that of what is set aside, that of the limit.
const LIMITS: [(&str, &str, &str, &str); 4] = [
    ("file storage", "storage", "reserved_storage", "max_storage"),
    ("memory storage", "memory", "reserved_memory", "max_memory"),
    ("consumers", "consumers", "", "max_consumers"),
    ("streams", "streams", "", "max_streams"),
];

pub(super) async fn examine(session: &Session) -> Result<Vec<Finding>> {
    let mut found = judge(&call(&session.link, session.deadline(), "INFO", None).await??);
    found.extend(probe(session).await);
    Ok(found)
}

/// Whether anything can be stored. The limit of the server's storage cannot be read over this connection, so a key is
/// written that lasts for a second.
async fn probe(session: &Session) -> Option<Finding> {
    let written = kv::put(session, "doctor", Bytes::new(), Expect::Any, Some(Duration::from_secs(1))).await;
    let full = written.err().filter(|error| error.kind() == ErrorKind::StorageFull)?;
    let text = format!(
        "Nothing can be stored: {full}. Kicks are refused, and what jobs came to waits in the workers."
    );
    Some(
        Finding::warning("storage", text)
            .advice("Make room: remove results or other streams, or raise the limit."),
    )
}

fn judge(account: &Value) -> Vec<Finding> {
    // Accounts with tiers have limits for each number of copies instead of one for all.
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
    let uses = LIMITS.iter().filter_map(|(what, used, reserved, limit)| {
        let limit = usage["limits"][*limit].as_i64().and_then(|limit| u64::try_from(limit).ok());
        let used = [*used, *reserved].into_iter().filter_map(|field| usage[field].as_u64()).max()?;
        let (is_bytes, is_streams) = (what.ends_with("storage"), *what == "streams");
        // Zero is a limit for what is not allowed at all, such as storage in memory, and not used then.
        let limit = limit.filter(|limit| *limit > 0)?;
        Some(Use { what: format!("{what}{tier}"), is_bytes, is_streams, used, limit })
    });
    uses.collect()
}

impl Use {
    fn percent(&self) -> u64 {
        self.used.saturating_mul(100) / self.limit
    }

    /// What is to be said if little is left.
    fn judge(&self) -> Option<Finding> {
        let Self { what, is_bytes, is_streams, used, limit } = self;
        let shown = |amount: u64| if *is_bytes { bytes(amount) } else { amount.to_string() };
        let used = format!("The account uses {} of {} {what}", shown(*used), shown(*limit));
        let advice = "Raise the account's limits, or keep fewer results: retention by age and number.";
        match self.percent() {
            ..80 => None,
            // The three that aioq needs are there.
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
    fn limits_are_told_from_four_fifths_on() {
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
    fn what_is_set_aside_counts_and_so_do_tiers() {
        let tier = json!({ "storage": 0, "reserved_storage": 900, "limits": { "max_storage": 1000 } });
        let found = judge(&json!({ "limits": {}, "tiers": { "R3": tier } }));
        assert!(found[0].level == Level::Warning && found[0].text.contains("the tier R3"), "{found:?}");
    }
}
