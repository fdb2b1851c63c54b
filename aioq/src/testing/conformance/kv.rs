//! Guarantees of a [`KvStore`](crate::store::KvStore).

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, iter};
use tokio::time::{Instant, timeout};

use super::kit::{ODD_NAMES, at_once, gone_after, ok, refused, soon};
use crate::backend::Backend;
use crate::error::ErrorKind;
use crate::store::{Entry, Expect, KvChange};

const TTL: Duration = Duration::from_secs(1);

async fn get(backend: &Backend, key: &str) -> Option<Entry> {
    ok(backend.kv().get(key).await, "get")
}

async fn put(backend: &Backend, key: &str, value: &'static str, expect: Expect) -> u64 {
    ok(backend.kv().put(key, value.into(), expect, None).await, "put")
}

async fn put_for(backend: &Backend, key: &str, expect: Expect, ttl: Duration) -> u64 {
    ok(backend.kv().put(key, "for a while".into(), expect, Some(ttl)).await, "put")
}

async fn conflicts(backend: &Backend, key: &str, expect: Expect) {
    let written = backend.kv().put(key, "refused".into(), expect, None).await;
    let kind = refused(written, "a write that expects too much");
    assert_eq!(kind, ErrorKind::Conflict, "{expect:?}");
}

async fn delete(backend: &Backend, key: &str) -> bool {
    ok(backend.kv().delete(key, Expect::Any).await, "delete")
}

async fn scan(backend: &Backend, prefix: &str) -> Vec<String> {
    let entries = ok(backend.kv().scan(prefix).await, "scan");
    entries.into_iter().map(|entry| entry.key).collect()
}

async fn watch(backend: &Backend, prefix: &str) -> BoxStream<'static, KvChange> {
    ok(backend.kv().watch(prefix).await, "watch")
}

async fn seen(watch: &mut BoxStream<'static, KvChange>) -> KvChange {
    soon("a change to be seen", watch.next()).await.expect("the watch goes on")
}

/// A value of any bytes, also an empty one, comes back with the revision that its write returned.
pub async fn a_value_comes_back_as_it_was_put(backend: &Backend) {
    let all: Bytes = (0..=255).collect::<Vec<u8>>().into();
    for (key, value) in [("a", all), ("b.c", Bytes::new()), ("b.d", vec![7; 20_000].into())] {
        let revision = ok(backend.kv().put(key, value.clone(), Expect::Absent, None).await, "put");
        assert_eq!(get(backend, key).await, Some(Entry::new(key, value, revision)));
    }
}

/// A key that was not put has no value. A prefix of a key is another key.
pub async fn an_unknown_key_has_no_value(backend: &Backend) {
    put(backend, "a.b.c", "x", Expect::Any).await;
    for key in ["a", "a.b", "a.b.", "a.b.c.d", "b.c", "*", ">", "a.*.c"] {
        assert_eq!(get(backend, key).await, None, "`{key}` was not put");
    }
}

/// `Expect::Absent` does not overwrite a value.
pub async fn an_existing_key_is_not_absent(backend: &Backend) {
    put(backend, "a.1", "x", Expect::Absent).await;
    conflicts(backend, "a.1", Expect::Absent).await;
    put(backend, "a.2", "x", Expect::Absent).await;
}

/// `Expect::Revision` requires the newest revision of the key; an older one, the one of another key
/// and the one of an absent key are refused.
pub async fn a_write_needs_the_newest_revision(backend: &Backend) {
    let first = put(backend, "a.1", "x", Expect::Absent).await;
    let other = put(backend, "a.2", "x", Expect::Absent).await;
    let second = put(backend, "a.1", "y", Expect::Revision(first)).await;
    for stale in [first, other, second + 1000] {
        conflicts(backend, "a.1", Expect::Revision(stale)).await;
    }
    conflicts(backend, "a.3", Expect::Revision(second)).await;
    put(backend, "a.1", "z", Expect::Revision(second)).await;
}

