//! The commit of a merge, the index of extents, and what to merge next.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::map::extent::{ExtentKey, Marker, Outcome};
use crate::map::format_level::{self, FormatLevel, NEWEST};
use crate::map::identity::miscounted;
use crate::map::object::{Object, ObjectKind, Trash};
use crate::map::partition::{self, Head};
use crate::map::writer_number::WriterNumber;
use crate::merge::index::Index;
use crate::merge::plan::{self, Plan, Run};
use crate::write::leases::{end_ids, lease_ids};
use crate::write::merged::{MergeError, Merged, Swap, merge};
use crate::write::sequencer::sequence;

const BYTES: u64 = 500;

/// A partition with two objects and a marker between them, and the merge of all three.
fn prepared(tx: &mut Tx<'_>) -> (PartitionId, Merged) {
    format_level::raise(tx, NEWEST).unwrap();
    let partition = PartitionId::new(create(tx, "t", 1).id, 0);
    lease(tx, 1, 1000);
    let append = |tx: &mut Tx<'_>, object, client| {
        let writer = Writer::new("User:a", client);
        let bytes = plain(2, 0);
        assert!(sequence(tx, &uploaded(object, &[(partition, &writer, &bytes)]))[0].is_ok());
    };
    append(tx, 1, "one");
    crate::write::marker::mark(tx, &[partition], (9, 1), Outcome::Commit).unwrap();
    append(tx, 2, "two");
    let old: Vec<_> = tx.range::<Extent>(..).map(|pair| pair.unwrap()).collect();
    let old: Vec<_> = old.into_iter().map(|(key, extent)| (key.base, extent)).collect();
    let owner = 77;
    let object = lease_ids(tx, ObjectKind::Segment, WriterNumber(3), owner, 1, Duration::ZERO).unwrap();
    let data = Data {
        spacing: Spacing::Stamped,
        written_by: WrittenBy::Footer,
        lsn: Lsn(1),
        ..counted(object, 0, BYTES, 5, 1)
    };
    let swaps = vec![Swap { partition, old, new: vec![(Offset(0), Extent::Data(data))] }];
    (partition, Merged { object, owner, size: BYTES + 100, swaps })
}

#[test]
fn a_merge_swaps_extents_and_moves_everything_that_counts_them() {
    in_tx(|tx| {
        let (partition, merged) = prepared(tx);
        assert_eq!(miscounted(tx).unwrap(), Vec::<String>::new());
        merge(tx, &merged).unwrap();
        let left: Vec<_> = tx.range::<Extent>(..).map(|pair| pair.unwrap().1).collect();
        assert_eq!(left, [merged.swaps[0].new[0].1]);
        let head = partition::head(tx, partition).unwrap().unwrap();
        assert_eq!((head.next, head.log_start, head.bytes), (Offset(5), Offset(0), BYTES));
        assert_eq!(miscounted(tx).unwrap(), Vec::<String>::new(), "the footer has the writers now");
        let object = tx.get::<Object>(&merged.object).unwrap();
        assert_eq!(object, Some(Object { size: BYTES + 100, extents: 1 }));
        for id in [1, 2] {
            let trash = tx.get::<Trash>(&ObjectId(id)).unwrap().expect("it has no extents left");
            assert_eq!(trash.lsn, tx.lsn(), "older snapshots refer to it");
        }
        let owner = merged.owner;
        end_ids(tx, owner, merged.object, ObjectId(merged.object.0 + 1)).unwrap();
        assert!(tx.get::<Trash>(&merged.object).unwrap().is_none(), "it is named");
        assert_eq!(
            merge(tx, &merged).unwrap_err().to_string(),
            "the lease on object 8000030000000001 ended before its commit"
        );
    });
}

