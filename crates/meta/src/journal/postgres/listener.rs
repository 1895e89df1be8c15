//! The ear of a handle: it hears of the commits of other brokers, and looks for itself when it hears nothing.

use std::sync::Arc;
use std::time::Duration;

use floe_env::Backoff;
use tokio::time::{sleep, timeout};

use crate::journal::Lsn;
use crate::limits::{POSTGRES_CONNECT_TIMEOUT, POSTGRES_POLL_MAX, POSTGRES_POLL_MIN};

use super::error::PostgresOpenError;
use super::planted::Planted;
use super::session::{Ear, Role};
use super::state::Shared;

/// Listens until the handle is dropped.
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(&shared.env, POSTGRES_POLL_MIN, POSTGRES_POLL_MAX);
    loop {
        let error = listen_once(&shared, &mut backoff).await;
        tracing::warn!(%error, "cannot hear of commits, trying again");
        shared.heard.send_modify(|heard| heard.trouble = trouble(&error));
        sleep(backoff.next_pause()).await;
    }
}

/// What followers must know: an outage passes, but a server that must not be followed is another matter.
fn trouble(error: &PostgresOpenError) -> Option<String> {
    use PostgresOpenError::{Astray, Damaged, NewerFormat, OtherJournal};
    matches!(error, Astray(_) | Damaged(_) | NewerFormat { .. } | OtherJournal { .. })
        .then(|| error.to_string())
}

/// Listens until the connection ends. Returns why it did.
async fn listen_once(shared: &Arc<Shared>, backoff: &mut Backoff) -> PostgresOpenError {
    let ear: Ear = {
        let shared = Arc::clone(shared);
        Arc::new(move |told: &str| {
            if let Ok(last) = told.parse()
                && !shared.plant.has(Planted::HearsNothing)
            {
                shared.hear(Lsn(last));
            }
        })
    };
    let mut ready = match shared.ready(Role::Reads, Some(ear)).await {
        Ok(ready) => ready,
        Err(error) => return error,
    };
    let listened = ready.client().batch_execute(&format!("LISTEN {}", shared.channel())).await;
    if let Err(error) = listened {
        return error.into();
    }
    if shared.heard.borrow().trouble.is_some() {
        shared.heard.send_modify(|heard| heard.trouble = None);
    }
    backoff.reset();
    loop {
        // What was committed before the ear was open is found by looking.
        let known = match timeout(POSTGRES_CONNECT_TIMEOUT, ready.tail()).await {
            Ok(Ok(tail)) => tail.mark.lsn,
            Ok(Err(error)) => return error,
            Err(_) => {
                return PostgresOpenError::Refused(
                    "a look at the end of the journal took too long".to_owned(),
                );
            }
        };
        if known > shared.heard.borrow().last {
            backoff.reset();
            shared.hear(known);
        }
        let pause = backoff.next_pause();
        tokio::select! {
            biased;
            _ = &mut ready.session.driver => {
                return PostgresOpenError::Refused("the connection has ended".to_owned());
            }
            () = quiet(shared, pause) => {}
        }
    }
}

/// Waits until nothing was heard for so long. As long as notifications come, a look now and then is enough.
async fn quiet(shared: &Shared, pause: Duration) {
    let mut heard = shared.heard.subscribe();
    let quiet = async { while timeout(pause, heard.changed()).await.is_ok() {} };
    // Both ends mean the same.
    let _ = timeout(POSTGRES_POLL_MAX, quiet).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_no_trouble_for_followers_and_another_history_is() {
        let out = PostgresOpenError::Unreachable { server: "host".into(), reason: "refused".into() };
        assert_eq!(trouble(&out), None);
        let astray = PostgresOpenError::Astray("it lost commits".into());
        assert_eq!(trouble(&astray), Some("it lost commits".to_owned()));
    }
}