/// A refused write changes neither the value nor its revision.
pub async fn a_refused_write_changes_nothing(backend: &Backend) {
    let revision = put(backend, "a.1", "x", Expect::Absent).await;
    for expect in [Expect::Absent, Expect::Revision(revision + 7)] {
        conflicts(backend, "a.1", expect).await;
        assert_eq!(get(backend, "a.1").await, Some(Entry::new("a.1", "x".into(), revision)));
    }
    conflicts(backend, "a.2", Expect::Revision(revision)).await;
    assert_eq!(scan(backend, "a.").await, ["a.1"]);
}

/// Each write of a key has a greater revision than earlier ones, also after a delete.
pub async fn revisions_grow(backend: &Backend) {
    let mut last = 0;
    for _ in 0..3 {
        for expect in [Expect::Absent, Expect::Any, Expect::Revision(0)] {
            let expect = if expect == Expect::Revision(0) { Expect::Revision(last) } else { expect };
            let revision = put(backend, "a", "x", expect).await;
            assert!(revision > last, "{revision} after {last}");
            last = revision;
        }
        assert!(delete(backend, "a").await);
        conflicts(backend, "a", Expect::Revision(last)).await;
    }
}

/// `delete` returns true if the key was there. Afterwards the key is absent.
pub async fn a_deleted_key_is_gone(backend: &Backend) {
    put(backend, "a.1", "x", Expect::Absent).await;
    put(backend, "a.2", "x", Expect::Absent).await;
    assert!(delete(backend, "a.1").await, "it was there");
    assert_eq!(get(backend, "a.1").await, None);
    assert_eq!(scan(backend, "").await, ["a.2"]);
    assert!(!delete(backend, "a.1").await, "it was gone");
    assert!(!delete(backend, "never").await, "it never was there");
    put(backend, "a.1", "y", Expect::Absent).await;
}

/// A delete that expects another revision than the newest is a `Conflict`, and deletes nothing.
pub async fn a_conditional_delete_needs_the_newest_revision(backend: &Backend) {
    let first = put(backend, "a", "x", Expect::Absent).await;
    let second = put(backend, "a", "y", Expect::Any).await;
    for expect in [Expect::Revision(first), Expect::Revision(second + 1), Expect::Absent] {
        let kind = refused(backend.kv().delete("a", expect).await, "a delete that expects too much");
        assert_eq!(kind, ErrorKind::Conflict, "{expect:?}");
    }
    assert_eq!(get(backend, "a").await, Some(Entry::new("a", "y".into(), second)));
    assert!(ok(backend.kv().delete("a", Expect::Revision(second)).await, "delete"));
    assert_eq!(get(backend, "a").await, None);
}

/// `scan` returns the entries that `get` returns, for all keys of the prefix, in their order.
pub async fn a_scan_gives_the_keys_of_a_prefix_in_order(backend: &Backend) {
    let keys = ["b.10", "a.1", "b.2", "b.1", "ba.1", "b.1.x", "b", "c.1", "b-1"];
    for key in keys {
        put(backend, key, "old", Expect::Absent).await;
    }
    for key in keys {
        put(backend, key, "new", Expect::Any).await;
    }
    assert_eq!(scan(backend, "b.").await, ["b.1", "b.1.x", "b.10", "b.2"]);
    assert_eq!(scan(backend, "b.1.").await, ["b.1.x"]);
    assert_eq!(scan(backend, "d.").await, Vec::<String>::new());
    let mut all = keys.map(str::to_owned).to_vec();
    all.sort();
    assert_eq!(scan(backend, "").await, all);
    for entry in ok(backend.kv().scan("").await, "scan") {
        assert_eq!((get(backend, &entry.key).await, &*entry.value), (Some(entry.clone()), b"new".as_slice()));
    }
    assert!(delete(backend, "b.2").await);
    assert_eq!(scan(backend, "b.").await, ["b.1", "b.1.x", "b.10"]);
}

