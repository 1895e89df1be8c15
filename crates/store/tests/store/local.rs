//! The local store on a real disk.

use std::path::Path;

use bytes::Bytes;
use floe_env::Env;
use floe_store::local::{
    LocalStore, {OpenError, Options},
};
use floe_store::{PutIfAbsent, Store, StoreError};
use tempfile::TempDir;

const BLOCK: usize = 4096;

/// Packs of sixteen blocks, so that tests fill them.
fn small() -> Options {
    let pack_bytes = 16 * BLOCK as u64;
    Options { pack_bytes_first: pack_bytes, pack_bytes_max: pack_bytes, packs_ahead: 1, ..Options::default() }
}

async fn open(dir: &Path) -> LocalStore {
    LocalStore::open(Env::real(), dir, small()).await.expect("the store opens")
}

fn bytes(seed: usize, length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + seed) as u8).collect::<Vec<u8>>().into()
}

fn pack_files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir.join("packs"))
        .expect("packs")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("names are ascii"))
        .filter(|name| name.starts_with("pack-"))
        .collect();
    names.sort();
    names
}

/// The directory that a restart after a crash at this moment would find. It is a copy, because a directory has one
/// owner.
fn crashed(dir: &Path) -> TempDir {
    let copy = TempDir::new().expect("a temporary directory");
    copy_dir(dir, copy.path());
    copy
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                // The store gave a prepared pack its name meanwhile, or an empty one back. Neither has an object.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("copied")),
            }
        }
    }
}

#[tokio::test]
async fn objects_survive_a_restart_wherever_they_live() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    // Empty, small, unaligned, aligned, and too large for a pack.
    let sizes = [0, 1, 3583, 3584, 3585, 5000, 200_000];
    for (number, size) in sizes.into_iter().enumerate() {
        let whole = bytes(number, size);
        let cut = size / 3;
        store.put(&format!("wal/{number}"), vec![whole.slice(..cut), whole.slice(cut..)]).await.expect("put");
        store.put(&format!("tables/t/p=1/{number}.parquet"), vec![whole]).await.expect("put");
    }
    let url = store.url("tables/t/p=1/3.parquet");
    let path = url.strip_prefix("file://").expect("a local store has file urls");
    assert_eq!(std::fs::read(path).expect("other programs can read it"), bytes(3, 3584));
    assert_eq!(store.packed_keys().len(), sizes.len() - 1, "all but the largest are packed");

    let copy = crashed(dir.path());
    for store in [store, open(copy.path()).await] {
        for (number, size) in sizes.into_iter().enumerate() {
            let whole = bytes(number, size);
            for key in [format!("wal/{number}"), format!("tables/t/p=1/{number}.parquet")] {
                assert_eq!(store.size(&key).await, Ok(size as u64));
                assert_eq!(store.get(&key, None).await, Ok(whole.clone()), "{key}");
                let (from, to) = (size / 4, size - size / 4);
                assert_eq!(store.get(&key, Some(from as u64..to as u64)).await, Ok(whole.slice(from..to)));
                let beyond = store.get(&key, Some(0..size as u64 + 1)).await;
                assert!(matches!(beyond, Err(StoreError::Corrupt(_))), "{beyond:?}");
            }
        }
    }
}

/// A segment is a file of its own. What a crash left of one is gone, and its room with what is deleted.
#[tokio::test]
async fn segments_are_files_of_their_own_whatever_a_crash_leaves() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    let large = bytes(1, 9 << 20);
    store.put("segment/1/8000010000000001", vec![large.slice(..3), large.slice(3..)]).await.expect("put");
    store.put("segment/1/8000010000000002", vec![bytes(2, 100)]).await.expect("put");
    assert_eq!(store.packed_keys(), Vec::<String>::new());
    let before_name = dir.path().join("tmp/00000000000000aa");
    std::fs::write(&before_name, bytes(3, 5_000_000)).expect("as a crash before the name leaves it");
    let copy = crashed(dir.path());
    let again = open(copy.path()).await;
    assert_eq!(again.findings().len(), 0, "{:?}", again.findings());
    assert_eq!(std::fs::read_dir(copy.path().join("tmp")).expect("it stays").count(), 0);
    let listed = again.list("segment/1", "", 10).await.expect("listed");
    let lengths: Vec<u64> = listed.iter().map(|object| object.bytes).collect();
    assert_eq!(lengths, [9 << 20, 100]);
    let range = (4 << 20) - 7..(4 << 20) + 9;
    let part = again.get("segment/1/8000010000000001", Some(range.start as u64..range.end as u64)).await;
    assert_eq!(part.expect("read"), large.slice(range));
    again.delete("segment/1/8000010000000001").await.expect("deleted");
    assert!(!copy.path().join("segment/1/8000010000000001").exists(), "the file system has its room back");
}

