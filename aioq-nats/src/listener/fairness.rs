//! Fair sharing among lanes and queues: the number of messages to request from each lane
//! ([`requests`]), and the order in which lanes hand messages out ([`order`]).
//!
//! A *lane* here is one priority class of one queue. The rules, for a demand of 160 messages in
//! all:
//! - An idle lane (nothing pending, nothing outstanding) is asked for a little, at least 1, so that
//!   its first message comes at once.
//! - High, normal and low lanes with 5,000 pending messages each are asked for 159, 9 and 9: the
//!   higher lanes first, but the lower ones never for less than one in [`LOWER_SHARE`].
//! - If the high lane has only 11 pending, the normal lane is asked for the rest.
//! - Queues in the same lane share evenly. Of 100 busy queues, [`MAX_QUEUES`] are asked for 16 each
//!   instead of all for 1.
//! - A gap below a quarter of the demand is not worth a request.

use aioq::broker::Demand;

use crate::wire::lane::Lane;

/// One in this number of messages goes to lower lanes, so that a higher lane that never runs dry
/// cannot starve them.
const LOWER_SHARE: usize = 16;

/// Number of queues that an amount is spread over. A few large requests cost less than many small
/// ones. The other queues have their turn later.
const MAX_QUEUES: usize = 8;

/// Number of messages that always justifies a request of its own.
const FULL_REQUEST: usize = 64;

/// Numbers of one lane of one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneStats {
    pub(super) lane: Lane,
    /// Messages received and not yet handed out.
    pub(super) buffered: usize,
    /// Messages requested and not yet received.
    pub(super) outstanding: usize,
    /// Messages left at the consumer when the last one came.
    pub(super) pending: usize,
}

/// Number of messages to request from each lane.
///
/// `demand` is the total that the worker wants, including buffered and outstanding messages.
/// `picks` is the number of messages handed out so far.
pub(super) fn requests(stats: &[LaneStats], demand: Demand, picks: usize) -> Vec<usize> {
    let wanted = demand.now.max(1) + demand.prefetch;
    let share = lower_share(demand, wanted, picks);
    let mut batches = vec![0; stats.len()];
    for lane in Lane::ALL {
        let buffered: usize = up_to(stats, lane).map(|stats| stats.buffered).sum();
        let open = wanted.saturating_sub(buffered);
        if open == 0 {
            break;
        }
        // Higher lanes could take all that they have. The rest, or the share, is for this lane.
        let higher: usize = above(stats, lane).map(|stats| stats.buffered + stats.pending).sum();
        let most = open.min(wanted.saturating_sub(higher)).max(share.min(open));
        request_idle(stats, lane, most, idle_request(stats, demand, open), &mut batches);
        let spare = open.saturating_sub(outstanding(stats, &batches, open, |other| other <= lane));
        let own = outstanding(stats, &batches, open, |other| other == lane);
        let amount = spare.max(share.saturating_sub(own));
        // Many small requests cost more than a few large ones.
        if amount * 4 >= most {
            spread(stats, lane, amount, most, picks, &mut batches);
        }
    }
    batches
}

fn above(stats: &[LaneStats], lane: Lane) -> impl Iterator<Item = &LaneStats> {
    stats.iter().filter(move |stats| stats.lane < lane)
}

fn up_to(stats: &[LaneStats], lane: Lane) -> impl Iterator<Item = &LaneStats> {
    stats.iter().filter(move |stats| stats.lane <= lane)
}

/// Messages outstanding or about to be requested. Requests to idle lanes rarely bring a message, so
/// together they count for a quarter of `open` at most.
fn outstanding(
    stats: &[LaneStats],
    batches: &[usize],
    open: usize,
    includes: impl Fn(Lane) -> bool,
) -> usize {
    let (mut busy, mut idle) = (0, 0);
    for (stats, batch) in stats.iter().zip(batches).filter(|(stats, _)| includes(stats.lane)) {
        let sum = if stats.pending > 0 { &mut busy } else { &mut idle };
        *sum += stats.outstanding + batch;
    }
    busy + idle.min(open / 4)
}

