//! Who gets how much: how many messages to ask each lane for, and which to hand out next.

use aioq::broker::Demand;

use crate::wire::subject::Lane;

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
/// for included; `picks` counts what was handed out before.
///
/// A lane that is not known to have more, and that nothing was asked of, is asked for a little, over the demand if
/// need be: whichever gets a message first must be able to deliver it at once. The rest goes to lanes known to have
/// more, in their order: what lanes behind hold takes no room from those in front, which leave them at least their
/// share.
pub(super) fn requests(lanes: &[Stand], demand: Demand, picks: usize) -> Vec<usize> {
    let wanted = demand.now.max(1) + demand.prefetch;
    let share = share_behind(demand, wanted, picks);
    let mut batches = vec![0; lanes.len()];
    for class in Lane::ALL {
        let held: usize = lanes.iter().filter(|lane| lane.class <= class).map(|lane| lane.held).sum();
        let open = wanted.saturating_sub(held);
        if open == 0 {
            break;
        }
        // Those in front could take all that they have; what is left, or the share, is for this class.
        let front: usize =
            lanes.iter().filter(|lane| lane.class < class).map(|lane| lane.held + lane.pending).sum();
        let most = open.min(wanted.saturating_sub(front)).max(share.min(open));
        ask_idle(lanes, class, most, little(lanes, demand, open), &mut batches);
        let asked = |class: &dyn Fn(Lane) -> bool, more: bool| -> usize {
            let those = (0..lanes.len()).filter(|index| class(lanes[*index].class));
            let those = those.filter(|index| (lanes[*index].pending > 0) == more);
            those.map(|index| lanes[index].asked + batches[index]).sum()
        };
        // What idle lanes were asked for comes seldom: many of them must not keep others from being asked.
        let asked = |class: &dyn Fn(Lane) -> bool| asked(class, true) + asked(class, false).min(open / 4);
        let spare = open.saturating_sub(asked(&|other| other <= class));
        let amount = spare.max(share.saturating_sub(asked(&|other| other == class)));
        // Many small requests cost more than a few large ones.
        if amount * 4 >= most {
            spread(lanes, class, amount, most, picks, &mut batches);
        }
    }
    batches
}

/// How much a lane behind may hold or have asked for. A worker that does not prefetch would have to give it back
/// most of the time, so there it is asked for only when its turn is near.
fn share_behind(demand: Demand, wanted: usize, picks: usize) -> usize {
    let turn_is_near = picks % SHARE_BEHIND + demand.now.max(1) >= SHARE_BEHIND;
    match demand.prefetch > 0 || turn_is_near {
        true => (wanted / SHARE_BEHIND).max(1),
        false => 0,
    }
}

/// How much an idle lane is asked for: what comes to a full worker that does not prefetch has to be given back,
/// so there it is one.
fn little(lanes: &[Stand], demand: Demand, open: usize) -> usize {
    (demand.prefetch.min(open) / (4 * lanes.len().max(1))).max(1)
}

fn ask_idle(lanes: &[Stand], class: Lane, most: usize, little: usize, batches: &mut [usize]) {
    for (batch, lane) in batches.iter_mut().zip(lanes) {
        if lane.class == class && lane.asked == 0 && lane.pending == 0 {
            *batch = little.min(most.saturating_sub(lane.held));
        }
    }
}

/// Of many queues a few are asked for much, those that have had the least, rather than all for a little: requests
/// cost more than messages. The others have their turn later.
const ASKED_AT_ONCE: usize = 8;

/// More than that is enough for a request of its own.
const ENOUGH: usize = 64;