#[tokio::test]
async fn deletions_are_durable_and_packs_are_used_again() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    store.put("wal/kept", vec![bytes(1, 100)]).await.expect("put");
    // Five times the capacity of the packs, but never more than a few objects at a time.
    for number in 0..100 {
        store.put(&format!("wal/{number}"), vec![bytes(number, 7000)]).await.expect("put");
        if number >= 3 {
            let old = format!("wal/{}", number - 3);
            store.delete(&old).await.expect("deleted");
            assert_eq!(store.get(&old, None).await, Err(StoreError::NotFound(old)));
        }
    }
    assert!(pack_files(dir.path()).len() <= 5, "{:?}", pack_files(dir.path()));
    store.put("tables/x", vec![bytes(1, 10)]).await.expect("put");
    store.delete("tables/x").await.expect("deleted");
    store.delete("tables/x").await.expect("deleted already");
    store.delete("never/was").await.expect("never was");

    let copy = crashed(dir.path());
    let store = open(copy.path()).await;
    assert_eq!(store.packed_keys(), ["wal/97", "wal/98", "wal/99", "wal/kept"]);
    assert_eq!(store.get("wal/99", None).await, Ok(bytes(99, 7000)));
    assert_eq!(store.get("wal/kept", None).await, Ok(bytes(1, 100)));
    assert_eq!(store.get("tables/x", None).await, Err(StoreError::NotFound("tables/x".into())));
}

/// A few packs are kept for their next use, and the others go back to the file system.
#[tokio::test]
async fn packs_that_nobody_needs_are_given_back() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    for number in 0..60 {
        store.put(&format!("wal/{number}"), vec![bytes(number, 7000)]).await.expect("put");
    }
    let before = pack_files(dir.path()).len();
    assert!(before >= 9, "{before} packs");
    for number in 1..60 {
        store.delete(&format!("wal/{number}")).await.expect("deleted");
    }
    // The pack in use, that of the first object, one that is prepared, and one that is kept.
    let mut patience = 200;
    while pack_files(dir.path()).len() > 4 {
        patience -= 1;
        assert!(patience > 0, "{:?}", pack_files(dir.path()));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(store.get("wal/0", None).await, Ok(bytes(0, 7000)));
    store.put("wal/new", vec![bytes(1, 7000)]).await.expect("put");
    let copy = crashed(dir.path());
    assert_eq!(open(copy.path()).await.packed_keys(), ["wal/0", "wal/new"]);
}

