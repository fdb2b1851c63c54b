//! Cost of a lost disk or machine, and state of the copies.

use std::time::Duration;

use aioq::__private::{count, names};
use aioq::broker::Finding;
use serde_json::Value;

use super::stream::Stream;

/// Silence after which a copy counts as away, before the server reports it as offline.
const AWAY: Duration = Duration::from_secs(10);

/// Cost of a lost disk and of a lost machine.
pub(super) fn losses(streams: &[Stream; 3], in_cluster: bool) -> [Finding; 2] {
    let copies = fewest(streams);
    let few = streams.iter().filter(|stream| stream.replicas() == copies);
    let few = names(few.map(|stream| &*stream.name));
    match (copies, in_cluster) {
        (..=1, false) => one_server(),
        (..=1, true) => one_copy(&few),
        (2, _) => two_copies(&few),
        _ => many_copies(copies),
    }
}

fn fewest(streams: &[Stream; 3]) -> u64 {
    streams.iter().map(Stream::replicas).min().unwrap_or(1)
}

const THREE: &str = "Keep three copies: `nats stream edit STREAM --replicas 3` for each stream, and \
                     `Nats::replicas(3)` in the code for new ones.";

fn one_server() -> [Finding; 2] {
    let disk =
        "There is one server and one copy of each stream: a lost disk takes all jobs and results with it.";
    let node = "While the only server is away nothing can be kicked and no job starts; what it holds goes on \
                when it is back.";
    let advice = "Run a cluster of three servers with three copies, `Nats::replicas(3)`, or back the store \
                  directory up.";
    [Finding::remark("disk_loss", disk).advice(advice), Finding::remark("node_loss", node)]
}

fn one_copy(few: &str) -> [Finding; 2] {
    let only = format!("The cluster keeps one copy only of {few}");
    let disk = format!("{only}: the lost disk of one server takes it away for good.");
    let node = format!("{only}: while that server is away nothing can be kicked and no job starts.");
    [Finding::warning("disk_loss", disk).advice(THREE), Finding::warning("node_loss", node).advice(THREE)]
}

fn two_copies(few: &str) -> [Finding; 2] {
    let disk = "There are two copies of each stream: a lost disk costs no confirmed job.";
    let node = format!(
        "Both copies of {few} must be there: while one server is away nothing can be kicked and no job \
         starts."
    );
    [Finding::fine("disk_loss", disk), Finding::warning("node_loss", node).advice(THREE)]
}

fn many_copies(copies: u64) -> [Finding; 2] {
    let spare = count((copies - 1) / 2, "server");
    let there_are = format!("There are {copies} copies of each stream");
    let disk = format!("{there_are}: to lose the disk of {spare} at a time costs no confirmed job.");
    let node = format!("{there_are}: with {spare} away, jobs are kicked and run as before.");
    [Finding::fine("disk_loss", disk), Finding::fine("node_loss", node)]
}

/// State of the copies: leader, copies away, copies behind.
pub(super) fn state(streams: &[Stream; 3], wanted: usize) -> Vec<Finding> {
    let mut found: Vec<Finding> = streams.iter().flat_map(|stream| state_of(stream, wanted as u64)).collect();
    if found.is_empty() {
        let text = match fewest(streams) {
            ..=1 => "Each stream has one copy, as this program asks for, and it is there.".to_owned(),
            copies => format!("All {copies} copies of each stream are there and up to date."),
        };
        found.push(Finding::fine("replicas", text));
    }
    found
}

