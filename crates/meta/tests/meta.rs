//! One broker, or several that share a journal: commit, conflict, order, watch, observe.

use std::sync::Arc;
use std::sync::Mutex;

use floe_meta::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note(String);
postcard_record!(Note, 200, 1, u32);

async fn open(env: &Env, journal: &MemoryJournal) -> Meta {
    Meta::open(env.scope(), Arc::new(journal.clone()), Options::default()).await.expect("the journal loads")
}

fn who() -> Envelope {
    Envelope::client("alice".into(), "test".into())
}

#[tokio::test(start_paused = true)]
async fn brokers_share_a_journal() {
    let env = Env::simulated(1);
    let journal = MemoryJournal::new();
    let (one, two) = (open(&env, &journal).await, open(&env, &journal).await);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    two.observe(move |applied| log.lock().unwrap().push((applied.lsn, applied.keys::<Note>().count())));

    let add = |tx: &mut Tx<'_>| -> Result<u64, DecodeError> {
        let n = tx.next_counter(&CounterKey::named("note"))?;
        tx.put(&(n as u32), &Note(format!("note {n}")));
        Ok(n)
    };
    let mut waiting = Vec::new();
    for i in 0..100 {
        waiting.push(if i % 3 == 0 { one.commit(who(), add) } else { two.commit(who(), add) });
    }
    let mut replies = Vec::new();
    for answer in waiting {
        let done = answer.await.unwrap();
        assert_eq!(done.lsn, Lsn(done.reply));
        assert!(done.snapshot.lsn() >= done.lsn);
        replies.push(done.reply);
    }
    replies.sort_unstable();
    assert_eq!(replies, (1..=100).collect::<Vec<_>>());
    let mut watch = one.watch();
    watch.wait_for(|lsn| *lsn == Lsn(100)).await.unwrap();
    two.watch().wait_for(|lsn| *lsn == Lsn(100)).await.unwrap();
    assert!(one.snapshot().pairs().eq(two.snapshot().pairs()));
    assert_eq!(*seen.lock().unwrap(), (1..=100).map(|n| (Lsn(n), 1)).collect::<Vec<_>>());
    let last = one.snapshot().range::<Note>(..=50).next_back().unwrap().unwrap();
    assert_eq!(last, (50, Note("note 50".into())));

    let history = one.history(Lsn(10), 5).await.unwrap();
    assert_eq!(history.iter().map(|e| e.lsn.0).collect::<Vec<_>>(), [11, 12, 13, 14, 15]);
    assert_eq!(&*history[0].envelope.principal, "alice");

    let refused = one.commit(who(), |_| Err::<(), _>("no")).await.unwrap_err();
    assert_eq!(refused, CommitError::Refused("no"));
    let same = one
        .commit(who(), |tx| {
            tx.put(&1, &Note("note 1".into()));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    assert_eq!((same.lsn, journal.lsn()), (Lsn(100), Lsn(100)));
}
