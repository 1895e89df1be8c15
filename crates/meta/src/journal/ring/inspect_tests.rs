use std::sync::Arc;

use bytes::Bytes;
use floe_env::{Env, SimulatedDisk};
use futures::FutureExt as _;

use super::*;
use crate::journal::ring::{RingJournal, RingOptions};
use crate::journal::{Attachment, Change, Commit, Envelope, Journal};

const OPTIONS: RingOptions = RingOptions {
    first_bytes: 8 * 4096,
    file_bytes: 16 * 4096,
    bytes_max: Some(160 * 4096),
    image_bytes: 2_000,
    history_bytes: 3_000,
};

fn simulate<T>(run: impl FnOnce(&Env) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(async { run(&Env::simulated(1)) })
}

/// Commits with bytes, of which most are released.
fn commit(env: &Env, journal: &RingJournal, count: u64) {
    for _ in 0..count {
        let last = journal.lsn();
        let change =
            Change { key: format!("key {}", last.0 % 9).into(), value: Some(format!("value {last}").into()) };
        let group = [Commit { envelope: Envelope::broker("test"), changes: vec![change] }];
        let bytes = [Attachment::of(vec![Bytes::from(vec![last.next().0 as u8; 3_000])])];
        let done = journal.commit_with(last, env.random_u128(), &group, &bytes);
        done.now_or_never().expect("it does not wait").unwrap();
        journal.released(Lsn(last.0.saturating_sub(5)));
    }
}

/// A ring of 60 commits that was closed.
fn closed(env: &Env, forget: u64) -> (SimulatedDisk, Inspected) {
    let disk = SimulatedDisk::new(1);
    let journal = RingJournal::open_on(env, Arc::new(disk.clone()), OPTIONS).unwrap();
    journal.forget(Lsn(forget));
    commit(env, &journal, 60);
    drop(journal);
    let found = inspect(&disk).unwrap();
    assert!(is_whole(&found) && found.notes.is_empty(), "{found:?}");
    assert_eq!((found.last, found.snapshot.len()), (Lsn(60), 9));
    (disk, found)
}

fn is_whole(found: &Inspected) -> bool {
    let Inspected { journal, history, image, damaged, .. } = found;
    journal.is_empty() && history.is_empty() && image.is_empty() && damaged.is_empty()
}

fn of(disk: &SimulatedDisk, directory: &str) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with(directory)).collect()
}

/// Whatever a start finds, a look finds, and it says of every changed byte that matters where it is.
#[test]
fn every_changed_byte_of_a_closed_ring_is_told() {
    simulate(|env| {
        for forget in [0, 30] {
            let (disk, expected) = closed(env, forget);
            let (calls, mut told, mut harmless) = (disk.calls(), 0, 0);
            for name in disk.names() {
                let sound = disk.contents(&name);
                let used = sound.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                for at in (0..used).filter(|at| sound[*at] != 0 || at % 97 == 0).step_by(101) {
                    let copy = disk.copied(at as u64);
                    copy.spoil(&name, at, &[sound[at] ^ 0x11]);
                    let Ok(found) = inspect(&copy) else {
                        told += 1;
                        continue;
                    };
                    if is_whole(&found) && found.notes.is_empty() {
                        assert!(found.snapshot.pairs().eq(expected.snapshot.pairs()), "{name} at {at}");
                        harmless += 1;
                    } else {
                        let texts = [&found.journal, &found.history, &found.image, &found.notes];
                        let places = found.damaged.iter().map(|one| &one.place);
                        let text = texts.into_iter().flatten().chain(places).cloned().collect::<String>();
                        assert!(text.contains(&name) || text.contains("ring/"), "{name} at {at}: {text}");
                        told += 1;
                    }
                    let opened = RingJournal::open_on(env, Arc::new(copy.copied(1)), OPTIONS);
                    assert_eq!(opened.is_err(), !found.journal.is_empty(), "{name} at {at}: {found:?}");
                }
            }
            assert!(told > 40 && harmless > 2, "{told} told, {harmless} harmless");
            assert_eq!(disk.calls(), calls, "nothing was changed");
        }
    });
}

/// The bytes of an attachment rot: its commit, the file and the bytes are named.
#[test]
fn damaged_attachments_are_named() {
    simulate(|env| {
        let (disk, expected) = closed(env, 0);
        let (lsn, bytes) = expected.attachments.last_key_value().unwrap();
        assert_eq!((*lsn, *bytes), (Lsn(60), 3_000));
        let filled = vec![60_u8; 3_000];
        let place = of(&disk, "ring/").into_iter().find_map(|name| {
            let at = disk.contents(&name).windows(3_000).position(|bytes| bytes == filled)?;
            Some((name, at))
        });
        let (name, at) = place.unwrap();
        disk.spoil(&name, at + 7, b"x");
        let found = inspect(&disk).unwrap();
        let place = format!("bytes {at}..{} of {name}", at + 3_000);
        assert_eq!(found.damaged, [DamagedAttachment { lsn: Lsn(60), place }]);
        assert_eq!((found.last, found.attachments), (Lsn(60), expected.attachments));
    });
}

/// A frame that was cut off is no damage.
#[test]
fn a_torn_end_is_told_from_damage() {
    simulate(|env| {
        let (disk, _) = closed(env, 0);
        let journal = RingJournal::open_on(env, Arc::new(disk.clone()), OPTIONS).unwrap();
        commit(env, &journal, 1);
        disk.end_now();
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(journal)));
        drop(stopped);
        disk.restart();
        let filled = vec![61_u8; 3_000];
        for name in of(&disk, "ring/") {
            if let Some(at) = disk.contents(&name).windows(3_000).position(|bytes| bytes == filled) {
                disk.spoil(&name, at + 2_999, b"x");
            }
        }
        let found = inspect(&disk).unwrap();
        assert!(is_whole(&found) && found.last == Lsn(60), "{found:?}");
        assert!(found.notes[0].contains("never acknowledged"), "{:?}", found.notes);
    });
}

/// An image that can be read, and is not what the commits make, is found and set aside.
#[test]
fn an_image_of_something_else_is_found_and_set_aside() {
    simulate(|env| {
        let (disk, expected) = closed(env, 0);
        // An image of other values under the name and at the place of the newest one.
        let name = of(&disk, "image/").pop().unwrap();
        let newest = PagesFile::open(&disk, &name).unwrap();
        let (pairs, kept) = read_image(&newest).unwrap();
        let file = name.strip_prefix("image/").unwrap();
        let mut sink =
            crate::journal::ring::store::PagesSink::begin(&disk, "image", file, &newest.header, &|| ())
                .unwrap();
        for (key, value) in &pairs {
            let value = if key == "key 3" { Bytes::from_static(b"invented") } else { value.clone() };
            sink.writer().unwrap().pair(key, &value);
        }
        kept.iter().for_each(|kept| sink.writer().unwrap().attachment(kept));
        sink.finish(false).unwrap();
        let found = inspect(&disk).unwrap();
        assert!(found.journal.is_empty() && found.image[0].contains(&name), "{found:?}");
        let aside = set_image_aside(&disk, &disk).unwrap();
        assert!(aside.starts_with("image/damaged-"), "{aside}");
        let found = inspect(&disk).unwrap();
        assert!(is_whole(&found) && found.snapshot.pairs().eq(expected.snapshot.pairs()), "{found:?}");
        assert!(set_image_aside(&disk, &disk).is_err(), "the last one stays");
        RingJournal::open_on(env, Arc::new(disk), OPTIONS).unwrap();
    });
}