fn state_of(stream: &Stream, wanted: u64) -> Vec<Finding> {
    let peers = stream.cluster["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (away, here): (Vec<&Value>, Vec<&Value>) = peers.iter().partition(|peer| is_away(peer));
    let lagging = here.into_iter().filter(|peer| peer["current"] != true).collect();
    let found =
        [made_with_fewer(stream, wanted), leaderless(stream), gone(stream, away), behind(stream, lagging)];
    found.into_iter().flatten().collect()
}

fn made_with_fewer(stream: &Stream, wanted: u64) -> Option<Finding> {
    let (name, copies) = (&stream.name, stream.replicas());
    if copies >= wanted {
        return None;
    }
    let text =
        format!("This program asks for {wanted} copies of each stream, but `{name}` keeps {copies} only.");
    let advice = format!("Change it: `nats stream edit {name} --replicas {wanted}`.");
    Some(Finding::warning("replicas", text).advice(advice))
}

fn leaderless(stream: &Stream) -> Option<Finding> {
    if stream.cluster["leader"].as_str().is_some_and(|leader| !leader.is_empty()) {
        return None;
    }
    let name = &stream.name;
    let text = format!("No server leads the stream `{name}`: until one is elected nothing can be kicked.");
    Some(Finding::warning("replicas", text).advice("Start the servers that are missing."))
}

fn gone(stream: &Stream, away: Vec<&Value>) -> Option<Finding> {
    if away.is_empty() {
        return None;
    }
    let (name, copies, lost) = (&stream.name, stream.replicas(), away.len() as u64);
    let left = left(copies, lost);
    let servers = servers(&away);
    let text = format!("{lost} of {copies} copies of the stream `{name}` are away, on {servers}: {left}.");
    let advice = "Start those servers again, or remove them for good (`nats server cluster peer-remove`), so \
                  that others take their place.";
    Some(Finding::warning("replicas", text).advice(advice))
}

fn behind(stream: &Stream, lagging: Vec<&Value>) -> Option<Finding> {
    if lagging.is_empty() {
        return None;
    }
    let (name, servers) = (&stream.name, servers(&lagging));
    let text = format!(
        "The copies of the stream `{name}` on {servers} are not up to date; a moment after a change that is \
         usual."
    );
    let advice = "Ask again in a minute; if it stays, look at that server's disk and network.";
    Some(Finding::remark("replicas", text).advice(advice))
}

fn servers(peers: &[&Value]) -> String {
    names(peers.iter().filter_map(|peer| peer["name"].as_str()))
}

fn is_away(peer: &Value) -> bool {
    let unheard = Duration::from_nanos(peer["active"].as_u64().unwrap_or(0));
    peer["offline"] == true || (peer["current"] != true && unheard > AWAY)
}

/// Number of servers that may still fail.
fn left(copies: u64, away: u64) -> String {
    match ((copies - 1) / 2).saturating_sub(away) {
        0 => "one more, and nothing can be kicked and no job starts".to_owned(),
        spare => format!("{spare} more may go"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::tests::streams;
    use super::*;
    use aioq::broker::Level;
    use serde_json::json;

    fn with_copies(copies: u64, peers: Value) -> [Stream; 3] {
        streams(|config, cluster| {
            config["num_replicas"] = copies.into();
            cluster["replicas"] = peers.clone();
        })
    }

    #[test]
    fn losses_are_as_bad_as_the_copies_are_few() {
        let levels = |copies, in_cluster| {
            losses(&with_copies(copies, Value::Null), in_cluster).map(|finding| finding.level)
        };
        assert_eq!(levels(1, false), [Level::Remark, Level::Remark]);
        assert_eq!(levels(1, true), [Level::Warning, Level::Warning]);
        assert_eq!(levels(2, true), [Level::Fine, Level::Warning]);
        assert_eq!(levels(3, true), [Level::Fine, Level::Fine]);
    }

    #[test]
    fn copies_that_are_away_or_behind_are_reported() {
        let state = |active: u64, current: bool, offline: bool| {
            let peer = json!({ "name": "n2", "current": current, "offline": offline, "active": active });
            let found = state(&with_copies(3, json!([peer])), 3);
            assert!(found[0].level == Level::Fine || found[0].text.contains("`n2`"), "{found:?}");
            found[0].level
        };
        assert_eq!(state(1000, true, false), Level::Fine);
        assert_eq!(state(1000, false, false), Level::Remark);
        assert_eq!(state(60_000_000_000, false, false), Level::Warning);
        assert_eq!(state(1000, false, true), Level::Warning);
    }

    #[test]
    fn fewer_copies_than_asked_for_and_no_leader_are_reported() {
        assert_eq!(state(&with_copies(1, Value::Null), 3).len(), 3);
        let leaderless = streams(|_, cluster| *cluster = json!({}));
        assert!(state(&leaderless, 1)[0].text.contains("No server leads"));
    }
}