/// A pack in quarantine stays as it is when all that is known of it is deleted: it may hold more.
#[tokio::test]
async fn a_pack_in_quarantine_is_neither_given_back_nor_used_again() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    for number in 0..60 {
        store.put(&format!("wal/{number:02}"), vec![bytes(number, 7000)]).await.expect("put");
    }
    let copy = crashed(dir.path());
    let begins = |path: &std::path::PathBuf| {
        let file = std::fs::read(path).expect("readable");
        file[BLOCK + 52..BLOCK + 58] == *b"wal/00"
    };
    let paths = pack_files(copy.path()).into_iter().map(|name| copy.path().join("packs").join(name));
    let path = paths.into_iter().find(begins).expect("a pack has the first object");
    let mut file = std::fs::read(&path).expect("readable");
    file[BLOCK + 45] ^= 1;
    std::fs::write(&path, &file).expect("writable");
    let store = open(copy.path()).await;
    assert_eq!(store.findings().len(), 1, "{:?}", store.findings());
    let keys = store.packed_keys();
    assert_eq!(keys.len(), 59);
    for key in keys {
        store.delete(&key).await.expect("deleted");
    }
    // The pack in use, one that is prepared, one that is kept, and the one in quarantine.
    let mut patience = 200;
    while pack_files(copy.path()).len() > 4 {
        patience -= 1;
        assert!(patience > 0, "{:?}", pack_files(copy.path()));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for number in 0..60 {
        store.put(&format!("wal/new-{number}"), vec![bytes(number, 7000)]).await.expect("put");
    }
    drop(store);
    // With the byte put right, the object is there again.
    let mut file = std::fs::read(&path).expect("it is still there");
    file[BLOCK + 45] ^= 1;
    std::fs::write(&path, &file).expect("writable");
    let store = open(copy.path()).await;
    assert_eq!(store.get("wal/00", None).await, Ok(bytes(0, 7000)));
    assert_eq!(store.packed_keys().len(), 61);
}

#[tokio::test]
async fn writes_side_by_side_all_arrive() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    let keys: Vec<String> = (0..60).map(|number| format!("wal/{number:02}")).collect();
    let puts = keys.iter().enumerate().map(|(number, key)| store.put(key, vec![bytes(number, 7000)]));
    for put in futures::future::join_all(puts).await {
        put.expect("put");
    }
    let creations = (0..10).map(|writer| store.put_if_absent("catalog/1", vec![bytes(writer, 10)]));
    let created = futures::future::join_all(creations).await;
    assert_eq!(created.iter().filter(|outcome| **outcome == Ok(PutIfAbsent::Created)).count(), 1);
    assert_eq!(created.iter().filter(|outcome| **outcome == Ok(PutIfAbsent::Exists)).count(), 9);
    let copy = crashed(dir.path());
    for store in [store, open(copy.path()).await] {
        assert_eq!(store.packed_keys(), keys);
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(store.get(key, None).await, Ok(bytes(number, 7000)));
        }
    }
}

/// A crash may leave any part of the last write undone. Whichever byte of it is wrong, older objects stay, and the
/// torn object is gone or whole, never different.
#[tokio::test]
async fn a_torn_tail_is_never_read() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    store.put("wal/before", vec![bytes(1, 6000)]).await.expect("put");
    store.put("wal/torn", vec![bytes(2, 600)]).await.expect("put");
    store.put("wal/after", vec![bytes(3, 50)]).await.expect("put");
    let region = 3 * BLOCK; // pack header, two blocks of the first object
    let name = pack_files(dir.path()).into_iter().find(|name| {
        let file = std::fs::read(dir.path().join("packs").join(name)).expect("readable");
        file[region..region + 8] == *b"FLOEREGN"
    });
    let name = name.expect("one pack is in use");
    let mut outcomes = [0, 0];
    // The used part of the header, some of its filling, and the whole payload.
    for at in (0..70).chain([400, 511]).chain((512..1112).step_by(7)).chain([1111]) {
        let copy = crashed(dir.path());
        let path = copy.path().join("packs").join(&name);
        let mut file = std::fs::read(&path).expect("readable");
        file[region + at] ^= 0x10;
        std::fs::write(&path, &file).expect("writable");
        let reopened = open(copy.path()).await;
        let path = path.canonicalize().expect("a path");
        assert_eq!(reopened.get("wal/before", None).await, Ok(bytes(1, 6000)), "byte {at}");
        assert_eq!(reopened.get("wal/after", None).await, Ok(bytes(3, 50)), "byte {at}");
        let torn = reopened.get("wal/torn", None).await;
        match at < 512 {
            true => assert_eq!(torn, Err(StoreError::NotFound("wal/torn".into())), "byte {at}"),
            // Whether a crash cut it short or it rotted later, the store cannot know.
            false => assert!(matches!(torn, Err(StoreError::Corrupt(_))), "byte {at}: {torn:?}"),
        }
        let findings = reopened.findings();
        assert!(findings.iter().all(|finding| finding.path == path) && findings.len() == 1, "{findings:?}");
        assert_eq!(findings[0].key.as_deref(), (at >= 512).then_some("wal/torn"), "byte {at}");
        reopened.put("wal/new", vec![bytes(4, 100)]).await.expect("put");
        assert_eq!(reopened.get("wal/after", None).await, Ok(bytes(3, 50)), "byte {at}");
        outcomes[0] += 1;
    }
    // Wrong filling harms nobody.
    let copy = crashed(dir.path());
    let path = copy.path().join("packs").join(&name);
    let mut file = std::fs::read(&path).expect("readable");
    file[region + 1112] ^= 0x10;
    std::fs::write(&path, &file).expect("writable");
    let reopened = open(copy.path()).await;
    assert_eq!(reopened.get("wal/torn", None).await, Ok(bytes(2, 600)));
    outcomes[1] += 1;
    assert!(outcomes[0] > 150 && outcomes[1] == 1, "every case was tried: {outcomes:?}");
}