/// Number of messages that a lower lane may always have buffered or outstanding. A worker without
/// prefetch would have to give them back most of the time, so there the lane is asked only when its
/// turn is near.
fn lower_share(demand: Demand, wanted: usize, picks: usize) -> usize {
    let turn_is_near = picks % LOWER_SHARE + demand.now.max(1) >= LOWER_SHARE;
    if demand.prefetch > 0 || turn_is_near { (wanted / LOWER_SHARE).max(1) } else { 0 }
}

/// Number of messages to request from an idle lane: one without prefetch, because a full worker
/// would have to give more back.
fn idle_request(stats: &[LaneStats], demand: Demand, open: usize) -> usize {
    (demand.prefetch.min(open) / (4 * stats.len().max(1))).max(1)
}

fn request_idle(stats: &[LaneStats], lane: Lane, most: usize, amount: usize, batches: &mut [usize]) {
    for (batch, stats) in batches.iter_mut().zip(stats) {
        if stats.lane == lane && stats.outstanding == 0 && stats.pending == 0 {
            *batch = amount.min(most.saturating_sub(stats.buffered));
        }
    }
}

/// Spreads up to `amount` over the queues with pending messages in a lane, those with the fewest
/// messages here first. Each queue may have `most` buffered and outstanding.
fn spread(stats: &[LaneStats], lane: Lane, amount: usize, most: usize, picks: usize, batches: &mut [usize]) {
    let space = |index: usize, batches: &[usize]| {
        let (stats, batch) = (&stats[index], batches[index]);
        let pending = stats.pending.saturating_sub(stats.outstanding + batch);
        pending.min(most.saturating_sub(stats.buffered + stats.outstanding + batch))
    };
    // Starts at another index each time, so that equal queues take turns.
    let rotated = (picks..picks + stats.len()).map(|index| index % stats.len());
    let mut hungry: Vec<usize> = rotated.filter(|index| stats[*index].lane == lane).collect();
    hungry.sort_by_key(|index| stats[*index].buffered + stats[*index].outstanding);
    let (mut left, mut least) = (amount, FULL_REQUEST.min(amount / MAX_QUEUES));
    loop {
        hungry.retain(|index| space(*index, batches) > 0);
        if left == 0 || hungry.is_empty() {
            return;
        }
        let each = (left / hungry.len()).max(least).max(1);
        // From the second round on, the queues with space left share the rest.
        least = 1;
        for index in &hungry {
            let given = each.min(left).min(space(*index, batches));
            batches[*index] += given;
            left -= given;
        }
    }
}

