//! The part of the contract that is about attachments. A journal that carries none must say so and refuse them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, lock};

use super::entries::*;
use crate::*;

/// Runs every case that fits what the journal carries.
pub(super) async fn run(env: &Env, fresh: &impl Fn() -> Box<dyn Place>) {
    if fresh().open().carries() == 0 {
        return carries_none(&*fresh()).await;
    }
    read_back(&*fresh()).await;
    never_of_a_refused_group(&*fresh()).await;
    sent_again(&*fresh()).await;
    bounds(&*fresh()).await;
    dropped_in_the_middle(&*fresh()).await;
    released_among_others(env, &*fresh()).await;
    stored_before_it_is_seen(env, &*fresh()).await;
    faults_on_the_way(env, &*fresh()).await;
}

/// Bytes that nothing else has: those of `seed`.
fn bytes(seed: u64, length: usize) -> Bytes {
    (0..length as u64)
        .map(|at| (at.wrapping_mul(seed * 2 + 7) >> 3) as u8 ^ seed as u8)
        .collect::<Vec<u8>>()
        .into()
}

/// An attachment in three pieces.
fn attach(commit: u32, bytes: &Bytes) -> Attachment {
    let (one, two) = (bytes.len() / 3, bytes.len() / 2);
    let pieces = vec![bytes.slice(..one), bytes.slice(one..two), bytes.slice(two..)];
    Attachment { commit, ..Attachment::of(pieces) }
}

async fn whole(journal: &dyn Journal, lsn: u64, bytes: &Bytes) -> bool {
    journal.attached(Lsn(lsn), 0..bytes.len() as u64).await.as_ref() == Ok(bytes)
}

async fn has_none(journal: &dyn Journal, lsn: u64) -> bool {
    journal.attached(Lsn(lsn), 0..1).await == Err(AttachedError::None(Lsn(lsn)))
}

async fn carries_none(place: &dyn Place) {
    let journal = place.open();
    let group = [put("a", "1")];
    let refused = journal.commit_with(Lsn(0), 1, &group, &[attach(0, &bytes(1, 1))]).await;
    assert!(matches!(refused, Err(JournalError::NotApplied(_))), "{refused:?}");
    assert_eq!(load(&*journal).await.0, Lsn(0));
    let committed = journal.commit_with(Lsn(0), 2, &group, &[]).await;
    assert_eq!(committed, Ok(Carried::of(Outcome::Committed(Lsn(1)))));
    assert!(has_none(&*journal, 1).await);
    assert_eq!(journal.attachments(), []);
    journal.released(Lsn(1));
}

/// Attachments are readable when the commit is answered and after every reopening, in all ranges.
async fn read_back(place: &dyn Place) {
    let mut journal = place.open();
    let (one, two, empty) = (bytes(1, 10_000), bytes(2, 4_096), Bytes::new());
    let group = [put("a", "1"), put("b", "2"), put("c", "3"), remove("a")];
    let attachments = [attach(0, &one), attach(2, &two), attach(3, &empty)];
    let done = journal.commit_with(Lsn(0), 1, &group, &attachments).await.expect("it is taken");
    assert_eq!(done.outcome, Outcome::Committed(Lsn(4)));
    assert!(
        done.held.is_empty() || done.held == [one.clone(), two.clone(), empty.clone()],
        "what is held is right"
    );
    for round in 0..3 {
        assert!(whole(&*journal, 1, &one).await && whole(&*journal, 3, &two).await);
        assert!(whole(&*journal, 4, &empty).await);
        for range in [0..0, 0..1, 1..4_097, 4_095..4_096, 9_999..10_000, 10_000..10_000] {
            let expected = one.slice(range.start..range.end);
            let range = range.start as u64..range.end as u64;
            assert_eq!(journal.attached(Lsn(1), range.clone()).await, Ok(expected), "{range:?}");
        }
        let backwards = Range { start: 5, end: 4 };
        for range in [0..10_001, 10_001..10_001, backwards, u64::MAX..u64::MAX, 0..u64::MAX] {
            let refused = journal.attached(Lsn(1), range.clone()).await;
            assert_eq!(refused, Err(AttachedError::Range { lsn: Lsn(1), bytes: 10_000, range }));
        }
        assert!(has_none(&*journal, 2).await && has_none(&*journal, 0).await && has_none(&*journal, 9).await);
        assert_eq!(journal.attachments(), [Lsn(1), Lsn(3), Lsn(4)], "round {round}");
        assert_eq!(history(&*journal, 0, 9).await, entries(1, 1, &group));
        journal = reopen(place, journal).await;
    }
    assert_eq!(load(&*journal).await, (Lsn(4), words(&[("b", "2"), ("c", "3")])));
}