/// Damage to an object acknowledged long ago is reported, not served.
#[tokio::test]
async fn damage_behind_the_tail_is_found_on_the_first_read() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    // Enough to fill several packs, so that the first one is settled.
    for number in 0..40 {
        store.put(&format!("wal/{number:02}"), vec![bytes(number, 7000)]).await.expect("put");
    }
    let copy = crashed(dir.path());
    let path =
        pack_files(copy.path()).into_iter().map(|name| copy.path().join("packs").join(name)).find(|path| {
            let file = std::fs::read(path).expect("readable");
            file[BLOCK + 52..BLOCK + 58] == *b"wal/00"
        });
    let path = path.expect("the first object is at the start of a pack");
    let mut file = std::fs::read(&path).expect("readable");
    file[BLOCK + 512 + 3000] ^= 1;
    std::fs::write(&path, &file).expect("writable");
    let store = open(copy.path()).await;
    let damaged = store.get("wal/00", Some(0..10)).await;
    assert!(matches!(&damaged, Err(StoreError::Corrupt(reason)) if reason.contains("wal/00")), "{damaged:?}");
    assert_eq!(store.get("wal/01", None).await, Ok(bytes(1, 7000)));
}

/// A pack with a destroyed header is neither overwritten nor skipped: its objects are found without it.
#[tokio::test]
async fn a_damaged_pack_header_does_not_lose_objects() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    store.put("wal/1", vec![bytes(1, 100)]).await.expect("put");
    for zeroed in [false, true] {
        let copy = crashed(dir.path());
        let used = |path: &std::path::PathBuf| std::fs::read(path).expect("readable")[0] != 0;
        let paths = pack_files(copy.path()).into_iter().map(|name| copy.path().join("packs").join(name));
        let path = paths.into_iter().find(used).expect("a pack is in use");
        let mut file = std::fs::read(&path).expect("readable");
        match zeroed {
            true => file[..BLOCK].fill(0),
            false => file[16] ^= 1,
        }
        std::fs::write(&path, &file).expect("writable");
        for round in 0..2 {
            let store = open(copy.path()).await;
            assert_eq!(store.findings().len(), 1, "{:?}", store.findings());
            assert_eq!(store.findings()[0].path.file_name(), path.file_name());
            assert_eq!(store.get("wal/1", None).await, Ok(bytes(1, 100)));
            for number in 0..20 {
                let key = format!("wal/{round}-{number}");
                store.put(&key, vec![bytes(number, 7000)]).await.expect("there are other packs");
            }
        }
        std::fs::remove_file(&path).expect("moved away");
        assert_eq!(open(copy.path()).await.packed_keys().len(), 40, "the others go on without it");
    }
}