/// A key with a TTL of a second exists for that time and is absent afterwards.
pub async fn a_key_vanishes_after_its_ttl(backend: &Backend) {
    let start = Instant::now();
    let revision = put_for(backend, "a.short", Expect::Absent, TTL).await;
    put_for(backend, "a.long", Expect::Absent, 3600 * TTL).await;
    gone_after(start, TTL, "the key to vanish", async || get(backend, "a.short").await.is_none()).await;
    assert_eq!(scan(backend, "a.").await, ["a.long"]);
    conflicts(backend, "a.short", Expect::Revision(revision)).await;
    assert!(!delete(backend, "a.short").await, "it was gone");
    let again = put(backend, "a.short", "x", Expect::Absent).await;
    assert!(again > revision, "{again} after {revision}");
}

/// The TTL of a write counts after any earlier state: no key, a deleted key, an expired key.
pub async fn a_key_put_after_a_delete_has_its_ttl(backend: &Backend) {
    put(backend, "a", "x", Expect::Absent).await;
    assert!(delete(backend, "a").await);
    for expect in [Expect::Absent, Expect::Absent, Expect::Any] {
        let start = Instant::now();
        put_for(backend, "a", expect, TTL).await;
        let there = get(backend, "a").await.is_some();
        assert!(there || start.elapsed() >= TTL, "it has a second");
        gone_after(start, TTL, "the key to vanish", async || get(backend, "a").await.is_none()).await;
    }
}

/// Each write replaces the TTL, or removes it.
pub async fn a_later_write_decides_about_the_ttl(backend: &Backend) {
    let revision = put_for(backend, "kept", Expect::Absent, TTL).await;
    put(backend, "kept", "x", Expect::Revision(revision)).await;
    let revision = put_for(backend, "renewed", Expect::Absent, TTL).await;
    put(backend, "short", "x", Expect::Absent).await;
    let start = Instant::now();
    put_for(backend, "renewed", Expect::Revision(revision), 2 * TTL).await;
    put_for(backend, "short", Expect::Any, TTL).await;
    gone_after(start, TTL, "the key to vanish", async || get(backend, "short").await.is_none()).await;
    let gone = async || get(backend, "renewed").await.is_none();
    gone_after(start, 2 * TTL, "the renewed key to vanish", gone).await;
    assert!(get(backend, "kept").await.is_some(), "the last write set no TTL");
}

/// A key with a TTL that is overwritten in time exists without a gap: heartbeats are such keys.
pub async fn a_key_that_is_written_again_and_again_is_never_missing(backend: &Backend) {
    put_for(backend, "sign.1", Expect::Any, TTL).await;
    put_for(backend, "sign.2", Expect::Any, 3600 * TTL).await;
    let writing = async {
        for _ in 0..200 {
            put_for(backend, "sign.1", Expect::Any, 3600 * TTL).await;
        }
    };
    let reads = async {
        loop {
            assert_eq!(scan(backend, "sign.").await, ["sign.1", "sign.2"]);
            assert!(get(backend, "sign.1").await.is_some());
        }
    };
    tokio::select! {
        biased;
        () = writing => {}
        () = reads => {}
    }
}

