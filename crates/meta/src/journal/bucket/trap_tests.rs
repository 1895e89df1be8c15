//! Brokers that sleep, requests that hang, and entries that are gone meanwhile. Each test also runs with the bugs
//! that it is there for, and must see them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, lock};
use floe_store::{MemoryStore, Store};

use super::bed::*;
use super::group::encode;
use super::image::{Manifest, decode_part};
use super::names::{Names, floor_of, image_of};
use super::planted::{Planted, plant};
use super::{BucketJournal, BucketOptions};
use crate::journal::{AttachedError, Attachment, Carried, Journal, JournalError, Lsn, Outcome};

/// Runs a test as it is, and with each bug, which it must see.
fn with_bugs<F: Future<Output = ()>>(bugs: &[Planted], test: impl Fn() -> F) {
    plant(None);
    simulate(test());
    for bug in bugs {
        plant(Some(*bug));
        let seen = catch_unwind(AssertUnwindSafe(|| simulate(test()))).is_err();
        plant(None);
        assert!(seen, "{bug:?} was not seen");
    }
}

/// A store with two brokers that know one commit.
struct Two {
    store: MemoryStore,
    ways: [Way; 2],
    sleeper: BucketJournal,
    other: BucketJournal,
}

async fn two(options: BucketOptions) -> Two {
    let (env, store) = (Env::simulated(1), MemoryStore::new());
    let ways = [Way::new(&env, &store), Way::new(&env, &store)];
    let (sleeper, other) = (ways[0].open(options.clone()).await, ways[1].open(options).await);
    assert_eq!(sleeper.id(), other.id());
    commit_some(&sleeper, 1).await;
    other.load().await.unwrap();
    Two { store, ways, sleeper, other }
}

/// Commits, and lets go of all but the last five, until they are deleted.
async fn let_go(journal: &BucketJournal) {
    let last = commit_some(journal, 30).await;
    journal.forget(Lsn(last.0 - 5));
    tokio::time::sleep(seconds(900)).await;
}

/// A broker wakes up and commits: the number that it would use is gone.
#[test]
fn a_broker_that_slept_makes_no_old_number_anew() {
    with_bugs(&[Planted::NoCheckBefore], || async {
        let Two { store, sleeper, other, .. } = two(options()).await;
        let_go(&other).await;
        assert!(!has_entry(&store, 2).await, "it was let go of");
        let answer = sleeper.commit(Lsn(1), 99, &[put("a", "1")]).await;
        assert!(matches!(answer, Err(JournalError::Reload(_))), "{answer:?}");
        assert!(!has_entry(&store, 2).await, "nothing was put");
        let loaded = sleeper.load().await.unwrap();
        let last = loaded.image_lsn.plus(loaded.entries.len());
        assert_eq!((last, sleeper.lsn()), (Lsn(31), Lsn(31)));
        let done = sleeper.commit(last, 99, &[put("a", "1")]).await;
        assert_eq!(done, Ok(Outcome::Committed(Lsn(32))));
    });
}

/// The request of a commit hangs, and has its effect when the number has been used and let go of.
#[test]
fn a_put_that_arrives_late_is_not_acknowledged_and_its_object_goes() {
    with_bugs(&[Planted::NoCheckAfter, Planted::LateHadNoEffect], || async {
        let Two { store, ways, sleeper, other } = two(options()).await;
        ways[0].puts.lock().unwrap().push_back((seconds(1_200), Duration::ZERO));
        let commits = [put("a", "1")];
        let late = sleeper.commit(Lsn(1), 99, &commits);
        let (answer, ()) = futures::join!(late, let_go(&other));
        assert!(matches!(answer, Err(JournalError::Unknown(_))), "{answer:?}");
        assert!(has_entry(&store, 2).await, "the useless object");
        // It asks again, and is told that the entries are gone that would tell.
        let answer = sleeper.commit(Lsn(1), 99, &commits).await;
        assert!(matches!(answer, Err(JournalError::Reload(_))), "{answer:?}");
        assert_eq!(other.history(Lsn(30), 1).await.unwrap()[0].attempt, 1_030);
        let_go(&other).await;
        assert!(!has_entry(&store, 2).await, "the next sweep deletes it");
        sleeper.load().await.unwrap();
        assert_eq!(sleeper.lsn(), Lsn(61));
    });
}

