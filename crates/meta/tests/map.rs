//! Keys, values, snapshots and commands against a plain model.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::ops::Bound;

use floe_env::*;
use floe_meta::key::{Key, KeyReader};
use floe_meta::key::{put_i64, put_str, put_u8, put_u32, put_u64};
use floe_meta::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    number: i64,
    text: String,
    part: u32,
}

impl Key for Name {
    fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.number);
        put_str(out, &self.text);
        put_u32(out, self.part);
    }
    fn decode(bytes: &[u8]) -> Result<Name, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let name = Name { number: reader.i64()?, text: reader.string()?, part: reader.u32()? };
        reader.finish().map(|()| name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Value(u16);
postcard_record!(Value, 200, 1, Name);

/// A neighbouring kind, whose keys must never appear in ranges of the other kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Neighbour;
postcard_record!(Neighbour, 201, 1, Name);

fn encoded(key: &impl Key) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode(&mut out);
    out
}

fn names() -> impl Strategy<Value = Name> {
    (-2..3_i64, "[a\0\u{1}\u{ff}]{0,2}", 0..3_u32).prop_map(|(number, text, part)| Name {
        number,
        text,
        part,
    })
}

#[derive(Debug, Clone)]
enum Step {
    Put(Name, u16),
    Delete(Name),
    Commit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (names(), any::<u16>()).prop_map(|(name, value)| Step::Put(name, value)),
        3 => names().prop_map(Step::Delete),
        1 => Just(Step::Commit),
    ];
    proptest::collection::vec(step, 0..80)
}

type Model = BTreeMap<Name, Value>;

/// Reads a range from the ends that the bits of `ends` choose, and compares with the model.
fn check_range(reader: &impl Lookup, model: &Model, range: (Bound<Name>, Bound<Name>), ends: u64) {
    let mut got = reader.range::<Value>(range.clone());
    let expected: Vec<(Name, Value)> =
        model.iter().filter(|(k, _)| is_within(k, &range)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut expected = expected.into_iter();
    for turn in 0.. {
        let (got, expected) = if ends >> (turn % 64) & 1 == 0 {
            (got.next(), expected.next())
        } else {
            (got.next_back(), expected.next_back())
        };
        assert_eq!(got.transpose().unwrap(), expected);
        if expected.is_none() {
            break;
        }
    }
    assert!(got.next().is_none());
}

fn is_within(key: &Name, (start, end): &(Bound<Name>, Bound<Name>)) -> bool {
    let after = match start {
        Bound::Included(start) => key >= start,
        Bound::Excluded(start) => key > start,
        Bound::Unbounded => true,
    };
    let before = match end {
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
        Bound::Unbounded => true,
    };
    after && before
}

fn bounds() -> impl Strategy<Value = Bound<Name>> {
    prop_oneof![names().prop_map(Bound::Included), names().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

proptest! {
    #[test]
    fn keys_keep_their_order(a in names(), b in names(), texts in any::<[String; 2]>(), numbers in any::<[i64; 2]>()) {
        prop_assert_eq!(a.cmp(&b), encoded(&a).cmp(&encoded(&b)));
        prop_assert_eq!(Name::decode(&encoded(&a)), Ok(a.clone()));
        prop_assert!(Name::decode(&encoded(&a)[..encoded(&a).len() - 1]).is_err());
        prop_assert!(Name::decode(&[encoded(&a), vec![0]].concat()).is_err());
        let [c, d] = texts.clone();
        prop_assert_eq!(c.cmp(&d), encoded(&c).cmp(&encoded(&d)));
        let [c, d] = [0, 1].map(|i| Name { number: numbers[i], text: texts[i].clone(), part: 0 });
        prop_assert_eq!(c.cmp(&d), encoded(&c).cmp(&encoded(&d)));
    }

    #[test]
    fn commands_see_a_map(
        steps in steps(), range in (bounds(), bounds()), ends in any::<u64>(), probe in names(), number in -2..3_i64,
    ) {
        let journal = MemoryJournal::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let meta = Meta::open(Env::simulated(1), std::sync::Arc::new(journal), Options::default()).await.unwrap();
            let mut model = Model::new();
            for steps in steps.split_inclusive(|step| matches!(step, Step::Commit)) {
                let before = (meta.snapshot(), model.clone());
                let (steps, seen, probe) = (steps.to_vec(), range.clone(), probe.clone());
                let command = move |tx: &mut Tx<'_>| {
                    let mut model = before.1.clone();
                    for step in &steps {
                        match step {
                            Step::Put(name, value) => {
                                tx.put(name, &Value(*value));
                                tx.put(name, &Neighbour);
                                model.insert(name.clone(), Value(*value));
                            }
                            Step::Delete(name) => {
                                tx.delete::<Value>(name);
                                model.remove(name);
                            }
                            Step::Commit => {}
                        }
                    }
                    check_range(tx, &model, seen.clone(), ends);
                    assert_eq!(tx.get::<Value>(&probe).unwrap().as_ref(), model.get(&probe));
                    let prefixed = tx.prefix::<Value>(|out| put_i64(out, number)).map(|pair| pair.unwrap().0);
                    assert!(prefixed.eq(model.keys().filter(|name| name.number == number).cloned()));
                    Ok::<_, ()>(model)
                };
                let (old, old_model) = (before.0.clone(), model.clone());
                let done = meta.commit(Envelope::broker("test"), command).await.unwrap();
                model = done.reply;
                check_range(&done.snapshot, &model, range.clone(), ends);
                check_range(&meta.snapshot(), &model, (Bound::Unbounded, Bound::Unbounded), ends);
                // A holder of an old snapshot sees the old map.
                check_range(&old, &old_model, (Bound::Unbounded, Bound::Unbounded), ends);
            }
        });
    }
}

/// Journals in the field hold these keys and values, so they never change.
#[test]
fn golden() {
    let name = Name { number: -2, text: "a\0b".into(), part: 7 };
    assert_eq!(
        encoded(&name),
        [&[0x7f, 255, 255, 255, 255, 255, 255, 0xfe][..], b"a\0\xffb\0\x01", &[0, 0, 0, 7]].concat()
    );
    let mut out = Vec::new();
    put_u8(&mut out, 1);
    put_u64(&mut out, 2);
    assert_eq!(out, [1, 0, 0, 0, 0, 0, 0, 0, 2]);

    let envelope = Envelope::broker("test");
    let base = Snapshot::default();
    let mut tx = Tx::new(&base, &envelope);
    assert_eq!(tx.take_counter(&CounterKey::named("n"), 300).unwrap(), 1);
    assert_eq!(tx.next_counter(&CounterKey::named("n")).unwrap(), 301);
    lease::acquire(&mut tx, "job", "me", None, std::time::Duration::from_millis(5)).unwrap();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> =
        tx.into_changes().into_iter().map(|c| (c.key.to_vec(), c.value.unwrap().to_vec())).collect();
    let expected: [(&[u8], &[u8]); 2] =
        [(b"\x02n\0\x01", &[1, 0xad, 0x02]), (b"\x03job\0\x01", &[1, 1, 2, b'm', b'e', 1, 10])];
    assert!(pairs.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected), "{pairs:?}");
}

#[test]
fn values_of_unknown_versions_are_refused() {
    assert_eq!(
        Value::decode(2, &[0]).unwrap_err().to_string(),
        "metadata is corrupt: version 2 was never written"
    );
    assert!(Value::decode(1, &[0, 0]).is_err());
    assert_eq!(Value::decode(1, &[5]), Ok(Value(5)));
}