/// The bytes of a group that met a conflict, or was not applied, can never be read.
async fn never_of_a_refused_group(place: &dyn Place) {
    let mut journal = place.open();
    let (ours, theirs) = (bytes(1, 5_000), bytes(2, 5_000));
    let (one, two) = ([put("a", "1")], [put("a", "2"), put("b", "2")]);
    let done = journal.commit_with(Lsn(0), 1, &one, &[attach(0, &theirs)]).await;
    assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(1))));
    let refused = journal.commit_with(Lsn(0), 2, &two, &[attach(0, &ours), attach(1, &ours)]).await;
    assert_eq!(refused, Ok(Carried::of(Outcome::Conflict(entries(1, 1, &one)))));
    let ahead = journal.commit_with(Lsn(2), 3, &two, &[attach(0, &ours)]).await;
    assert!(matches!(ahead, Err(JournalError::NotApplied(_))), "{ahead:?}");
    // Its memory changed between its maker and the journal.
    let changed = Attachment { crc: 7, ..attach(0, &ours) };
    let changed = journal.commit_with(Lsn(1), 4, &two, &[changed]).await;
    assert!(matches!(changed, Err(JournalError::NotApplied(_))), "{changed:?}");
    for _ in 0..2 {
        assert!(whole(&*journal, 1, &theirs).await);
        assert!(has_none(&*journal, 2).await && has_none(&*journal, 3).await && has_none(&*journal, 4).await);
        assert_eq!(load(&*journal).await, (Lsn(1), words(&[("a", "1")])));
        journal = reopen(place, journal).await;
    }
    let done = journal.commit_with(Lsn(1), 2, &two, &[attach(1, &ours)]).await;
    assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(3))));
    assert!(has_none(&*journal, 2).await && whole(&*journal, 3, &ours).await);
}

/// The answer is lost, and the same attempt is sent again with the same bytes.
async fn sent_again(place: &dyn Place) {
    let mut journal = place.open();
    let (ours, theirs) = (bytes(1, 9_000), bytes(2, 20));
    let (one, two) = ([put("a", "1"), put("b", "1")], [put("a", "2")]);
    let attachments = [attach(1, &ours)];
    let done = journal.commit_with(Lsn(0), 7, &one, &attachments).await;
    assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(2))));
    for _ in 0..2 {
        let again = journal.commit_with(Lsn(0), 7, &one, &attachments).await;
        assert_eq!(again, Ok(Carried::of(Outcome::Conflict(entries(1, 7, &one)))));
        journal = reopen(place, journal).await;
    }
    let done = journal.commit_with(Lsn(2), 8, &two, &[attach(0, &theirs)]).await;
    assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(3))));
    let again = journal.commit_with(Lsn(0), 7, &one, &attachments).await;
    assert_eq!(
        again.map(|done| done.outcome),
        Ok(Outcome::Conflict([entries(1, 7, &one), entries(3, 8, &two)].concat()))
    );
    assert!(whole(&*journal, 2, &ours).await && whole(&*journal, 3, &theirs).await);
    assert_eq!(journal.attachments(), [Lsn(2), Lsn(3)]);
}

