//! What a broker, its journal and its store hold at some moment.

use std::collections::BTreeMap;

use floe_log::Log;
use floe_log::extent::Extent;
use floe_log::object::{Object, Trash};
use floe_meta::{MapRecord, Snapshot};
use floe_store::{Listed, Store};

use super::super::journal::SimJournal;
use super::super::store::SimStore;
use super::figure::Figure;

/// The folders of a store, and what their files count as.
const FOLDERS: [(&str, Figure); 5] = [
    ("wal", Figure::LogFiles),
    ("segment", Figure::LogFiles),
    ("lake", Figure::TableFiles),
    ("history", Figure::HistoryFiles),
    ("floe", Figure::OtherFiles),
];
/// Files of one listing.
const LISTED: usize = 10_000;

/// What is held at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Commits so far.
    pub commits: u64,
    /// Every figure.
    pub figures: BTreeMap<Figure, u64>,
    /// Records of the map by their kind.
    pub kinds: BTreeMap<u8, u64>,
}

impl Sample {
    /// Takes a sample.
    pub(crate) async fn take(log: &Log, store: &SimStore, journal: &SimJournal) -> Sample {
        let snapshot = log.meta().snapshot();
        let mut figures = BTreeMap::new();
        let mut add = |figure, count: u64| *figures.entry(figure).or_insert(0) += count;
        let mut kinds: BTreeMap<u8, u64> = BTreeMap::new();
        for (key, value) in snapshot.pairs() {
            add(Figure::MapRecords, 1);
            add(Figure::MapBytes, (key.len() + value.len()) as u64);
            *kinds.entry(key[0]).or_default() += 1;
        }
        add(Figure::Extents, count::<Extent>(&snapshot));
        add(Figure::Objects, count::<Object>(&snapshot));
        add(Figure::Trash, count::<Trash>(&snapshot));
        let parts = floe_history::map::parts(&snapshot).expect("the history can be read");
        add(Figure::HistoryParts, parts.len() as u64);
        add(Figure::HistoryBytes, parts.iter().map(|part| part.part.bytes).sum());
        add(Figure::JournalEntries, journal.held());
        add(Figure::JournalBytes, journal.kept().len() as u64);
        for (folder, figure) in FOLDERS {
            let listed = list(store, folder).await;
            add(figure, listed.len() as u64);
            if figure == Figure::LogFiles {
                add(Figure::LogBytes, listed.iter().map(|listed| listed.bytes).sum());
            }
        }
        Sample { commits: snapshot.lsn().0, figures, kinds }
    }
}

fn count<R: MapRecord>(snapshot: &Snapshot) -> u64 {
    snapshot.range::<R>(..).count() as u64
}

/// All files of a folder.
async fn list(store: &SimStore, folder: &str) -> Vec<Listed> {
    let mut found: Vec<Listed> = Vec::new();
    loop {
        let after = found.last().map(|listed| listed.key.clone()).unwrap_or_default();
        let some = store.list(folder, &after, LISTED).await.expect("a store without faults");
        let is_last = some.len() < LISTED;
        found.extend(some);
        if is_last {
            return found;
        }
    }
}
