//! Entry objects: their bytes, what damage does to them, and what the journal costs.

use bytes::Bytes;
use floe_env::Env;
use floe_store::{MemoryStore, Store};

use super::bed::*;
use super::group::*;
use super::sealed::Unsound;
use super::{BucketFound, BucketJournal, BucketOpenError, BucketOptions};
use crate::journal::{AttachedError, Attachment, Journal, JournalError, Lsn, Outcome};
use crate::limits::BUCKET_FIRST_READ_BYTES;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Buckets in the field hold these bytes, so they never change.
#[test]
fn golden() {
    let place = (7, Lsn(20), Link { attempt: 3, crc: 4 });
    let commits = [put("a", "1"), put("b", "")];
    let attachments = [(1, Bytes::from_static(b"bytes"))];
    let (group, front) = encode(0x0102, place, 5, &commits, &attachments).unwrap();
    let end = group.head.read_bytes() as usize;
    assert_eq!(front.len() as u64, BUCKET_FIRST_READ_BYTES);
    assert!(front[end..].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&front[..GROUP_HEAD]), GOLDEN_HEAD);
    assert_eq!(hex(&front[GROUP_HEAD..end]), GOLDEN_BODY);
    let head = GroupHead::decode(0x0102, 7, &front).unwrap();
    assert_eq!(decode_body(&head, &front[GROUP_HEAD..end]), Ok(group.clone()));
    assert_eq!((head.link(), head.last(), head.object_bytes), (group.head.link(), Lsn(21), 16_389));
    let [(lsn, attached)] = &group.attached[..] else { panic!("it has one attachment") };
    assert_eq!((*lsn, attached.offset, attached.bytes), (Lsn(21), 16_384, 5));
}

const GOLDEN_HEAD: &str = "464c4f4542454e5401000000aaa77524020100000000000000000000000000000700000000000000\
     14000000000000000500000000000000000000000000000002000000010000004f0000004bd18abe\
     0540000000000000030000000000000000000000000000000400000000000000";
const GOLDEN_BODY: &str = "1100000007000000010204666c6f6500000104746573740000010101610101311100000006000000\
     010204666c6f6500000104746573740000010101620100010000000500000000000000929c6ed0";

#[test]
fn another_number_journal_or_version_is_refused() {
    let place = (7, Lsn(20), Link::default());
    let (_, front) = encode(1, place, 5, &[put("a", "1")], &[]).unwrap();
    assert!(GroupHead::decode(1, 8, &front).unwrap_err().to_string().contains("entry 7"));
    assert_eq!(GroupHead::decode(2, 7, &front), Err(Unsound::Foreign { found: 1, ours: 2 }));
    assert!(GroupHead::decode(1, 7, &front[..40]).is_err());
    let too_many: Vec<_> = (0..4_097).map(|_| put("a", "1")).collect();
    assert!(
        encode(1, place, 5, &too_many, &[]).unwrap_err().to_string().contains("more than an entry takes")
    );
}

/// What is read of a journal of three entries with an image, while one byte of one object differs.
async fn read_damaged(store: &MemoryStore, env: &Env) -> Result<(), String> {
    let way = Way::new(env, store);
    let opened = BucketJournal::open(env, std::sync::Arc::new(way), options()).await;
    let journal = opened.map_err(|error| error.to_string())?;
    let loaded = journal.load().await.map_err(|error| error.to_string())?;
    let last = loaded.image_lsn.plus(loaded.entries.len());
    assert_eq!(last, Lsn(6), "the map is whole");
    let mut map: std::collections::BTreeMap<Bytes, Bytes> = loaded.image.into_iter().collect();
    for change in loaded.entries.iter().flat_map(|entry| &entry.changes) {
        map.insert(change.key.clone(), change.value.clone().expect("nothing is removed"));
    }
    let expected: Vec<(Bytes, Bytes)> =
        (0..6).map(|at| (format!("key {at}").into(), format!("{at}").into())).collect();
    assert!(map.into_iter().eq(expected), "the map is right");
    let history = journal.history(Lsn(0), 10).await.map_err(|error| error.to_string())?;
    assert!(history.iter().map(|entry| entry.lsn.0).eq(1..=6));
    match journal.attached(Lsn(6), 0..300).await {
        Ok(bytes) => assert_eq!(bytes, vec![9; 300]),
        Err(AttachedError::Damaged { .. }) => return Err("attached".to_owned()),
        Err(error) => panic!("{error}"),
    }
    Ok(())
}

/// A journal of six commits, of which four are in an image.
async fn six_commits(env: &Env, store: &MemoryStore) {
    let journal = Way::new(env, store).open(options()).await;
    for at in 0..6 {
        let attached = match at {
            5 => vec![Attachment::of(vec![vec![9; 300].into()])],
            _ => Vec::new(),
        };
        let commits = [put(&format!("key {at}"), &at.to_string())];
        let done = journal.commit_with(Lsn(at), u128::from(at), &commits, &attached).await.unwrap();
        assert_eq!(done.outcome, Outcome::Committed(Lsn(at + 1)));
        tokio::time::sleep(seconds(1)).await;
    }
}

