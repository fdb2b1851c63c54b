//! Reply subject of a delivery, which carries the delivery's numbers.

use aioq::Timestamp;

/// Parsed from `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer
/// sequence>.<time>.<pending>`.
///
/// A domain and an account may follow `$JS.ACK`; then more tokens may follow at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AckSubject {
    /// Deliveries of the message so far, this one included.
    pub(crate) deliveries: u32,
    /// Sequence of the message in the stream.
    pub(crate) sequence: u64,
    /// Deliveries that the consumer has made so far, this one included.
    pub(crate) consumer_sequence: u64,
    /// Messages that the consumer has still to deliver.
    pub(crate) pending: u64,
}

impl AckSubject {
    pub(crate) fn parse(reply: &str) -> Option<Self> {
        let mut tokens = tokens(reply)?;
        let deliveries = tokens.next()?.parse().ok()?;
        let sequence = tokens.next()?.parse().ok()?;
        let consumer_sequence = tokens.next()?.parse().ok()?;
        let pending = tokens.nth(1)?.parse().ok()?;
        Some(Self { deliveries, sequence, consumer_sequence, pending })
    }
}

/// Time at which the message was stored under its subject, by the server's clock.
pub(crate) fn stored_at(reply: &str) -> Option<Timestamp> {
    let nanos: i64 = tokens(reply)?.nth(3)?.parse().ok()?;
    Some(Timestamp::from_micros(nanos / 1_000))
}

/// Tokens behind the name of the consumer.
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
        let expected = Some(AckSubject { deliveries: 2, sequence: 71, consumer_sequence: 30, pending: 9 });
        assert_eq!(AckSubject::parse("$JS.ACK.AIOQ_JOBS.mail-high.2.71.30.1700000000000000000.9"), expected);
        assert_eq!(
            AckSubject::parse("$JS.ACK.hub.ACC.AIOQ_JOBS.mail-high.2.71.30.1700000000000000000.9"),
            expected
        );
        assert_eq!(AckSubject::parse("$JS.ACK._.ACC.AIOQ_JOBS.mail-high.2.71.30.17.9.x1Y"), expected);
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
            assert_eq!(AckSubject::parse(reply), None, "{reply}");
        }
    }
}