/// As much as the journal carries is taken, also for each of many commits; one byte more is not.
async fn bounds(place: &dyn Place) {
    let journal = place.open();
    let most = usize::try_from(journal.carries()).expect("it fits into memory");
    let (half, rest) = (bytes(1, most / 2), bytes(2, most - most / 2));
    let group = [put("a", "1"), put("b", "1")];
    let over = bytes(3, most - most / 2 + 1);
    let refused = journal.commit_with(Lsn(0), 1, &group, &[attach(0, &half), attach(1, &over)]).await;
    assert!(matches!(refused, Err(JournalError::NotApplied(_))), "{refused:?}");
    assert_eq!((load(&*journal).await.0, journal.attachments()), (Lsn(0), vec![]));
    let done = journal.commit_with(Lsn(0), 2, &group, &[attach(0, &half), attach(1, &rest)]).await;
    assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(2))));
    let group: Vec<Commit> = (0..500).map(|i| put(&format!("key {i}"), "x")).collect();
    let small: Vec<Bytes> = (0..500).map(|i| bytes(i, (i % 5) as usize)).collect();
    let attachments: Vec<Attachment> = (0..500).map(|i| attach(i, &small[i as usize])).collect();
    let done = journal.commit_with(Lsn(2), 3, &group, &attachments).await;
    assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(502))));
    let journal = reopen(place, journal).await;
    assert!(whole(&*journal, 1, &half).await && whole(&*journal, 2, &rest).await);
    for (lsn, small) in (3..).zip(&small) {
        assert!(whole(&*journal, lsn, small).await, "{lsn}");
    }
}

/// A committer gives up after one poll, and the journal is opened again: the bytes are there if and only if the commit
/// is.
async fn dropped_in_the_middle(place: &dyn Place) {
    let mut expected = Lsn(0);
    for round in 0..10_u64 {
        let journal = place.open();
        let commits = [put("a", "1"), put(&format!("{round}"), "2")];
        let bytes = bytes(round, 3_000);
        let attachments = [attach(1, &bytes)];
        let mut call = journal.commit_with(expected, round.into(), &commits, &attachments);
        let polled = futures::poll!(call.as_mut());
        assert!(!matches!(polled, std::task::Poll::Ready(Err(_))), "{polled:?}");
        drop(call);
        let journal = reopen(place, journal).await;
        let last = load(&*journal).await.0;
        assert!(last == expected || last == expected.plus(2), "half a group: {last} after {expected}");
        if last == expected {
            assert!(has_none(&*journal, last.0 + 2).await, "bytes without their commit");
            let done = journal.commit_with(expected, round.into(), &commits, &attachments).await;
            assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(expected.plus(2))));
        }
        expected = expected.plus(2);
        assert!(whole(&*journal, expected.0, &bytes).await, "a commit without its bytes");
    }
}

/// A long run, in which most attachments are released. What was not is there after every restart.
async fn released_among_others(env: &Env, place: &dyn Place) {
    const GROUPS: u64 = 300;
    let mut kept = BTreeMap::new();
    let mut journal = place.open();
    let largest = (journal.carries() / 8).min(20_000);
    let (mut last, mut map) = (0, BTreeMap::new());
    for round in 0..3 {
        for group in round * GROUPS..(round + 1) * GROUPS {
            let commits =
                [churn(&mut map, env.random_u64(), last + 1), churn(&mut map, env.random_u64(), last + 2)];
            let bytes = bytes(group, (env.random_u64() % largest) as usize);
            let done = journal.commit_with(Lsn(last), group.into(), &commits, &[attach(1, &bytes)]).await;
            assert_eq!(done.map(|done| done.outcome), Ok(Outcome::Committed(Lsn(last + 2))));
            last += 2;
            kept.insert(last, bytes);
            // What is released stays among the newest, with a few that stay for long.
            let old = kept.keys().copied().find(|lsn| lsn + 20 < last && lsn % 64 != 0);
            if let Some(old) = old {
                kept.remove(&old);
                journal.released(Lsn(old));
                journal.released(Lsn(old));
                assert!(!journal.attachments().contains(&Lsn(old)), "a released attachment is not listed");
            }
        }
        tokio::time::sleep(Duration::from_millis(100 * round)).await;
        journal = reopen(place, journal).await;
        assert!(load(&*journal).await == (Lsn(last), map.clone()));
        assert_eq!(
            history(&*journal, 1, 2).await.iter().map(|entry| entry.lsn.0).collect::<Vec<_>>(),
            [2, 3]
        );
        let listed: Vec<u64> = journal.attachments().iter().map(|lsn| lsn.0).collect();
        assert!(kept.keys().all(|lsn| listed.contains(lsn)), "what is kept is listed");
        // The hint may be forgotten, so the caller repeats it.
        listed.iter().filter(|lsn| !kept.contains_key(lsn)).for_each(|lsn| journal.released(Lsn(*lsn)));
        for (lsn, bytes) in &kept {
            assert!(whole(&*journal, *lsn, bytes).await, "{lsn} in round {round}");
        }
    }
}