#[test]
fn every_changed_byte_is_refused_or_made_good() {
    simulate(async {
        let (env, store) = (Env::simulated(1), MemoryStore::new());
        six_commits(&env, &store).await;
        assert_eq!(read_damaged(&store, &env.scope()).await, Ok(()));
        let mut all = store.list("journal", "", 100).await.unwrap();
        all.retain(|listed| !listed.key.contains("/floors/"));
        assert!(all.iter().any(|listed| listed.key.contains("/parts/")), "it has an image");
        let (mut refused, mut good) = (0, 0);
        for key in all.into_iter().map(|listed| listed.key) {
            let bytes = store.get(&key, None).await.unwrap();
            // The zeros between commits and attachments mean nothing.
            let zeros = if key.contains("/entries/") { 600..16_384 } else { 0..0 };
            for at in (0..bytes.len()).filter(|at| !zeros.contains(at) || at % 4_096 == 0) {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 0x10;
                store.plant(&key, damaged.into());
                match read_damaged(&store, &env.scope()).await {
                    Ok(()) => good += 1,
                    Err(_) => refused += 1,
                }
            }
            for length in [0, 10, bytes.len() / 2, bytes.len() - 1] {
                store.plant(&key, bytes.slice(..length));
                let _either = read_damaged(&store, &env.scope()).await;
            }
            store.plant(&key, bytes);
        }
        assert!(refused > 500 && good > 100, "{refused} refused, {good} made good");
    });
}

#[test]
fn a_bucket_of_others_is_told_from_ours() {
    simulate(async {
        let (env, store) = (Env::simulated(1), MemoryStore::new());
        let way = Way::new(&env, &store);
        let open = async |options: BucketOptions| {
            BucketJournal::open(&env, std::sync::Arc::new(way.clone()), options).await
        };
        let none = open(BucketOptions { create: false, ..options() }).await.unwrap_err();
        assert!(matches!(none, BucketOpenError::None { .. }), "{none}");
        let none = open(BucketOptions { expected: Some(5), ..options() }).await.unwrap_err();
        assert!(matches!(none, BucketOpenError::None { .. }), "{none}");
        let bad = open(BucketOptions { folder: "../x".to_owned(), ..options() }).await.unwrap_err();
        assert!(matches!(bad, BucketOpenError::Folder(_)), "{bad}");
        let made = open(options()).await.unwrap();
        let there = open(BucketOptions { expected: Some(made.id()), ..options() }).await.unwrap();
        assert_eq!((made.found(), there.found()), (BucketFound::Made, BucketFound::There));
        assert_eq!(made.id(), there.id());
        let other = open(BucketOptions { expected: Some(5), ..options() }).await.unwrap_err();
        assert!(matches!(other, BucketOpenError::Other { expected: 5, .. }), "{other}");
        assert!(other.to_string().contains("another cluster"));
        // The bytes of a newer version.
        let id = store.get("journal/id", None).await.unwrap();
        let mut newer = id.to_vec();
        newer[8] = 2;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..]);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        store.plant("journal/id", newer.into());
        let refused = open(options()).await.unwrap_err();
        assert!(refused.to_string().contains("upgrade this broker"), "{refused}");
        // Entries without the first object.
        commit_some(&made, 1).await;
        store.remove("journal/id");
        let lost = open(options()).await.unwrap_err();
        assert!(matches!(lost, BucketOpenError::LostId { .. }), "{lost}");
        // Entries of another journal.
        store.plant("journal/id", super::names::encode_identity(5, 0).into());
        let journal = open(options()).await.unwrap();
        let refused = journal.load().await.unwrap_err();
        assert!(matches!(&refused, JournalError::NotApplied(why) if why.contains("belongs to")), "{refused}");
    });
}

/// A group is one PUT, an idle broker makes 12 requests a minute at most, and one that hears of commits wakes soon.
#[test]
fn the_journal_costs_one_put_a_group_and_little_at_rest() {
    simulate(async {
        let (env, store) = (Env::simulated(1), MemoryStore::new());
        let options = BucketOptions { image_entries: 1_000, ..options() };
        let ways = [Way::new(&env, &store), Way::new(&env, &store)];
        let (one, two) = (ways[0].open(options.clone()).await, ways[1].open(options).await);
        commit_some(&one, 1).await;
        two.load().await.unwrap();
        let before = (ways[0].count("put"), ways[0].requests());
        for at in 1..100 {
            let attached = [Attachment::of(vec![vec![1; 10_000].into()])];
            let commits = [put("a", "1"), put("b", "2")];
            let last = Lsn(at * 2 - 1);
            one.commit_with(last, u128::from(at), &commits, &attached).await.unwrap();
        }
        assert_eq!((ways[0].count("put"), ways[0].requests()), (before.0 + 99, before.1 + 99));
        let found = two.follow(Lsn(1)).await.unwrap();
        assert_eq!(found.len(), 198);
        // At rest, with a caller that gives up and comes back all the time.
        let last = two.lsn();
        tokio::time::timeout(seconds(60), two.follow(last)).await.unwrap_err();
        let before = ways[1].requests();
        for _ in 0..600 {
            tokio::time::timeout(seconds(1), two.follow(last)).await.unwrap_err();
        }
        let idle = ways[1].requests() - before;
        assert!((60..=120).contains(&idle), "{idle} requests in ten minutes");
        let began = env.monotonic();
        let commits = [put("c", "3")];
        let (followed, done) = futures::join!(two.follow(last), one.commit(last, 9_999, &commits));
        assert_eq!(
            (followed.map(|entries| entries.len()), done),
            (Ok(1), Ok(Outcome::Committed(last.next())))
        );
        assert!(began.elapsed() <= seconds(6), "{:?}", began.elapsed());
        // In the same process a follower wakes at once.
        let (began, last) = (env.monotonic(), last.next());
        let (followed, _) = futures::join!(one.follow(last), one.commit(last, 10_000, &commits));
        assert_eq!((followed.map(|entries| entries.len()), began.elapsed()), (Ok(1), seconds(0)));
        assert!(two.crowded() && !one.crowded() && !two.pressed());
    });
}