/// The answer of a commit hangs. The entry was the next one, others built on it, and its bytes are needed.
#[test]
fn an_entry_whose_answer_is_late_keeps_its_bytes() {
    let bugs = [Planted::LateHadNoEffect, Planted::ForgetsAttachments, Planted::NoCheckAfter];
    with_bugs(&bugs, || async {
        let Two { store, ways, sleeper, other } = two(options()).await;
        ways[0].puts.lock().unwrap().push_back((Duration::ZERO, seconds(1_200)));
        let bytes = Bytes::from(vec![7; 100_000]);
        let (commits, attached) = ([put("a", "1")], [Attachment::of(vec![bytes.clone()])]);
        let late = sleeper.commit_with(Lsn(1), 99, &commits, &attached);
        let after = async {
            other.follow(Lsn(1)).await.unwrap();
            let_go(&other).await;
        };
        let (answer, ()) = futures::join!(late, after);
        assert!(matches!(answer, Err(JournalError::Unknown(_))), "{answer:?}");
        let answer = sleeper.commit_with(Lsn(1), 99, &commits, &attached).await;
        assert!(matches!(answer, Err(JournalError::Reload(_))), "{answer:?}");
        sleeper.load().await.unwrap();
        for journal in [&sleeper, &other] {
            assert_eq!(journal.attachments(), [Lsn(2)]);
            assert_eq!(journal.attached(Lsn(2), 0..100_000).await, Ok(bytes.clone()));
        }
        assert!(!has_entry(&store, 1).await && has_entry(&store, 2).await && !has_entry(&store, 3).await);
        sleeper.released(Lsn(2));
        other.released(Lsn(2));
        tokio::time::sleep(seconds(60)).await;
        assert!(!has_entry(&store, 2).await, "nothing needs it any more");
    });
}

/// Somebody's useless object lies where a broker that slept looks for the next entry.
#[test]
fn a_broker_that_slept_believes_nothing_that_it_reads() {
    with_bugs(&[Planted::ReadsUnchecked], || async {
        let Two { store, sleeper, other, .. } = two(options()).await;
        let position = sleeper.core.tail().position;
        let_go(&other).await;
        plant_entry(&store, &sleeper, (2, position.last.next(), position.link), 77).await;
        let answer = sleeper.follow(Lsn(1)).await;
        assert!(matches!(answer, Err(JournalError::Reload(_))), "{answer:?}");
        assert_eq!(sleeper.lsn(), Lsn(1));
    });
}

/// The same where a broker looks for old entries.
#[test]
fn old_entries_that_were_made_anew_are_not_read() {
    with_bugs(&[Planted::HistoryUnchecked], || async {
        let options = BucketOptions { image_entries: 1, ..options() };
        let Two { store, other, ways, sleeper } = two(options.clone()).await;
        commit_some(&other, 8).await;
        let before = other.core.tail().position;
        commit_some(&other, 1).await;
        other.forget(Lsn(9));
        tokio::time::sleep(seconds(60)).await;
        drop(sleeper);
        let sleeper = ways[0].open(options).await;
        sleeper.load().await.unwrap();
        let found = sleeper.history(Lsn(9), 1).await.unwrap();
        assert_eq!((found.len(), found[0].attempt), (1, 1_009));
        let_go(&other).await;
        plant_entry(&store, &sleeper, (10, before.last.next(), before.link), 77).await;
        let answer = sleeper.history(Lsn(9), 1).await;
        assert!(matches!(answer, Err(JournalError::Reload(_))), "{answer:?}");
    });
}

async fn plant_entry(
    store: &MemoryStore,
    journal: &BucketJournal,
    place: (u64, Lsn, super::group::Link),
    attempt: u128,
) {
    let (_, front) = encode(journal.id(), place, attempt, &[put("planted", "x")], &[]).unwrap();
    store.plant(&journal.core.names.entry(place.0), front);
}

/// A broker that is behind deletes nothing that it does not know: it has not read which bytes are needed.
#[test]
fn nobody_deletes_what_he_has_not_read() {
    with_bugs(&[Planted::SweepsAhead], || async {
        let Two { store, sleeper, other, .. } = two(options()).await;
        let bytes = Bytes::from_static(b"needed");
        let attached = [Attachment::of(vec![bytes.clone()])];
        let done = other.commit_with(Lsn(1), 5, &[put("a", "1")], &attached).await;
        assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(2))));
        let_go(&other).await;
        // It learns of the floor, and does not reload.
        let answer = sleeper.commit(Lsn(1), 99, &[put("a", "1")]).await;
        assert!(matches!(answer, Err(JournalError::Reload(_))), "{answer:?}");
        tokio::time::sleep(seconds(900)).await;
        assert!(has_entry(&store, 2).await);
        assert_eq!(other.attached(Lsn(2), 0..6).await, Ok(bytes));
    });
}