/// Through a broker: the bytes are durable before the map shows their commit. A command without a commit keeps none.
async fn stored_before_it_is_seen(env: &Env, place: &dyn Place) {
    let journal = place.open();
    let meta = open_meta(env, journal.clone()).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, told_before) = (seen.clone(), told.clone());
    meta.observe(move |applied| lock(&log).push((applied.lsn, lock(&told_before).len())));
    let mut asked = Vec::new();
    for number in 0..6_u64 {
        let (bytes, told) = (bytes(number, 100), told.clone());
        let held = bytes.clone();
        let stored = move |lsn, found: Option<Bytes>| {
            assert!(found.is_none_or(|found| found == held), "what is held is what was brought");
            lock(&told).push(lsn);
        };
        let refuses = number % 3 == 1;
        let command = move |tx: &mut Tx<'_>| if refuses { Err(DecodeError::Truncated) } else { add(tx) };
        asked.push(meta.commit_attached(envelope(0), Attachment::of(vec![bytes]), stored, command));
    }
    let answers = futures::future::join_all(asked).await;
    let lsns: Vec<Lsn> = answers.iter().flatten().map(|done| done.lsn).collect();
    assert_eq!(lsns, [Lsn(1), Lsn(2), Lsn(3), Lsn(4)]);
    assert_eq!(*lock(&told), lsns);
    for (lsn, told) in &*lock(&seen) {
        assert!(*told as u64 >= lsn.0, "commit {lsn} was seen before its bytes were there");
    }
    for (lsn, number) in [(1, 0), (2, 2), (3, 3), (4, 5)] {
        assert_eq!(meta.attached(Lsn(lsn), 0..100).await, Ok(bytes(number, 100)));
    }
    assert_eq!(meta.attachments(), lsns);
    let large = Attachment { bytes: meta.carries() + 1, pieces: Vec::new(), crc: 0, commit: 0 };
    let refused =
        meta.commit_attached(envelope(0), large, |_, _| (), add).await.expect_err("it is too large");
    assert!(matches!(refused, CommitError::NotApplied(_)), "{refused}");
    meta.released(Lsn(1));
    assert_eq!(meta.attachments(), lsns[1..]);
}

/// Calls and answers are lost and doubled, with bytes: each command's bytes are at its commit.
async fn faults_on_the_way(env: &Env, place: &dyn Place) {
    use Fault::*;
    let journal = place.open();
    let faults = [LostAnswer, LostCall, Twice, Silence, LostCall, LostAnswer, Fine, Twice];
    let faulty = Arc::new(Faulty { journal: journal.clone(), faults: Mutex::new(faults.into()) });
    let (meta, other) = (open_meta(env, faulty).await, open_meta(env, journal.clone()).await);
    let mut expected = BTreeMap::new();
    for round in 0..8_u64 {
        if round % 3 == 1 {
            other.commit(envelope(0), add).await.expect("the other broker has no faults");
        }
        let asked: Vec<_> = (0..3)
            .map(|i| {
                let attachment = Attachment::of(vec![bytes(round * 3 + i, 500)]);
                meta.commit_attached(envelope(0), attachment, |_, _| (), add)
            })
            .collect();
        for (i, answer) in (0..).zip(asked) {
            let done = answer.await.expect("every fault is resolved");
            expected.insert(done.lsn.0, bytes(round * 3 + i, 500));
        }
    }
    assert_eq!(expected.len(), 24);
    for (lsn, bytes) in &expected {
        assert!(whole(&*journal, *lsn, bytes).await, "{lsn}");
    }
    let listed: Vec<u64> = journal.attachments().iter().map(|lsn| lsn.0).collect();
    assert!(listed.iter().eq(expected.keys()));
}
