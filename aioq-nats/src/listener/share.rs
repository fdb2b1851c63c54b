//! Who gets how much: how many messages to ask each lane for, and which to hand out next.

use crate::subject::Lane;

/// One in so many goes to the lanes behind, so that a lane in front that never runs dry does not starve them.
const SHARE_BEHIND: usize = 16;

/// What a lane has and could have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stand {
    pub(crate) class: Lane,
    /// Messages asked for that have not come.
    pub(crate) asked: usize,
    /// Messages that the consumer had left when the last one came.
    pub(crate) pending: usize,
}

/// How many messages to ask each lane for.
///
/// `wanted` is how many the worker wants in all beyond what is at hand, asked ones included. A lane that
/// nothing was asked of is always asked for a little, over `wanted` if need be: whichever lane gets a message
/// first must be able to deliver it at once. The rest goes to lanes known to have more, in their order.
pub(crate) fn requests(lanes: &[Stand], wanted: usize) -> Vec<usize> {
    let mut batches = vec![0; lanes.len()];
    if wanted == 0 {
        return batches;
    }
    let little = (wanted / (4 * lanes.len().max(1))).max(1);
    for (batch, lane) in batches.iter_mut().zip(lanes) {
        if lane.asked == 0 {
            *batch = little;
        }
    }
    let asked: usize = lanes.iter().map(|lane| lane.asked).sum::<usize>() + batches.iter().sum::<usize>();
    let spare = wanted.saturating_sub(asked);
    // Many small requests cost more than a few large ones.
    if spare * 4 < wanted {
        return batches;
    }
    distribute(lanes, spare, &mut batches);
    batches
}

fn distribute(lanes: &[Stand], spare: usize, batches: &mut [usize]) {
    let more = |index: usize, batches: &[usize]| {
        lanes[index].pending.saturating_sub(lanes[index].asked + batches[index])
    };
    let mut left = spare;
    // First the guaranteed share of those behind, then the rest in order.
    let guaranteed = (spare / SHARE_BEHIND).max(1);
    for class in [Lane::Low, Lane::Normal] {
        left -= spread(lanes, class, guaranteed.min(left), batches, more);
    }
    for class in Lane::ALL {
        left -= spread(lanes, class, left, batches, more);
    }
}

/// Spreads up to `amount` over the lanes of a class, evenly over the queues that have enough; how much it was.
fn spread(
    lanes: &[Stand],
    class: Lane,
    amount: usize,
    batches: &mut [usize],
    more: impl Fn(usize, &[usize]) -> usize,
) -> usize {
    let mut left = amount;
    loop {
        let hungry: Vec<usize> = (0..lanes.len())
            .filter(|index| lanes[*index].class == class && more(*index, batches) > 0)
            .collect();
        if left == 0 || hungry.is_empty() {
            return amount - left;
        }
        let each = (left / hungry.len()).max(1);
        for index in hungry {
            let given = each.min(left).min(more(index, batches));
            batches[index] += given;
            left -= given;
        }
    }
}

/// The order of the classes for the next message to hand out; `picks` counts what was handed out before.
pub(crate) fn order(picks: usize) -> [Lane; 3] {
    match (picks % SHARE_BEHIND, picks / SHARE_BEHIND % 2) {
        (15, 0) => [Lane::Normal, Lane::Low, Lane::High],
        (15, _) => [Lane::Low, Lane::Normal, Lane::High],
        _ => Lane::ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(class: Lane, asked: usize, pending: usize) -> Stand {
        Stand { class, asked, pending }
    }

    #[test]
    fn an_idle_lane_is_always_asked_for_a_little() {
        let idle = Lane::ALL.map(|class| lane(class, 0, 0));
        assert_eq!(requests(&idle, 1), [1, 1, 1]);
        assert_eq!(requests(&idle, 120), [10, 10, 10]);
        assert_eq!(requests(&idle, 0), [0, 0, 0]);
        let waiting = Lane::ALL.map(|class| lane(class, 1, 0));
        assert_eq!(requests(&waiting, 120), [0, 0, 0]);
    }

    #[test]
    fn lanes_with_work_share_the_rest_in_their_order() {
        let one_busy = [lane(Lane::High, 1, 0), lane(Lane::Normal, 0, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(requests(&one_busy, 100), [0, 98, 0]);
        let all_busy = Lane::ALL.map(|class| lane(class, 1, 5000));
        assert_eq!(requests(&all_busy, 163), [140, 10, 10]);
        let few = [lane(Lane::High, 1, 11), lane(Lane::Normal, 1, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(requests(&few, 103), [10, 90, 0]);
    }

    #[test]
    fn queues_of_one_class_share_evenly() {
        let lanes = [lane(Lane::Normal, 1, 5000), lane(Lane::Normal, 1, 8), lane(Lane::Normal, 1, 5000)];
        assert_eq!(requests(&lanes, 103), [47, 7, 46]);
    }

    #[test]
    fn a_small_gap_is_not_worth_a_request() {
        assert_eq!(requests(&[lane(Lane::Normal, 90, 5000)], 100), [0]);
        assert_eq!(requests(&[lane(Lane::Normal, 70, 5000)], 100), [30]);
    }

    #[test]
    fn lanes_behind_get_one_in_sixteen() {
        let first: Vec<Lane> = (0..32).map(|picks| order(picks)[0]).collect();
        let count = |class| first.iter().filter(|first| **first == class).count();
        assert_eq!((count(Lane::High), count(Lane::Normal), count(Lane::Low)), (30, 1, 1));
    }
}
