//! Lanes: priority classes within a queue, each with a consumer of its own.

use aioq::message::Priority;

use super::token::escape;

/// Priority class. A lower one is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    High,
    Normal,
    Low,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    pub(crate) const fn of(priority: Priority) -> Self {
        match priority.value() {
            0..=3 => Self::High,
            4..=6 => Self::Normal,
            _ => Self::Low,
        }
    }

    /// Token in subjects and consumer names.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// Length in bytes from which a queue's token is shortened in consumer names. The server allows
/// names of 255 bytes.
const MAX_QUEUE_IN_NAME: usize = 200;

/// Name of a lane's consumer.
///
/// A long queue token is cut and followed by `==` and its hash. No token contains `==`, so names
/// stay unique.
pub(crate) fn consumer_name(queue: &str, lane: Lane) -> String {
    let token = escape(queue);
    match token.get(..MAX_QUEUE_IN_NAME) {
        Some(start) if token.len() > MAX_QUEUE_IN_NAME => {
            format!("{start}=={:016x}-{}", fnv1a(token.as_bytes()), lane.token())
        }
        _ => format!("{token}-{}", lane.token()),
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_fall_into_three_lanes() {
        let lane = |value| Lane::of(Priority::new(value).unwrap()).token();
        let lanes: Vec<_> = (0..=9).map(lane).collect();
        assert_eq!(lanes[..4], ["high"; 4]);
        assert_eq!(lanes[4..7], ["normal"; 3]);
        assert_eq!(lanes[7..], ["low"; 3]);
    }

    #[test]
    fn consumer_names_differ_and_fit() {
        let long = |last: char| format!("{}{last}", "\u{e9}".repeat(63));
        let names: Vec<_> = [long('a'), long('b'), "a".to_owned(), "a-high".to_owned()]
            .iter()
            .flat_map(|queue| Lane::ALL.map(|lane| consumer_name(queue, lane)))
            .collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| name.len() <= 255));
    }
}
