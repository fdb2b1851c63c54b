//! Who gets how much: how many messages to ask each lane for, and which to hand out next.

use aioq::broker::Demand;

use crate::subject::Lane;

/// One in so many goes to the lanes behind, so that a lane in front that never runs dry does not starve them.
const SHARE_BEHIND: usize = 16;

/// What a lane has and could have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) class: Lane,
    /// Messages that have come and wait to be handed out.
    pub(super) held: usize,
    /// Messages asked for that have not come.
    pub(super) asked: usize,
    /// Messages that the consumer had left when the last one came.
    pub(super) pending: usize,
}

/// How many messages to ask each lane for. The demand is what the worker wants in all, those held and those asked
/// for included.
///
/// A lane that nothing was asked of is asked for a little, over the demand if need be: whichever lane gets a
/// message first must be able to deliver it at once. The rest goes to lanes known to have more, in their
/// order. Lanes behind others that have something get no more than their share, or they would fill the room.
pub(super) fn requests(lanes: &[Stand], demand: Demand) -> Vec<usize> {
    let wanted = demand.now.max(1) + demand.prefetch;
    let mut batches = vec![0; lanes.len()];
    let held: usize = lanes.iter().map(|lane| lane.held).sum();
    let open = wanted.saturating_sub(held);
    if open == 0 {
        return batches;
    }
    let share = (wanted / SHARE_BEHIND).max(1);
    let room = |lane: &Stand| match is_behind(lanes, lane.class) {
        true => share.saturating_sub(lane.held + lane.asked),
        false => usize::MAX,
    };
    // What comes to a full worker that does not prefetch has to be given back, so there it is one.
    let little = (demand.prefetch.min(open) / (4 * lanes.len().max(1))).max(1);
    for (batch, lane) in batches.iter_mut().zip(lanes) {
        if lane.asked == 0 {
            *batch = little.min(room(lane));
        }
    }
    let asked: usize = lanes.iter().map(|lane| lane.asked).sum::<usize>() + batches.iter().sum::<usize>();
    let spare = open.saturating_sub(asked);
    // Many small requests cost more than a few large ones.
    if spare * 4 >= open {
        distribute(lanes, spare, share, &mut batches);
    }
    batches
}

/// Whether a lane in front of that class has something.
fn is_behind(lanes: &[Stand], class: Lane) -> bool {
    lanes.iter().any(|lane| lane.class < class && lane.held + lane.pending > 0)
}

fn distribute(lanes: &[Stand], spare: usize, share: usize, batches: &mut [usize]) {
    let more = |index: usize, batches: &[usize]| {
        lanes[index].pending.saturating_sub(lanes[index].asked + batches[index])
    };
    let left_of_share = |index: usize, batches: &[usize]| {
        let lane = &lanes[index];
        more(index, batches).min(share.saturating_sub(lane.held + lane.asked + batches[index]))
    };
    let mut left = spare;
    // First the share of those behind, then the rest in order.
    for class in [Lane::Low, Lane::Normal] {
        left -= spread(lanes, class, share.min(left), batches, left_of_share);
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
pub(super) fn order(picks: usize) -> [Lane; 3] {
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
        Stand { class, held: 0, asked, pending }
    }

    /// Asks for `wanted` in all, one of them now.
    fn ask(lanes: &[Stand], wanted: usize) -> Vec<usize> {
        requests(lanes, Demand { now: 1, prefetch: wanted - 1 })
    }

    #[test]
    fn an_idle_lane_is_always_asked_for_a_little() {
        let idle = Lane::ALL.map(|class| lane(class, 0, 0));
        assert_eq!(ask(&idle, 1), [1, 1, 1]);
        assert_eq!(ask(&idle, 120), [9, 9, 9]);
        assert_eq!(requests(&idle, Demand { now: 120, prefetch: 0 }), [1, 1, 1]);
        assert_eq!(ask(&[Stand { held: 9, ..idle[0] }], 9), [0]);
        let waiting = Lane::ALL.map(|class| lane(class, 1, 0));
        assert_eq!(ask(&waiting, 120), [0, 0, 0]);
    }

    #[test]
    fn lanes_with_work_share_the_rest_in_their_order() {
        let one_busy = [lane(Lane::High, 1, 0), lane(Lane::Normal, 0, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(ask(&one_busy, 100), [0, 98, 0]);
        let all_busy = Lane::ALL.map(|class| lane(class, 1, 5000));
        assert_eq!(ask(&all_busy, 163), [142, 9, 9]);
        let few = [lane(Lane::High, 1, 11), lane(Lane::Normal, 1, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(ask(&few, 103), [10, 90, 0]);
    }

    #[test]
    fn queues_of_one_class_share_evenly() {
        let lanes = [lane(Lane::Normal, 1, 5000), lane(Lane::Normal, 1, 8), lane(Lane::Normal, 1, 5000)];
        assert_eq!(ask(&lanes, 103), [47, 7, 46]);
    }

    #[test]
    fn lanes_behind_do_not_fill_the_room() {
        let held = |class, held| Stand { class, held, asked: 0, pending: 5000 };
        let lanes = [held(Lane::High, 5), held(Lane::Normal, 2), held(Lane::Low, 1)];
        assert_eq!(ask(&lanes, 32), [23, 0, 1]);
        assert_eq!(ask(&lanes[1..], 32), [28, 1]);
    }

    #[test]
    fn a_small_gap_is_not_worth_a_request() {
        assert_eq!(ask(&[lane(Lane::Normal, 90, 5000)], 100), [0]);
        assert_eq!(ask(&[lane(Lane::Normal, 70, 5000)], 100), [30]);
    }

    #[test]
    fn lanes_behind_get_one_in_sixteen() {
        let first: Vec<Lane> = (0..32).map(|picks| order(picks)[0]).collect();
        let count = |class| first.iter().filter(|first| **first == class).count();
        assert_eq!((count(Lane::High), count(Lane::Normal), count(Lane::Low)), (30, 1, 1));
    }
}