/// Of several concurrent writers that expect `Absent` exactly one succeeds, and its value stays.
pub async fn of_racing_writers_of_a_new_key_one_wins(backend: &Backend) {
    for race in 0..200 {
        let key = format!("race.{race}");
        let writers = ["one", "two", "three", "four"].map(|value| {
            let (kv, key) = (backend.kv().clone(), key.clone());
            async move { (value, kv.put(&key, value.into(), Expect::Absent, None).await) }
        });
        let mut won = Vec::new();
        for (value, written) in at_once(writers).await {
            match written {
                Ok(revision) => won.push(Entry::new(&key, value.into(), revision)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        assert_eq!(won, [get(backend, &key).await.expect("somebody won")], "one writer wins");
    }
}

/// Writers that increment a number, and retry after a `Conflict`, lose no increment.
pub async fn conditional_writes_lose_no_update(backend: &Backend) {
    const WRITERS: u64 = 4;
    const STEPS: u64 = 25;
    put(backend, "count", "0", Expect::Absent).await;
    let writers = (0..WRITERS).map(|_| {
        let backend = backend.clone();
        async move {
            for _ in 0..STEPS {
                while !count_up(&backend).await {}
            }
        }
    });
    at_once(writers).await;
    let count = get(backend, "count").await.expect("it was put").value;
    assert_eq!(count, (WRITERS * STEPS).to_string());
}

/// True if no other writer incremented in between.
async fn count_up(backend: &Backend) -> bool {
    let entry = get(backend, "count").await.expect("it was put");
    let text = std::str::from_utf8(&entry.value).expect("a number");
    let next = text.parse::<u64>().expect("a number") + 1;
    match backend.kv().put("count", next.to_string().into(), Expect::Revision(entry.revision), None).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Conflict => false,
        Err(error) => panic!("put failed: {error:?}"),
    }
}

/// A watcher sees each put and delete of its prefix after `watch` returned, in order, and no other.
pub async fn a_watcher_sees_the_changes_of_its_prefix(backend: &Backend) {
    put(backend, "a.before", "x", Expect::Any).await;
    let mut watched = watch(backend, "a.").await;
    let mut everything = watch(backend, "").await;
    drop(watch(backend, "a.").await);

    let one = put(backend, "a.1", "one", Expect::Absent).await;
    let other = put(backend, "b.1", "other", Expect::Absent).await;
    let two = put(backend, "a.1", "two", Expect::Revision(one)).await;
    assert!(delete(backend, "a.1").await);
    assert!(!delete(backend, "a.1").await);
    assert!(delete(backend, "a.before").await);
    let last = put(backend, "a.last", "", Expect::Any).await;

    let put =
        |key: &str, value: &'static str, revision| KvChange::Put(Entry::new(key, value.into(), revision));
    let deleted = |key: &str| KvChange::Deleted(key.to_owned());
    for change in [
        put("a.1", "one", one),
        put("a.1", "two", two),
        deleted("a.1"),
        deleted("a.before"),
        put("a.last", "", last),
    ] {
        assert_eq!(seen(&mut watched).await, change);
    }
    for change in [put("a.1", "one", one), put("b.1", "other", other), put("a.1", "two", two)] {
        assert_eq!(seen(&mut everything).await, change);
    }
}

/// A refused write is not seen.
pub async fn a_watcher_never_sees_a_refused_write(backend: &Backend) {
    let revision = put(backend, "a", "x", Expect::Any).await;
    let mut watch = watch(backend, "").await;
    conflicts(backend, "a", Expect::Absent).await;
    conflicts(backend, "a", Expect::Revision(revision + 1)).await;
    refused(backend.kv().delete("a", Expect::Revision(revision + 1)).await, "a delete");
    let last = put(backend, "a", "y", Expect::Revision(revision)).await;
    assert_eq!(seen(&mut watch).await, KvChange::Put(Entry::new("a", "y".into(), last)));
}

/// The expiry of a key is not reported.
pub async fn a_key_that_vanishes_is_no_change(backend: &Backend) {
    let mut watch = watch(backend, "a.").await;
    let start = Instant::now();
    let short = put_for(backend, "a.short", Expect::Absent, TTL).await;
    gone_after(start, TTL, "the key to vanish", async || get(backend, "a.short").await.is_none()).await;
    let next = put(backend, "a.next", "x", Expect::Absent).await;
    let put =
        |key: &str, value: &'static str, revision| KvChange::Put(Entry::new(key, value.into(), revision));
    assert_eq!(seen(&mut watch).await, put("a.short", "for a while", short));
    assert_eq!(seen(&mut watch).await, put("a.next", "x", next));
}

/// A read that begins after a write was confirmed returns that write or a later one, also in
/// another task, and while other keys are written.
pub async fn a_confirmed_write_is_in_each_later_read(backend: &Backend) {
    let writers = (0..4).map(|writer| {
        let backend = backend.clone();
        async move {
            let key = format!("read.{writer}");
            for _ in 0..25 {
                let revision = put(&backend, &key, "x", Expect::Any).await;
                let got = get(&backend, &key).await.expect("it was put");
                assert_eq!(got.revision, revision, "`get` of `{key}`");
                let scanned = ok(backend.kv().scan("read.").await, "scan");
                assert!(scanned.contains(&got), "`scan` after a write of `{key}`: {scanned:?}");
            }
        }
    });
    at_once(writers).await;
}

/// Of several writers with the same revision exactly one succeeds, and its value stays.
pub async fn of_racing_writers_over_a_key_one_wins(backend: &Backend) {
    for race in 0..100 {
        let key = format!("race.{race}");
        let revision = put(backend, &key, "first", Expect::Absent).await;
        let writers = ["one", "two", "three", "four"].map(|value| {
            let (kv, key) = (backend.kv().clone(), key.clone());
            async move { (value, kv.put(&key, value.into(), Expect::Revision(revision), None).await) }
        });
        let mut won = Vec::new();
        for (value, written) in at_once(writers).await {
            match written {
                Ok(revision) => won.push(Entry::new(&key, value.into(), revision)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        assert_eq!(won, [get(backend, &key).await.expect("somebody won")], "one writer wins");
    }
}

/// A key whose last write has a TTL of a second is gone within three seconds, for `get` and for
/// `scan`: entries are removed by such a write.
pub async fn a_key_with_a_ttl_of_a_second_is_gone_within_three(backend: &Backend) {
    let revision = put(backend, "a.1", "x", Expect::Absent).await;
    let start = Instant::now();
    put_for(backend, "a.1", Expect::Revision(revision), TTL).await;
    gone_after(start, TTL, "the key to vanish", async || {
        get(backend, "a.1").await.is_none() && scan(backend, "a.").await.is_empty()
    })
    .await;
    let took = start.elapsed();
    assert!(took <= 3 * TTL, "it was gone after {took:?}");
}

/// `get_all` returns what `get` returns of each key, in the order of the keys, for any number.
pub async fn many_keys_are_read_in_their_order(backend: &Backend) {
    const KEYS: usize = 1_500;
    let kv = backend.kv();
    assert_eq!(ok(kv.get_all(&[]).await, "no keys"), []);
    let keys: Vec<String> = (0..KEYS).rev().map(|index| format!("all.{index}")).collect();
    let puts = (0..KEYS).map(|index| kv.put(&keys[index], index.to_string().into(), Expect::Any, None));
    let puts: Vec<_> = iter(puts).buffered(64).collect().await;
    for put in puts {
        ok(put, "put");
    }
    assert!(ok(kv.delete(&keys[7], Expect::Any).await, "delete"));
    let asked: Vec<String> = keys.iter().cloned().chain(["all.none".to_owned(), keys[0].clone()]).collect();
    let found = ok(kv.get_all(&asked).await, "get_all");
    assert_eq!(found.len(), asked.len());
    for (index, (key, found)) in asked.iter().zip(found).enumerate() {
        assert_eq!(found, ok(kv.get(key).await, "get"), "{key}");
        assert_eq!(found.is_none(), index == 7 || index == KEYS, "{key}");
    }
}

/// The most keys of [`a_scan_is_complete_among_many_keys`].
const MANY_KEYS: usize = 100_000;
/// Time in which that case writes as many of them as the backend takes.
const WRITING: Duration = Duration::from_secs(2);

/// A scan of many keys is complete and in order. A scan of a prefix without keys takes at most 10
/// milliseconds among them. The case writes for two seconds, at most 100,000 keys.
pub async fn a_scan_is_complete_among_many_keys(backend: &Backend) {
    let end = Instant::now() + WRITING;
    let writes = iter(0..MANY_KEYS).take_while(|_| std::future::ready(Instant::now() < end));
    let writes = writes.map(|index| async move {
        let key = format!("many.{index:06}");
        ok(backend.kv().put(&key, "x".into(), Expect::Any, None).await, "put");
        key
    });
    let written: Vec<String> = writes.buffered(64).collect().await;
    let scanned = soon("a scan of many keys", scan(backend, "many.")).await;
    assert_eq!(scanned.len(), written.len());
    assert!(scanned == written, "in order and complete");

    let mut best = Duration::MAX;
    // The machine may be busy: the fastest of some scans counts.
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(scan(backend, "none.").await, [""; 0]);
        best = best.min(start.elapsed());
    }
    let count = written.len();
    assert!(best <= Duration::from_millis(10), "{best:?} for an empty prefix among {count} keys");
}

/// A prefix consists of whole parts: `a.b.` is a prefix of `a.b.now`, and not of `a.bc.now`.
pub async fn a_prefix_consists_of_whole_parts(backend: &Backend) {
    let mut watch = watch(backend, "a.b.").await;
    for key in ["a.bc.now", "a.b", "ab.b.now", "a.b.now"] {
        put(backend, key, "x", Expect::Absent).await;
    }
    assert_eq!(seen(&mut watch).await.into_key(), "a.b.now");
    assert_eq!(scan(backend, "a.b.").await, ["a.b.now"]);
}

/// One client watches a thousand keys, each by a watch of its own. Dropped watches disturb neither
/// writers nor the other watches.
pub async fn a_thousand_keys_are_watched_one_by_one(backend: &Backend) {
    const WATCHES: usize = 1000;
    let mut watches = Vec::new();
    for index in 0..WATCHES {
        watches.push(watch(backend, &format!("one.{index}.")).await);
    }
    for index in [0, 1, 500, 999] {
        let key = format!("one.{index}.now");
        put(backend, &key, "x", Expect::Any).await;
        assert_eq!(seen(&mut watches[index]).await.into_key(), key);
    }
    watches.drain(1..);
    for index in [1, 500, 999, 0] {
        put(backend, &format!("one.{index}.now"), "y", Expect::Any).await;
    }
    assert_eq!(seen(&mut watches[0]).await.into_key(), "one.0.now");
}

/// A watcher sees a write within a second after its confirmation, and the writes of a key in the
/// order of their revisions, also those of concurrent writers.
pub async fn a_watcher_sees_each_write_soon_and_in_order(backend: &Backend) {
    const WRITERS: usize = 4;
    const WRITES: usize = 25;
    let mut watch = watch(backend, "told.").await;
    for _ in 0..20 {
        put(backend, "told.soon", "x", Expect::Any).await;
        let change = timeout(Duration::from_secs(1), watch.next()).await;
        assert!(change.is_ok_and(|change| change.is_some()), "no change within a second");
    }
    let writers = (0..WRITERS).map(|_| {
        let backend = backend.clone();
        async move {
            for _ in 0..WRITES {
                put(&backend, "told.often", "x", Expect::Any).await;
            }
        }
    });
    at_once(writers).await;
    let mut last = 0;
    for _ in 0..WRITERS * WRITES {
        let KvChange::Put(entry) = seen(&mut watch).await else { panic!("nothing was deleted") };
        assert!(entry.revision > last, "{} after {last}", entry.revision);
        last = entry.revision;
    }
}

/// Keys with any characters, and of the maximum length, each have a value.
pub async fn odd_keys_are_kept_apart(backend: &Backend) {
    let mut keys: Vec<String> = ODD_NAMES.iter().map(|name| format!("odd.{name}")).collect();
    keys.push(format!("odd.{}", "ö".repeat(126)));
    assert!(keys.iter().all(|key| key.len() <= 256));
    let mut watch = watch(backend, "odd.").await;
    for key in &keys {
        let revision = ok(backend.kv().put(key, key.clone().into(), Expect::Absent, None).await, "put");
        let entry = Entry::new(key, key.clone().into(), revision);
        assert_eq!(get(backend, key).await.as_ref(), Some(&entry));
        assert_eq!(seen(&mut watch).await, KvChange::Put(entry));
    }
    keys.sort();
    assert_eq!(scan(backend, "odd.").await, keys);
    for key in &keys {
        assert!(delete(backend, key).await);
        assert_eq!(seen(&mut watch).await, KvChange::Deleted(key.clone()));
    }
}