/// Order of the lanes for the next message to hand out. `picks` is the number of messages handed
/// out so far.
pub(super) fn order(picks: usize) -> [Lane; 3] {
    match (picks % LOWER_SHARE, picks / LOWER_SHARE % 2) {
        (15, 0) => [Lane::Normal, Lane::Low, Lane::High],
        (15, _) => [Lane::Low, Lane::Normal, Lane::High],
        _ => Lane::ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(lane: Lane, outstanding: usize, pending: usize) -> LaneStats {
        LaneStats { lane, buffered: 0, outstanding, pending }
    }

    /// Requests for a demand of `wanted` messages, one of them now.
    fn ask(lanes: &[LaneStats], wanted: usize) -> Vec<usize> {
        requests(lanes, Demand { now: 1, prefetch: wanted - 1 }, 0)
    }

    fn buffering(lane: Lane, buffered: usize, pending: usize) -> LaneStats {
        LaneStats { lane, buffered, outstanding: 0, pending }
    }

    #[test]
    fn an_idle_lane_is_always_asked_for_a_little() {
        let idle = Lane::ALL.map(|priority| lane(priority, 0, 0));
        assert_eq!(ask(&idle, 1), [1, 1, 1]);
        assert_eq!(ask(&idle, 120), [9, 9, 9]);
        assert_eq!(requests(&idle, Demand { now: 120, prefetch: 0 }, 0), [1, 1, 1]);
        let waiting = Lane::ALL.map(|priority| lane(priority, 1, 0));
        assert_eq!(ask(&waiting, 120), [0, 0, 0]);
    }

    #[test]
    fn lanes_with_work_share_the_rest_in_their_order() {
        let one_busy = [lane(Lane::High, 1, 0), lane(Lane::Normal, 0, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(ask(&one_busy, 100), [0, 99, 0]);
        let all_busy = Lane::ALL.map(|priority| lane(priority, 1, 5000));
        assert_eq!(ask(&all_busy, 160), [159, 9, 9]);
        let few = [lane(Lane::High, 1, 11), lane(Lane::Normal, 1, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(ask(&few, 103), [10, 91, 0]);
    }

    #[test]
    fn queues_share_a_lane_evenly() {
        let lanes = [lane(Lane::Normal, 1, 5000), lane(Lane::Normal, 1, 8), lane(Lane::Normal, 1, 5000)];
        assert_eq!(ask(&lanes, 103), [47, 7, 46]);
    }

    #[test]
    fn of_many_queues_a_few_are_asked_for_much_those_that_had_the_least() {
        let mut lanes = vec![lane(Lane::Normal, 0, 5000); 100];
        let batches = ask(&lanes, 128);
        let asked: Vec<usize> = (0..100).filter(|index| batches[*index] > 0).collect();
        assert_eq!((asked.len(), batches.iter().sum::<usize>()), (8, 128));
        asked.iter().for_each(|index| lanes[*index].buffered = batches[*index]);
        let next = requests(&lanes, Demand { now: 128, prefetch: 128 }, 0);
        assert!(asked.iter().all(|index| next[*index] == 0), "others have their turn");
        assert_eq!(next.iter().sum::<usize>(), 128);
    }

    #[test]
    fn many_idle_queues_keep_none_from_being_asked() {
        let mut lanes = vec![lane(Lane::Normal, 1, 0); 100];
        lanes.push(lane(Lane::Normal, 0, 20));
        let batches = requests(&lanes, Demand { now: 40, prefetch: 0 }, 0);
        assert_eq!((batches.iter().sum::<usize>(), batches[100]), (20, 20));
    }

    #[test]
    fn lower_lanes_take_no_space_from_higher_ones() {
        let busy = [buffering(Lane::High, 0, 9), buffering(Lane::Normal, 30, 9), buffering(Lane::Low, 2, 9)];
        assert_eq!(ask(&busy, 32), [9, 0, 0]);
        let one_at_a_time = |picks| requests(&busy[..], Demand { now: 1, prefetch: 0 }, picks);
        assert_eq!(one_at_a_time(0), [1, 0, 0]);
        let fresh = [buffering(Lane::High, 0, 9), buffering(Lane::Low, 0, 9)];
        let fresh = |picks| requests(&fresh, Demand { now: 1, prefetch: 0 }, picks);
        assert_eq!((fresh(3), fresh(15)), (vec![1, 0], vec![1, 1]));
    }

    #[test]
    fn a_full_listener_asks_for_nothing() {
        assert_eq!(ask(&[buffering(Lane::High, 9, 5000)], 9), [0]);
        assert_eq!(ask(&[buffering(Lane::Normal, 9, 5000), buffering(Lane::Low, 0, 0)], 9), [0, 0]);
    }

    #[test]
    fn a_small_gap_is_not_worth_a_request() {
        assert_eq!(ask(&[lane(Lane::Normal, 90, 5000)], 100), [0]);
        assert_eq!(ask(&[lane(Lane::Normal, 70, 5000)], 100), [30]);
    }

    #[test]
    fn lower_lanes_get_one_in_sixteen() {
        let first: Vec<Lane> = (0..32).map(|picks| order(picks)[0]).collect();
        let count = |lane| first.iter().filter(|first| **first == lane).count();
        assert_eq!((count(Lane::High), count(Lane::Normal), count(Lane::Low)), (30, 1, 1));
    }
}
