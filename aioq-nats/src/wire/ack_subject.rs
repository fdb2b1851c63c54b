//! What the reply subject of a delivery tells.

use aioq::Timestamp;

/// Read from `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<..>.<time>.<pending>`, or the same with a
/// domain and an account behind `$JS.ACK`, and perhaps more at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// How often the message has been delivered, this time included.
    pub(crate) deliveries: u32,
    /// Its sequence in the stream.
    pub(crate) sequence: u64,
    /// How many deliveries the consumer had made, this one included.
    pub(crate) count: u64,
    /// How many more the consumer has to deliver.
    pub(crate) pending: u64,
}

impl Delivered {
    pub(crate) fn read(reply: &str) -> Option<Self> {
        let mut tokens = tokens(reply)?;
        let deliveries = tokens.next()?.parse().ok()?;
        let sequence = tokens.next()?.parse().ok()?;
        let count = tokens.next()?.parse().ok()?;
        let pending = tokens.nth(1)?.parse().ok()?;
        Some(Self { deliveries, sequence, count, pending })
    }
}

/// When the message was stored where it is, by the clock of the server.
pub(crate) fn stored_at(reply: &str) -> Option<Timestamp> {
    let nanos: i64 = tokens(reply)?.nth(3)?.parse().ok()?;
    Some(Timestamp::from_micros(nanos / 1_000))
}

/// What comes behind the name of the consumer.
fn tokens(reply: &str) -> Option<impl Iterator<Item = &str>> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let skipped = match rest.split('.').count() {
        7 => 2,
        9.. => 4,
        _ => return None,
    };
    Some(rest.split('.').skip(skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = Some(Delivered { deliveries: 2, sequence: 71, count: 30, pending: 9 });
        assert_eq!(Delivered::read("$JS.ACK.AIOQ_JOBS.mail-high.2.71.30.1700000000000000000.9"), expected);
        assert_eq!(
            Delivered::read("$JS.ACK.hub.ACC.AIOQ_JOBS.mail-high.2.71.30.1700000000000000000.9"),
            expected
        );
        assert_eq!(Delivered::read("$JS.ACK._.ACC.AIOQ_JOBS.mail-high.2.71.30.17.9.x1Y"), expected);
    }

    #[test]
    fn the_time_of_the_message_is_read() {
        let time = Some(Timestamp::from_micros(1_700_000_000_000_000));
        assert_eq!(stored_at("$JS.ACK.AIOQ_JOBS.mail-high.2.71.30.1700000000000000000.9"), time);
        assert_eq!(stored_at("$JS.ACK.hub.ACC.AIOQ_JOBS.mail-high.2.71.30.1700000000000000999.9.x"), time);
        assert_eq!(stored_at("$JS.ACK.s.c.1.2.3.x.5"), None);
    }

    #[test]
    fn anything_else_is_no_delivery() {
        for reply in [
            "",
            "$JS.ACK",
            "$JS.ACK.s.c.1.2.3.4",
            "$JS.ACK.s.c.x.2.3.4.5",
            "_INBOX.a.b",
            "$JS.ACK.s.c.1.2.3.4.5.6",
        ] {
            assert_eq!(Delivered::read(reply), None, "{reply}");
        }
    }
}