/// Spreads up to `amount` over the lanes of a class that have more, evenly over the queues that have enough;
/// each may have `most` held and asked for.
fn spread(lanes: &[Stand], class: Lane, amount: usize, most: usize, picks: usize, batches: &mut [usize]) {
    let room = |index: usize, batches: &[usize]| {
        let (lane, batch) = (&lanes[index], batches[index]);
        let more = lane.pending.saturating_sub(lane.asked + batch);
        more.min(most.saturating_sub(lane.held + lane.asked + batch))
    };
    // From another one each time, so that equals take turns.
    let turned = (picks..picks + lanes.len()).map(|index| index % lanes.len());
    let mut hungry: Vec<usize> = turned.filter(|index| lanes[*index].class == class).collect();
    hungry.sort_by_key(|index| lanes[*index].held + lanes[*index].asked);
    let (mut left, mut least) = (amount, ENOUGH.min(amount / ASKED_AT_ONCE));
    loop {
        hungry.retain(|index| room(*index, batches) > 0);
        if left == 0 || hungry.is_empty() {
            return;
        }
        let each = (left / hungry.len()).max(least).max(1);
        // Whatever they could not take is for those that can.
        least = 1;
        for index in &hungry {
            let given = each.min(left).min(room(*index, batches));
            batches[*index] += given;
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
        requests(lanes, Demand { now: 1, prefetch: wanted - 1 }, 0)
    }

    fn holding(class: Lane, held: usize, pending: usize) -> Stand {
        Stand { class, held, asked: 0, pending }
    }

    #[test]
    fn an_idle_lane_is_always_asked_for_a_little() {
        let idle = Lane::ALL.map(|class| lane(class, 0, 0));
        assert_eq!(ask(&idle, 1), [1, 1, 1]);
        assert_eq!(ask(&idle, 120), [9, 9, 9]);
        assert_eq!(requests(&idle, Demand { now: 120, prefetch: 0 }, 0), [1, 1, 1]);
        let waiting = Lane::ALL.map(|class| lane(class, 1, 0));
        assert_eq!(ask(&waiting, 120), [0, 0, 0]);
    }

    #[test]
    fn lanes_with_work_share_the_rest_in_their_order() {
        let one_busy = [lane(Lane::High, 1, 0), lane(Lane::Normal, 0, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(ask(&one_busy, 100), [0, 99, 0]);
        let all_busy = Lane::ALL.map(|class| lane(class, 1, 5000));
        assert_eq!(ask(&all_busy, 160), [159, 9, 9]);
        let few = [lane(Lane::High, 1, 11), lane(Lane::Normal, 1, 5000), lane(Lane::Low, 1, 0)];
        assert_eq!(ask(&few, 103), [10, 91, 0]);
    }

    #[test]
    fn queues_of_one_class_share_evenly() {
        let lanes = [lane(Lane::Normal, 1, 5000), lane(Lane::Normal, 1, 8), lane(Lane::Normal, 1, 5000)];
        assert_eq!(ask(&lanes, 103), [47, 7, 46]);
    }

    #[test]
    fn of_many_queues_a_few_are_asked_for_much_those_that_had_the_least() {
        let mut lanes = vec![lane(Lane::Normal, 0, 5000); 100];
        let batches = ask(&lanes, 128);
        let asked: Vec<usize> = (0..100).filter(|index| batches[*index] > 0).collect();
        assert_eq!((asked.len(), batches.iter().sum::<usize>()), (8, 128));
        asked.iter().for_each(|index| lanes[*index].held = batches[*index]);
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
    fn lanes_behind_do_not_fill_the_room() {
        let busy = [holding(Lane::High, 0, 9), holding(Lane::Normal, 30, 9), holding(Lane::Low, 2, 9)];
        assert_eq!(ask(&busy, 32), [9, 0, 0]);
        let one_at_a_time = |picks| requests(&busy[..], Demand { now: 1, prefetch: 0 }, picks);
        assert_eq!(one_at_a_time(0), [1, 0, 0]);
        let fresh = [holding(Lane::High, 0, 9), holding(Lane::Low, 0, 9)];
        let fresh = |picks| requests(&fresh, Demand { now: 1, prefetch: 0 }, picks);
        assert_eq!((fresh(3), fresh(15)), (vec![1, 0], vec![1, 1]));
    }

    #[test]
    fn a_full_listener_asks_for_nothing() {
        assert_eq!(ask(&[holding(Lane::High, 9, 5000)], 9), [0]);
        assert_eq!(ask(&[holding(Lane::Normal, 9, 5000), holding(Lane::Low, 0, 0)], 9), [0, 0]);
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