/// Looks at the bucket every second: what is missing was below a durable floor for the grace, was told to be kept
/// elsewhere, and is in two images that are whole.
#[test]
fn entries_go_only_when_all_that_must_be_is_durable() {
    let bugs =
        [Planted::NoFloor, Planted::NoGrace, Planted::ForgetsMore, Planted::OneImage, Planted::ImageUnread];
    with_bugs(&bugs, || async {
        let Two { store, ways, sleeper, other } = two(options()).await;
        drop(sleeper);
        let names = Names::below("journal").unwrap();
        let (mut told, mut floors, mut gone) = (0, Vec::new(), 0);
        let mut rounds = 0;
        while gone < 150 && rounds < 4_000 {
            rounds += 1;
            if rounds % 10 == 0 {
                // Half of the time, images are rotten from their first moment.
                *ways[1].rots.lock().unwrap() = rounds % 800 >= 400;
                commit_some(&other, 1).await;
                // Now and then less than the images would allow, and now and then more.
                told = told.max(other.lsn().0.saturating_sub(if rounds % 400 < 200 { 20 } else { 3 }));
                other.forget(Lsn(told));
            }
            tokio::time::sleep(seconds(1)).await;
            for key in keys(&store, "floors").await {
                let floor = floor_of(&format!("/{key}")).unwrap();
                if floors.iter().all(|(known, _)| *known != floor) {
                    floors.push((floor, rounds));
                    let whole = whole_images(&store, &names, other.id(), floor.number - 1).await;
                    assert!(whole >= 2, "{whole} images below floor {}", floor.number);
                    assert!(floor.first.0 <= told + 1, "{} of {told}", floor.first);
                }
            }
            let entries = keys(&store, "entries").await;
            gone = (1..=other.lsn().0).find(|n| entries.contains(&format!("{n:016x}"))).unwrap() - 1;
            let old = |seen: u64| rounds - seen + 60 >= 600;
            assert!(
                gone == 0 || floors.iter().any(|(floor, seen)| floor.number > gone && old(*seen)),
                "{gone} entries are gone in round {rounds}, floors {floors:?}"
            );
        }
        assert!(gone >= 150, "{gone} entries are gone");
        // Nothing is left of what newer ones replace.
        *ways[1].rots.lock().unwrap() = false;
        commit_some(&other, 16).await;
        let (floors, images) = (keys(&store, "floors").await.len(), keys(&store, "images").await.len());
        assert!(floors <= 2 && images <= 3, "{floors} floors, {images} images");
    });
}

async fn whole_images(store: &MemoryStore, names: &Names, journal: u128, from: u64) -> usize {
    let mut whole = 0;
    for key in keys(store, "images").await {
        let image = image_of(&format!("/{key}")).unwrap();
        let bytes = store.get(&names.image(image), None).await.unwrap();
        let manifest = Manifest::decode(journal, &bytes).unwrap();
        let mut sound = image.number >= from;
        for (index, part) in (0..).zip(&manifest.parts) {
            let body = store.get(&names.part(image, index), None).await.unwrap_or_default();
            sound &= decode_part(image, index, part, &body).is_ok();
        }
        whole += usize::from(sound);
    }
    whole
}

/// An entry that does not follow the one before is refused, with what to do. So is a damaged one; none is skipped or
/// overwritten.
#[test]
fn damage_is_refused_and_never_skipped() {
    with_bugs(&[Planted::NoChain, Planted::SkipsDamage], || async {
        let Two { store, sleeper, other, ways } = two(options()).await;
        let position = sleeper.core.tail().position;
        let place = (2, position.last.next(), super::group::Link { attempt: 1, crc: 2 });
        let link = position.link;
        for (place, damage, what) in [
            (place, None, "does not follow"),
            ((2, Lsn(9), link), None, "does not follow"),
            ((2, Lsn(2), link), Some(5), "begin"),
            ((2, Lsn(2), link), Some(40), "checksum"),
            ((2, Lsn(2), link), Some(130), "checksum"),
        ] {
            plant_entry(&store, &sleeper, place, 77).await;
            let key = sleeper.core.names.entry(2);
            let mut bytes = store.get(&key, None).await.unwrap().to_vec();
            if let Some(at) = damage {
                bytes[at] ^= 1;
            }
            store.plant(&key, bytes.clone().into());
            let answer = other.commit(Lsn(1), 99, &[put("a", "1")]).await;
            assert!(is_refused(&answer, what), "{answer:?} for {what}");
            let answer = other.load().await.map(|loaded| loaded.entries.len());
            assert!(is_refused(&answer, what), "{answer:?} for {what}");
            let fresh = ways[0].open(options()).await;
            let answer = fresh.history(Lsn(0), 1).await;
            assert!(is_refused(&answer, what), "{answer:?} for {what}");
            assert_eq!(store.get(&key, None).await.unwrap(), bytes, "it is as it was");
        }
    });
}

fn is_refused<T>(answer: &Result<T, JournalError>, what: &str) -> bool {
    matches!(answer, Err(JournalError::NotApplied(reason)) if reason.contains(what) && reason.contains("Put the"))
}