/// A byte of an acknowledged object rots, and nobody decides from that alone that it was never acknowledged: with the
/// byte put right, the object is there again.
#[tokio::test]
async fn a_damaged_object_is_not_buried() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    store.put("wal/1", vec![bytes(1, 5000)]).await.expect("put");
    store.put("wal/2", vec![bytes(2, 5000)]).await.expect("put");
    let copy = crashed(dir.path());
    let used = |path: &std::path::PathBuf| std::fs::read(path).expect("readable")[0] != 0;
    let paths = pack_files(copy.path()).into_iter().map(|name| copy.path().join("packs").join(name));
    let path = paths.into_iter().find(used).expect("a pack is in use");
    let whole = std::fs::read(&path).expect("readable");
    // A byte of the last payload, and one of the last header.
    for at in [3 * BLOCK + 512 + 100, 3 * BLOCK + 45] {
        let flip = || {
            let mut file = std::fs::read(&path).expect("readable");
            file[at] ^= 1;
            std::fs::write(&path, &file).expect("writable");
        };
        flip();
        let store = open(copy.path()).await;
        assert!(store.get("wal/2", None).await.is_err());
        assert_eq!(store.findings().len(), 1, "{:?}", store.findings());
        store.put("wal/3", vec![bytes(3, 5000)]).await.expect("put");
        drop(store);
        flip();
        let store = open(copy.path()).await;
        assert_eq!(store.get("wal/2", None).await, Ok(bytes(2, 5000)), "byte {at}");
        assert_eq!(store.get("wal/3", None).await, Ok(bytes(3, 5000)), "byte {at}");
        store.delete("wal/3").await.expect("deleted");
        drop(store);
        std::fs::write(&path, &whole).expect("writable");
    }
}

/// Whoever moves a pack away, within the folder too, can put it back.
#[tokio::test]
async fn unknown_files_are_named_and_left_alone() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    store.put("wal/1", vec![bytes(1, 100)]).await.expect("put");
    let copy = crashed(dir.path());
    let packs = copy.path().join("packs");
    let used = |name: &String| std::fs::read(packs.join(name)).expect("readable")[0] != 0;
    let pack = pack_files(copy.path()).into_iter().find(used).expect("a pack is in use");
    let aside = packs.join(format!("{pack}.aside"));
    std::fs::rename(packs.join(&pack), &aside).expect("moved");
    std::fs::write(packs.join("notes.txt"), "mine").expect("written");
    std::fs::write(packs.join("pack-77"), "mine").expect("written");
    std::fs::create_dir(packs.join("old")).expect("created");
    std::fs::write(copy.path().join("tmp/notes.txt"), "mine").expect("written");
    let store = open(copy.path()).await;
    assert!(store.packed_keys().is_empty());
    let mut named: Vec<_> = store.findings().iter().map(|finding| finding.path.clone()).collect();
    named.sort();
    let tmp = copy.path().canonicalize().expect("a path").join("tmp/notes.txt");
    let packs = copy.path().canonicalize().expect("a path").join("packs");
    let mut expected = vec![packs.join("notes.txt"), packs.join("old"), packs.join("pack-77"), tmp.clone()];
    expected.push(packs.join(aside.file_name().expect("a name")));
    expected.sort();
    assert_eq!(named, expected);
    for number in 0..20 {
        store.put(&format!("wal/new-{number}"), vec![bytes(number, 7000)]).await.expect("put");
    }
    drop(store);
    assert_eq!(std::fs::read(packs.join("pack-77")).expect("still there"), b"mine");
    assert_eq!(std::fs::read(&tmp).expect("still there"), b"mine");
    // Put back. Its number was not given to another one meanwhile.
    assert!(!packs.join(&pack).exists(), "{:?}", pack_files(copy.path()));
    std::fs::rename(&aside, packs.join(&pack)).expect("moved back");
    let store = open(copy.path()).await;
    assert_eq!(store.packed_keys().len(), 21);
    drop(store);
    // Or under a number that is free.
    std::fs::rename(packs.join(&pack), packs.join("pack-00000099")).expect("moved");
    let store = open(copy.path()).await;
    assert_eq!(store.get("wal/1", None).await, Ok(bytes(1, 100)));
    assert_eq!(store.packed_keys().len(), 21);
    drop(store);
    // A copy is no second pack: deleting in one must not bury what the other holds.
    std::fs::copy(packs.join("pack-00000099"), packs.join("pack-00000100")).expect("copied");
    let store = open(copy.path()).await;
    assert!(store.findings().iter().any(|finding| finding.path == packs.join("pack-00000100")));
    drop(store);
    std::fs::remove_file(packs.join("pack-00000100")).expect("removed");
    assert_eq!(open(copy.path()).await.get("wal/1", None).await, Ok(bytes(1, 100)));
}