/// Whatever changed since the merge read the extents, the merge loses.
#[test]
fn a_merge_of_extents_that_have_changed_is_refused() {
    type Change = fn(&mut Tx<'_>, PartitionId, &mut Merged);
    let changes: [(&str, Change); 5] = [
        ("an extent is gone", |tx, partition, _| {
            tx.delete::<Extent>(&ExtentKey::new(partition, Offset(0)));
        }),
        ("an extent is another", |tx, partition, _| {
            let (time, lsn) = (Timestamp(0), Lsn(4));
            let marker = Marker { producer_id: 1, producer_epoch: 0, outcome: Outcome::Abort, time, lsn };
            tx.put(&ExtentKey::new(partition, Offset(2)), &Extent::Marker(marker));
        }),
        ("the partition is gone", |tx, partition, _| tx.delete::<Head>(&partition)),
        ("the lease has ended", |tx, _, merged| {
            end_ids(tx, merged.owner, merged.object, merged.object).unwrap();
        }),
        ("old brokers are there", |tx, _, _| tx.put(&(), &FormatLevel(1))),
    ];
    for (what, change) in changes {
        in_tx(|tx| {
            let (partition, mut merged) = prepared(tx);
            change(tx, partition, &mut merged);
            let refused = merge(tx, &merged).expect_err(what);
            let expected = match what {
                "the lease has ended" => matches!(refused, MergeError::Object(_)),
                "old brokers are there" => matches!(refused, MergeError::Level { .. }),
                _ => refused == MergeError::Changed(partition),
            };
            assert!(expected, "{what}: {refused}");
        });
    }
}

#[test]
#[should_panic(expected = "a merge leaves no offset out")]
fn a_merge_that_leaves_an_offset_out_is_a_bug() {
    in_tx(|tx| {
        let (_, mut merged) = prepared(tx);
        let (_, Extent::Data(data)) = &mut merged.swaps[0].new[0] else { panic!("it has data") };
        data.offsets -= 1;
        let _ = merge(tx, &merged);
    });
}

/// Merges what the plan says into an object of its own. Returns its bytes.
fn merge_planned(tx: &mut Tx<'_>, plan: &Plan) -> u64 {
    let owner = 77;
    let object = lease_ids(tx, ObjectKind::Segment, WriterNumber(3), owner, 1, Duration::ZERO).unwrap();
    let (mut position, mut swaps) = (0, Vec::new());
    for Run { partition, extents } in &plan.runs {
        let bytes = extents.iter().map(|(_, extent)| extent.bytes()).sum();
        let data = Data {
            position,
            bytes,
            offsets: extents.iter().map(|(_, extent)| extent.offsets()).sum(),
            spacing: Spacing::Stamped,
            written_by: WrittenBy::Footer,
            lsn: Lsn(1),
            ..counted(object, 0, 0, 0, 1)
        };
        position += bytes;
        let new = vec![(extents[0].0, Extent::Data(data))];
        swaps.push(Swap { partition: *partition, old: extents.clone(), new });
    }
    merge(tx, &Merged { object, owner, size: position, swaps }).unwrap();
    end_ids(tx, owner, object, ObjectId(object.0 + 1)).unwrap();
    position
}

/// The index of what a command has made so far.
fn index_of(tx: &Tx<'_>) -> Index {
    let index = Index::default();
    for pair in tx.range::<Extent>(..) {
        let (key, extent) = pair.unwrap();
        index.note(key, &extent);
    }
    index
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// Objects of any size come. After the merges that are due, few objects and extents are left, and no byte was
    /// written too often.
    #[test]
    fn merges_keep_objects_few_and_bytes_written_bounded(
        sizes in prop::collection::vec((0u32..28, 0u32..3, 0u8..6), 20..120),
    ) {
        in_tx(|tx| {
            format_level::raise(tx, NEWEST).unwrap();
            let topic = create(tx, "t", 3).id;
            lease(tx, 1, 1000);
            let writer = Writer::new("User:a", "c");
            let (mut came, mut written, mut left) = (0, 0, Vec::new());
            for (id, (power, partition, what)) in (1..).zip(&sizes) {
                let partition = PartitionId::new(topic, *partition);
                if *what == 0 {
                    crate::write::marker::mark(tx, &[partition], (9, 1), Outcome::Commit).unwrap();
                    continue;
                }
                // The sequencer believes the header, so no batch has to be so large.
                let mut header = header_of(&plain(2, 0));
                header.size = 1 << power.max(&6);
                came += header.size as u64;
                let placed =
                    Placed { partition, writer: writer.clone(), position: 16, header, follows: false };
                let size = header.size as u64 + 100;
                let object = Uploaded { object: ObjectId(id), owner: OWNER, size, batches: vec![placed] };
                assert!(sequence(tx, &object)[0].is_ok());
                while let Some(plan) = plan::next(tx, &index_of(tx)).unwrap() {
                    assert_eq!(plan.objects.len(), plan::FANOUT);
                    for run in &plan.runs {
                        let mut next = run.extents[0].0;
                        for (base, extent) in &run.extents {
                            assert_eq!(*base, next, "a run has no hole");
                            next = extent.next_offset(*base);
                        }
                        assert!(run.extents.last().unwrap().1.data().is_some(), "it ends with data");
                    }
                    assert_eq!(plan::next(tx, &index_of(tx)).unwrap().as_ref(), Some(&plan), "it is a function");
                    written += merge_planned(tx, &plan);
                }
                left = tx.range::<Object>(..).map(|pair| pair.unwrap().1.size).collect();
                let small = left.iter().filter(|bytes| plan::tier(**bytes).is_some()).count();
                assert!(small < plan::FANOUT * plan::TIERS, "{small} objects that are not large");
            }
            assert!(written <= came * plan::TIERS as u64, "{written} bytes written of {came}");
            assert_eq!(miscounted(tx).unwrap(), Vec::<String>::new());
            for index in 0..3 {
                let partition = PartitionId::new(topic, index);
                let head = partition::head(tx, partition).unwrap().unwrap();
                let mut next = Offset(0);
                for pair in tx.prefix::<Extent>(|out| partition.put(out)) {
                    let (key, extent) = pair.unwrap();
                    assert_eq!(key.base, next, "no offset is left out");
                    next = extent.next_offset(key.base);
                }
                assert_eq!(next, head.next);
            }
            drop(left);
        });
    }
}

/// The index follows the commits of a broker: what was merged, and what went.
#[tokio::test(start_paused = true)]
async fn the_index_follows_the_map() {
    let env = floe_env::Env::simulated(1);
    let meta = floe_meta::Meta::open(
        env,
        std::sync::Arc::new(floe_meta::MemoryJournal::new()),
        floe_meta::Options::default(),
    );
    let meta = meta.await.unwrap();
    let commit = |work: fn(&mut Tx<'_>)| {
        let command = move |tx: &mut Tx<'_>| -> Result<(), floe_meta::DecodeError> {
            work(tx);
            Ok(())
        };
        meta.commit(Envelope::broker("test"), command)
    };
    let partition = PartitionId::new(crate::TopicId(1), 0);
    let key = |base| ExtentKey::new(partition, Offset(base));
    commit(|tx| {
        tx.put(&ObjectId(1), &Object { size: 1, extents: 1 });
        let partition = PartitionId::new(crate::TopicId(1), 0);
        tx.put(&ExtentKey::new(partition, Offset(0)), &Extent::Data(counted(ObjectId(1), 0, 1, 1, 0)));
    })
    .await
    .unwrap();
    let index = Index::of(&meta).unwrap();
    let of = |object| {
        let extents = index.extents(&meta.snapshot(), ObjectId(object)).unwrap();
        extents.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(of(1), [key(0)]);
    commit(|tx| {
        tx.put(&ObjectId(2), &Object { size: 1, extents: 2 });
        let partition = PartitionId::new(crate::TopicId(1), 0);
        for base in [1, 0] {
            let extent = Extent::Data(counted(ObjectId(2), 0, 1, 1, 0));
            tx.put(&ExtentKey::new(partition, Offset(base)), &extent);
        }
    })
    .await
    .unwrap();
    assert_eq!((of(1), of(2)), (vec![], vec![key(0), key(1)]), "an extent has moved");
    commit(|tx| {
        tx.delete::<Object>(&ObjectId(1));
        let partition = PartitionId::new(crate::TopicId(1), 0);
        tx.delete::<Extent>(&ExtentKey::new(partition, Offset(1)));
    })
    .await
    .unwrap();
    assert_eq!((of(1), of(2)), (vec![], vec![key(0)]));
}