/// The images that a slow load has listed are gone before it reads them, again and again. They were let go of, and are
/// not damaged: the load says so, or gets through when there are fewer new ones.
#[test]
fn a_load_that_is_slower_than_the_images_calls_none_damaged() {
    with_bugs(&[Planted::ImagesListedOnce], || async {
        let (env, store) = (Env::simulated(1), MemoryStore::new());
        let (fast, slow) = (Way::new(&env, &store), Way::new(&env, &store));
        let hasty =
            BucketOptions { grace: seconds(5), trust: seconds(1), keeper_look: seconds(1), ..options() };
        let writer = fast.open(hasty.clone()).await;
        commit_some(&writer, 20).await;
        let reader = slow.open(hasty).await;
        *lock(&slow.weather) = Weather { slow: 1_000, slowest: seconds(60), ..Weather::default() };
        let loading = env.spawn("load", async move { (reader.load().await.map(drop), reader) });
        for _ in 0..400 {
            let last = commit_some(&writer, 4).await;
            writer.forget(Lsn(last.0 - 2));
        }
        let (loaded, reader) = loading.await.unwrap();
        if let Err(JournalError::NotApplied(reason)) = &loaded {
            assert!(reason.contains("faster than they can be read"), "{reason}");
        }
        *lock(&slow.weather) = Weather::default();
        let found = reader.load().await.unwrap();
        let last = found.entries.last().map_or(found.image_lsn, |entry| entry.lsn);
        assert_eq!(last, writer.lsn());
    });
}

/// An entry in the middle is gone, which nothing but a hand can do.
#[test]
fn a_missing_entry_is_refused() {
    simulate(async {
        let Two { store, other, ways, .. } = two(BucketOptions { image_entries: 100, ..options() }).await;
        commit_some(&other, 9).await;
        store.remove(&other.core.names.entry(5));
        let fresh = ways[0].open(options()).await;
        let answer = fresh.load().await;
        assert!(is_refused(&answer, "entries behind it are there"), "{answer:?}");
        let answer = fresh.commit(Lsn(4), 99, &[put("a", "1")]).await;
        assert!(is_refused(&answer, "entries behind it are there"), "{answer:?}");
    });
}

/// Each byte of an attachment is covered, and each answer says what the store said.
#[test]
fn outcomes_and_bytes_are_what_the_store_said() {
    with_bugs(&[Planted::Unsummed, Planted::UnknownIsNotApplied], || async {
        let Two { store, sleeper, ways, .. } = two(options()).await;
        let bytes: Bytes = (0..150_000_u32).map(|at| (at / 7) as u8).collect::<Vec<_>>().into();
        let attached = [Attachment::of(vec![bytes.slice(..9), bytes.slice(9..)])];
        let done = sleeper.commit_with(Lsn(1), 1, &[put("a", "1")], &attached).await;
        let Ok(Carried { outcome: Outcome::Committed(Lsn(2)), held }) = done else { panic!("{done:?}") };
        assert_eq!(held, std::slice::from_ref(&bytes));
        let key = sleeper.core.names.entry(2);
        let object = store.get(&key, None).await.unwrap().to_vec();
        for at in [0, 65_535, 65_536, 131_072, 149_999_usize] {
            let mut rotten = object.clone();
            let offset = rotten.len() - bytes.len();
            rotten[offset + at] ^= 4;
            store.plant(&key, rotten.into());
            let around = at as u64..at as u64 + 1;
            let answer = sleeper.attached(Lsn(2), around).await;
            assert!(matches!(answer, Err(AttachedError::Damaged { lsn: Lsn(2), .. })), "{answer:?} at {at}");
            // The other blocks are as good as before.
            let far = (at as u64 + 70_000) % 150_000;
            assert_eq!(
                sleeper.attached(Lsn(2), far..far + 1).await,
                Ok(bytes.slice(far as usize..far as usize + 1))
            );
        }
        store.plant(&key, object[..object.len() - 1].to_vec().into());
        let answer = sleeper.attached(Lsn(2), 149_000..150_000).await;
        assert!(matches!(answer, Err(AttachedError::Damaged { .. })), "{answer:?}");
        ways[0].weather.lock().unwrap().lost = 1_000;
        let answer = sleeper.commit(Lsn(2), 2, &[put("a", "2")]).await;
        assert!(matches!(answer, Err(JournalError::Unknown(_))), "{answer:?}");
        *ways[0].weather.lock().unwrap() = Weather { refused: 1_000, ..Weather::default() };
        let answer = sleeper.commit(Lsn(2), 2, &[put("a", "2")]).await;
        assert!(matches!(answer, Err(JournalError::NotApplied(_))), "{answer:?}");
    });
}