/// `inspect` reads what opening reads, all of it, and changes nothing.
#[tokio::test]
async fn a_store_can_be_judged_without_opening_it() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    for number in 0..40 {
        store.put(&format!("wal/{number:02}"), vec![bytes(number, 7000)]).await.expect("put");
    }
    store.put("lake/1-t/data/1.parquet", vec![bytes(1, 10)]).await.expect("put");
    assert!(matches!(floe_store::local::inspect(dir.path()), Err(OpenError::InUse(_))));
    let copy = crashed(dir.path());
    let found = floe_store::local::inspect(copy.path()).expect("it can be read");
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    assert_eq!(found.objects.len(), 41);
    assert_eq!(found.objects["lake/1-t/data/1.parquet"], 10);
    let looked: &dyn Store = &found;
    for store in [&store as &dyn Store, looked] {
        let listed = store.list("wal", "wal/37", 10).await.expect("listed");
        assert_eq!(listed.iter().map(|listed| &listed.key[..]).collect::<Vec<_>>(), ["wal/38", "wal/39"]);
        let listed = store.list("lake", "", 10).await.expect("listed");
        assert_eq!((listed.len(), listed[0].bytes), (1, 10));
        assert_eq!(store.list("lake", &listed[0].key, 10).await, Ok(Vec::new()));
        assert_eq!(store.get("wal/07", None).await, Ok(bytes(7, 7000)));
        assert_eq!(store.get("wal/07", Some(2..5)).await, Ok(bytes(7, 7000).slice(2..5)));
        assert_eq!(store.size("wal/41").await, Err(StoreError::NotFound("wal/41".into())));
    }
    let refused = looked.put("lake/2", vec![bytes(1, 10)]).await;
    assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
    // A look holds the lock for as long as somebody may read what it found.
    drop(found);
    for name in pack_files(copy.path()) {
        let path = copy.path().join("packs").join(name);
        let mut file = std::fs::read(&path).expect("readable");
        if file[BLOCK + 52..BLOCK + 58] == *b"wal/00" {
            file[BLOCK + 512 + 3000] ^= 1;
            std::fs::write(&path, &file).expect("writable");
        }
    }
    let found = floe_store::local::inspect(copy.path()).expect("it can be read");
    assert_eq!(found.findings.len(), 1, "{:?}", found.findings);
    assert_eq!(found.findings[0].key.as_deref(), Some("wal/00"));
    assert!(matches!(floe_store::local::inspect(&copy.path().join("no")), Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn a_directory_has_one_owner_and_a_known_format() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).await;
    let second = LocalStore::open(Env::real(), dir.path(), small()).await;
    assert!(matches!(second, Err(OpenError::InUse(_))));
    store.put("wal/1", vec![bytes(1, 10)]).await.expect("put");
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(
        store.get("wal/1", None).await,
        Ok(bytes(1, 10)),
        "after the last handle is gone it can be opened"
    );
    drop(store);

    let copy = crashed(dir.path());
    std::fs::write(copy.path().join("format"), "floe local store 2\n").expect("writable");
    match LocalStore::open(Env::real(), copy.path(), small()).await {
        Err(OpenError::Format { found, .. }) => assert_eq!(found, "floe local store 2"),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("a newer format was opened"),
    }
    // Files that were being zero-filled or written aside when the process died are removed.
    let copy = crashed(dir.path());
    std::fs::write(copy.path().join("packs/zeroing-00000099"), "half").expect("writable");
    std::fs::write(copy.path().join("tmp/0123456789abcdef"), "half").expect("writable");
    let _store = open(copy.path()).await;
    assert!(!copy.path().join("packs/zeroing-00000099").exists());
    assert!(!copy.path().join("tmp/0123456789abcdef").exists());
}
